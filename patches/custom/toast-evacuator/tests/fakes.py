"""A region in memory, with a clock that only runs when somebody sleeps."""

import threading

from toast_evacuator.journal import Incident, Journal
from toast_evacuator.region import Failed, Gone, Power, Refused, Server
from toast_evacuator.verdict import Verdict


class Crash(BaseException):
    """The evacuator is killed."""


class Region:
    """A fence, a Nova, and what the vantage points say. `did` is everything that was done, in order."""

    def __init__(self, *, forced_down: bool = True) -> None:
        self.forced_down = forced_down
        self.now = 1000.0
        self.power_state = "running"
        self.fence_broken = ""
        self.down = False
        self.dead, self.alive = True, False
        self.returns: float | None = None  # when the compute is back
        self.refuse = ""
        self.tasks: dict[str, float] = {}  # evacuations under way: when they end; their task does two seconds before
        self.hosts = {"a": "cmp1", "b": "cmp1", "c": "cmp1"}
        self.status = {"a": "ACTIVE", "b": "ACTIVE", "c": "SHUTOFF"}
        self.other_tasks: dict[str, str] = {}
        self.did: list[str] = []
        self.crash_at: int | None = None  # the number of effects before the crash
        self._effects = 0
        self._lock = threading.RLock()

    def effect(self, what: str = "") -> None:
        """A place where the evacuator may be killed."""
        with self._lock:
            if self.crash_at is not None and self._effects >= self.crash_at:
                raise Crash
            self._effects += 1
            if what:
                self.did.append(what)

    def start_anew(self) -> None:
        self.crash_at = None

    # Time
    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        with self._lock:
            self.now += seconds
            if self.now > 5000:
                raise AssertionError("it takes for ever: " + ", ".join(self.did))
            if self.returns is not None and self.now >= self.returns:
                self.power_state, self.dead, self.alive = "running", False, True
            for id, end in list(self.tasks.items()):
                if self.now >= end:
                    del self.tasks[id]
                    self.hosts[id] = "cmp2"

    def verdict(self) -> Verdict:
        return Verdict(self.dead, self.alive, 6.0, ["ctl", "net"], [], "")

    # The fence
    def off(self, host: str) -> Power:
        self.effect()
        if self.fence_broken:
            raise Failed(self.fence_broken)
        self.effect("off")
        self.power_state = "stopped"
        return Power("stopped", self.now)

    def power(self, host: str) -> Power:
        return Power(self.power_state, self.now)

    # Nova
    def force_down(self, host: str, down: bool) -> None:
        self.effect("down" if down else "up")
        self.down = down

    def is_down(self, host: str) -> bool:
        return self.now > 1020

    def servers(self, host: str) -> list[Server]:
        return [self.server(id) for id in self.hosts if self.hosts[id] == host]

    def server(self, id: str) -> Server:
        if id not in self.hosts:
            raise Gone
        task = "rebuilding" if self.tasks.get(id, 0.0) - 2 > self.now else self.other_tasks.get(id)
        return Server(id, "server-" + id, self.status[id], task, self.hosts[id], "")

    def evacuate(self, id: str) -> None:
        if self.refuse:
            raise Refused(self.refuse)
        with self._lock:
            if self.power_state == "running":
                raise AssertionError(f"{id} is evacuated from a compute that runs")
            if not self.down and self.forced_down:
                raise AssertionError(f"{id} is evacuated from a compute that Nova takes for up")
            if id in self.tasks or self.hosts[id] != "cmp1":
                raise AssertionError(f"{id} is evacuated twice")
            self.effect("evacuate " + id)
            self.other_tasks.pop(id, None)
            self.tasks[id] = self.now + 5
        self.effect()


class Kept(Journal):
    """A journal whose every save is a place to be killed at, before it and behind it."""

    def __init__(self, folder: str, region: Region) -> None:
        super().__init__(folder)
        self._region = region

    def save(self, incident: Incident) -> None:
        self._region.effect()
        super().save(incident)
        self._region.effect()
