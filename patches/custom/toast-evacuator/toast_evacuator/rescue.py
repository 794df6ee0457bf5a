"""What is done about a dead compute, step by step. Each is journalled before the next, and each may be done again: who was
killed in the middle goes on from the journal."""

import concurrent.futures
import logging
import time
from collections.abc import Callable

from toast_evacuator import journal
from toast_evacuator.config import Timing
from toast_evacuator.journal import Incident, Instance, Journal
from toast_evacuator.region import Failed, Fence, Gone, Nova, Refused, Server
from toast_evacuator.verdict import Verdict

log = logging.getLogger(__name__)

LIMIT = 300.0  # seconds that an evacuation may take, or a compute's own cleaning up
FINISH = 30.0  # seconds after Nova's task: an instance is at work already, and gets its new host when the resource tracker is free


class Rescue:
    """Of one compute's instances. `verdict` is what the vantage points say of it now."""

    def __init__(
        self,
        incident: Incident,
        kept: Journal,
        fence: Fence,
        nova: Nova,
        verdict: Callable[[], Verdict],
        timing: Timing,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.incident = incident
        self._journal, self._fence, self._nova, self._verdict = kept, fence, nova, verdict
        self._timing, self._clock, self._sleep = timing, clock, sleep
        self._rebuilt: dict[str, float] = {}  # instances, and when Nova was last known to be at them

    def run(self) -> None:
        """From where the journal is to the end: the compute is back, or was before anything was done."""
        steps = {
            journal.DETECTED: self._power_off,
            journal.FENCED: self._force_down,
            journal.FORCED_DOWN: self._evacuate,
            journal.EVACUATED: self._take_back,
        }
        while not self.incident.over:
            try:
                steps[self.incident.state]()
            except Failed as reason:
                self._alarm(str(reason))
                self._sleep(self._timing.retry)

    def _power_off(self) -> None:
        verdict = self._verdict()
        if verdict.alive:
            self._reach(journal.WITHDRAWN)
        elif not verdict.dead:  # the vantage points do not agree any more: nobody is fenced on an old verdict
            self._sleep(self._timing.beat)
        else:
            try:
                power = self._fence.off(self.incident.host)
            except Failed as reason:
                raise Failed(f"fencing failed, so nothing is evacuated: {reason}") from reason
            self.incident.steps["proved_dead"] = power.seen
            self._reach(journal.FENCED)

    def _force_down(self) -> None:
        if not self._is_off():
            return
        if self._nova.forced_down:
            self._nova.force_down(self.incident.host, True)
        elif not self._nova.is_down(self.incident.host):
            self._sleep(self._timing.poll)
            return
        self._reach(journal.FORCED_DOWN)

    def _evacuate(self) -> None:
        if not self._is_off():
            return
        for server in self._nova.servers(self.incident.host):
            self.incident.instances.setdefault(server.id, Instance(server.name, server.status))
        self._journal.save(self.incident)
        with concurrent.futures.ThreadPoolExecutor(self._timing.at_once) as pool:
            moves = [pool.submit(self._move, id) for id in self.incident.instances]
        for move in moves:
            move.result()
        self._reach(journal.EVACUATED)
        lost = [f"{instance.name}: {instance.error}" for instance in self.incident.instances.values() if instance.error]
        if lost:
            self._alarm("not evacuated: " + "; ".join(lost))

    def _move(self, id: str) -> None:
        """One instance, until it is on another compute as it was before, or is given up."""
        instance = self.incident.instances[id]
        while not instance.settled:
            try:
                self._push(id, instance, self._nova.server(id))
            except Gone:
                instance.error = "it was deleted"
            except Refused as reason:
                instance.tries += 1
                if instance.tries >= self._timing.tries:
                    instance.error = str(reason)
            except Failed as reason:
                log.warning("%s: %s", instance.name, reason)
            if not instance.settled:
                self._sleep(self._timing.poll)
        self._journal.save(self.incident)

    def _push(self, id: str, instance: Instance, server: Server) -> None:
        """One step of it. Asked for is what Nova does not have under way: a request from before a crash is not made again.
        What else was being done to the instance died with its compute."""
        moved = server.host != self.incident.host
        if server.task is not None and (moved or server.task.startswith("rebuild")):
            instance.requested = instance.requested or self._clock()
            self._rebuilt[id] = self._clock()
            if self._clock() - instance.requested > LIMIT:
                instance.error = f"still {server.task} after {LIMIT:.0f} s"
        elif moved and server.status == "ERROR" and instance.status != "ERROR":
            instance.error = server.fault or "it is in ERROR"
        elif moved:
            instance.host, instance.active = server.host, self._clock()
            log.info("%s: %s is %s on %s", self.incident.host, instance.name, server.status, server.host)
        elif instance.requested and server.status != "ERROR" and self._clock() - self._rebuilt.setdefault(id, self._clock()) < FINISH:
            return
        elif instance.tries >= self._timing.tries:
            instance.error = server.fault or "Nova does not evacuate it"
        elif not self._fence.power(self.incident.host).off:
            instance.error = f"{self.incident.host} was powered on meanwhile"
        else:
            instance.requested = instance.requested or self._clock()
            self._journal.save(self.incident)
            self._nova.evacuate(id)
            instance.tries += 1
            log.info("%s: %s is asked to be evacuated", self.incident.host, instance.name)

    def _take_back(self) -> None:
        """Once the compute beats again for a while. What it had is cleaned up by its nova-compute, when that starts; Nova
        does not take it for up before."""
        since: float | None = None
        while since is None or self._clock() - since < self._timing.settle:
            if not self._verdict().alive:
                since = None
            elif since is None:
                since = self._clock()
            self._sleep(self._timing.beat)
        self.incident.steps.setdefault("back", since)
        try:
            if self._nova.forced_down:
                self._nova.force_down(self.incident.host, False)
        except Refused as reason:
            if self._clock() - self.incident.steps["back"] > LIMIT:
                raise
            log.info("%s: not yet: %s", self.incident.host, reason)
            self._sleep(self._timing.retry)
            return
        self._reach(journal.RECOVERED)

    def _is_off(self) -> bool:
        """Whether the compute is as the fence left it. Who powered it on has it back when it beats; else it is fenced anew."""
        power = self._fence.power(self.incident.host)
        if power.off:
            return True
        if self._verdict().alive:
            self._reach(journal.EVACUATED)
            self._alarm("it was powered on before its instances were evacuated: those that are left stay on it")
        else:
            self._reach(journal.DETECTED)
            self._alarm(f"it is {power.state} though it was fenced")
        return False

    def _reach(self, state: str) -> None:
        self.incident.state = state
        self.incident.steps[state] = self._clock()
        self.incident.alarm = None
        self._journal.save(self.incident)
        log.info("%s: %s", self.incident.host, state.replace("_", " "))

    def _alarm(self, reason: str) -> None:
        if self.incident.alarm != reason:
            self.incident.alarm = reason
            self._journal.save(self.incident)
            log.error("ALARM: %s: %s", self.incident.host, reason)
