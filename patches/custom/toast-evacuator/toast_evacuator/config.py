"""What each process is told, as the Salt state writes it: JSON."""

import dataclasses
import json
from typing import Any


@dataclasses.dataclass(frozen=True)
class Timing:
    """Seconds, but for the counts."""

    beat: float = 1.0  # between two heartbeats, and between two views
    suspect: float = 2.0  # without a heartbeat: the vantage point checks the network itself
    silence: float = 5.0  # without a heartbeat: half of what makes a compute dead
    checks: int = 3  # network checks that failed one after the other: the other half
    stale: float = 3.5  # a view older than this is none: its vantage point is not reachable
    settle: float = 5.0  # of heartbeats, until a compute is believed to be back
    retry: float = 3.0  # before a step that failed is tried again
    poll: float = 2.0  # between two questions to Nova about one instance: its API has enough to do just then
    at_once: int = 3  # evacuations under way
    tries: int = 3  # of one instance's evacuation


@dataclasses.dataclass(frozen=True)
class Config:
    """One node's."""

    node: str
    address: str  # the node's own, on the management network
    key: str  # of all datagrams
    beats_port: int  # where vantage points take heartbeats
    views_port: int  # where the decider takes views
    computes: dict[str, str]  # address by name
    vantage_points: dict[str, str]  # address by name
    decider: str  # the name of the vantage point that decides
    check_port: int = 22  # a TCP port that computes answer on, if only to refuse
    timing: Timing = Timing()
    # The decider's alone:
    state: str = "/var/lib/toast-evacuator"
    status: str = "/run/toast-evacuator/status.json"
    forced_down: bool = True  # Nova's API can be told that a compute is down (2.53)
    fence: dict[str, str] = dataclasses.field(default_factory=dict)  # url, secret
    cloud: dict[str, str] = dataclasses.field(default_factory=dict)  # keystoneauth1's options for a password, region_name


def load(path: str) -> Config:
    """Raises OSError, ValueError, TypeError (an option that is missing or not known)."""
    with open(path, encoding="utf-8") as file:
        options: dict[str, Any] = json.load(file)
    timing = Timing(**options.pop("timing", {}))
    return Config(timing=timing, **options)
