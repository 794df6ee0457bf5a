"""Ranges of addresses."""

import ipaddress


def canonical(value: object) -> object:
    """A range as its network's address and length: 10.8.0.0/16 for 10.8.3.1/16. What is none stays as it is, to be refused."""
    if not isinstance(value, str) or "/" not in value:
        return value
    try:
        return str(ipaddress.ip_network(value, strict=False))
    except ValueError:
        return value


def within(inner: str, outer: str) -> bool:
    """Whether all addresses of `inner` are in `outer`. Raises ValueError for what is no network's range."""
    part, whole = ipaddress.ip_network(inner), ipaddress.ip_network(outer)
    return part.version == whole.version and part.subnet_of(whole)  # type: ignore[arg-type]
