"""Datagrams between nodes: JSON behind its HMAC, each taken once."""

import hmac
import json
import logging
import socket
import time
from typing import Any

log = logging.getLogger(__name__)

DIGEST = "sha256"
SIZE = 32
DRIFT = 30.0  # seconds between two nodes' clocks, at most


class Refused(Exception):
    """A datagram that is not to be believed, and why."""


def seal(key: str, sender: str, now: float, message: dict[str, Any]) -> bytes:
    """A datagram of now (seconds since the epoch)."""
    body = json.dumps({**message, "from": sender, "at": now}, separators=(",", ":")).encode()
    return hmac.digest(key.encode(), body, DIGEST) + body


class Opener:
    """Opens datagrams, and remembers of each sender how far it has come: what was recorded is not believed again."""

    def __init__(self, key: str) -> None:
        self._key = key.encode()
        self._last: dict[str, float] = {}

    def open(self, datagram: bytes, now: float) -> dict[str, Any]:
        """Its message, with `from`. Raises Refused."""
        seal_, body = datagram[:SIZE], datagram[SIZE:]
        if not hmac.compare_digest(seal_, hmac.digest(self._key, body, DIGEST)):
            raise Refused("not signed with this environment's key")
        message: dict[str, Any] = json.loads(body)
        sender, at = message["from"], message["at"]
        if abs(now - at) > DRIFT:
            raise Refused(f"{sender}: of {now - at:+.0f} s ago; do the clocks agree?")
        if at <= self._last.get(sender, 0.0):
            raise Refused(f"{sender}: taken before")
        self._last[sender] = at
        return message


def receive(inlet: socket.socket, opener: Opener, patience: float) -> dict[str, Any] | None:
    """The next datagram's message; None when patience (seconds) is over or it is not to be believed."""
    inlet.settimeout(max(patience, 0.001))
    try:
        return opener.open(inlet.recv(65535), time.time())
    except TimeoutError:
        return None
    except (Refused, ValueError, KeyError, TypeError) as reason:
        log.warning("a datagram is refused: %s", reason)
        return None
