"""What a rescue needs of the region: its fence and its Nova. fence.py and nova.py are the real ones."""

import dataclasses
from typing import Protocol


class Failed(Exception):
    """The fence or Nova did not do it, or did not answer, and why."""


class Refused(Failed):
    """Nova answered, and will not do it."""


class Gone(Exception):
    """There is no such instance any more."""


@dataclasses.dataclass(frozen=True)
class Power:
    """A node's, as the fence saw it."""

    state: str  # running, paused, stopped, absent
    seen: float  # seconds since the epoch

    @property
    def off(self) -> bool:
        return self.state in ("stopped", "absent")


@dataclasses.dataclass(frozen=True)
class Server:
    """An instance as Nova has it."""

    id: str
    name: str
    status: str
    task: str | None  # what is being done to it
    host: str
    fault: str


class Fence(Protocol):
    """Powers nodes off. All raise Failed."""

    def off(self, host: str) -> Power:
        """Returns when the node is proved to be off."""

    def power(self, host: str) -> Power:
        """A node's state now."""


class Nova(Protocol):
    """Nova's API. All raise Failed."""

    @property
    def forced_down(self) -> bool:
        """Whether its API can be told that a compute is down."""

    def force_down(self, host: str, down: bool) -> None:
        """Nova takes the compute for dead at once, or no longer."""

    def is_down(self, host: str) -> bool:
        """Nova's own verdict: report_interval and service_down_time of nova.conf."""

    def servers(self, host: str) -> list[Server]:
        """All that are on a compute, whosever they are."""

    def server(self, id: str) -> Server:
        """Raises Gone, too."""

    def evacuate(self, id: str) -> None:
        """Asks for it: Nova's scheduler says where to. Its disks are on the NAS. Raises Refused, too."""
