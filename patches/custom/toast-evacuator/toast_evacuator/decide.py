"""The decider: takes the vantage points' views, and has a compute rescued that they find dead."""

import json
import logging
import os
import pathlib
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

from toast_evacuator import journal, verdict, wire
from toast_evacuator.config import Config
from toast_evacuator.journal import Incident, Journal
from toast_evacuator.verdict import Verdict, View

log = logging.getLogger(__name__)


class Decider:
    """Judges views as they come. `rescue` begins with an incident, or goes on with it, without waiting for its end."""

    def __init__(self, config: Config, kept: Journal, rescue: Callable[[Incident], None]) -> None:
        self._config, self._journal, self._rescue = config, kept, rescue
        self._views: dict[str, View] = {}
        self._warned: set[str] = set()
        self.incidents = kept.load()
        self.verdicts: dict[str, Verdict] = {}
        for incident in self.incidents.values():
            if not incident.over and incident.host in config.computes:
                log.info("%s: goes on from: %s", incident.host, incident.state.replace("_", " "))
                rescue(incident)

    def take(self, message: dict[str, Any], now: float) -> None:
        """A view of a vantage point's."""
        if message["from"] in self._config.vantage_points:
            self._views[message["from"]] = View(now, message["view"])

    def decide(self, now: float, wall: float) -> None:
        """now is monotonic, wall the time since the epoch."""
        hosts, points = list(self._config.computes), list(self._config.vantage_points)
        self.verdicts = {host: verdict.judge(host, points, self._views, now, self._config.timing) for host in hosts}
        for host, found in self.verdicts.items():
            if not found.dead:
                self._warned.discard(host)
                continue
            if host in self.incidents and not self.incidents[host].over:
                continue
            if not verdict.survivors(hosts, self.verdicts):
                if host not in self._warned:
                    log.error("ALARM: %s: %s; but no compute is left that could take over: nothing is done", host, found.reason)
                    self._warned.add(host)
                continue
            log.warning("%s: %s", host, found.reason)
            incident = Incident(host, steps={"silent": wall - (found.silent or 0.0), journal.DETECTED: wall}, agreed=found.agree)
            self.incidents[host] = incident
            self._journal.save(incident)
            self._rescue(incident)

    def status(self, wall: float) -> dict[str, Any]:
        """What is seen and done now."""
        computes = {
            host: {
                "dead": found.dead,
                "alive": found.alive,
                "silent": found.silent,
                "reason": found.reason,
                "state": self.incidents[host].state if host in self.incidents else None,
                "alarm": self.incidents[host].alarm if host in self.incidents else None,
            }
            for host, found in self.verdicts.items()
        }
        missing = next(iter(self.verdicts.values())).missing if self.verdicts else []
        heard = {name: name not in missing for name in self._config.vantage_points}
        return {"at": wall, "quorum": verdict.quorum(len(heard)), "vantage_points": heard, "computes": computes}


def run(config: Config) -> None:
    """Does not return."""
    from toast_evacuator import fence, nova, rescue  # vantage points have no need of them, nor all nodes their libraries

    power = fence.Endpoint(config.fence["url"], config.fence["secret"])
    region = nova.API(config.cloud, config.forced_down)
    kept = Journal(config.state)

    def end(failure: threading.ExceptHookArgs) -> None:
        log.critical(
            "the rescue of %s broke off: it goes on from the journal", failure.thread and failure.thread.name, exc_info=failure.exc_value
        )
        os._exit(1)

    def begin(incident: Incident) -> None:
        def judged() -> Verdict:
            return decider.verdicts[incident.host]

        one = rescue.Rescue(incident, kept, power, region, judged, config.timing)
        rescues.append(threading.Thread(target=one.run, name=incident.host, daemon=True))

    threading.excepthook = end
    rescues: list[threading.Thread] = []
    decider = Decider(config, kept, begin)
    opener = wire.Opener(config.key)
    status = pathlib.Path(config.status)
    status.parent.mkdir(parents=True, exist_ok=True)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as inlet:
        inlet.bind((config.address, config.views_port))
        log.info("deciding on %s by %s", ", ".join(sorted(config.computes)), ", ".join(sorted(config.vantage_points)))
        following = time.monotonic()
        while True:
            if message := wire.receive(inlet, opener, following - time.monotonic()):
                decider.take(message, time.monotonic())
            now = time.monotonic()
            if now < following:
                continue
            following = now + config.timing.beat / 4
            decider.decide(now, time.time())
            while rescues:
                rescues.pop().start()
            journal.replace(status, json.dumps(decider.status(time.time())), sync=False)
