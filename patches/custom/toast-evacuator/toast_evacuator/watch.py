"""A vantage point: what it hears of the computes, and whether the network reaches those it does not hear."""

import concurrent.futures
import logging
import socket
import subprocess
import time
from typing import Any

from toast_evacuator import wire
from toast_evacuator.config import Config, Timing

log = logging.getLogger(__name__)

CHECK = 0.8  # seconds a network check may take
PING = ["ping", "-n", "-q", "-c", "1", "-W", str(CHECK)]


class Watcher:
    """What was heard and found, with time as a number that only grows. No effects."""

    def __init__(self, computes: list[str], timing: Timing) -> None:
        self._timing = timing
        self._heard: dict[str, float] = {}
        self._failures = {host: 0 for host in computes}

    def heard(self, host: str, now: float) -> None:
        """A heartbeat."""
        if host in self._failures:
            self._heard[host] = now
            self._failures[host] = 0

    def suspects(self, now: float) -> list[str]:
        """Whom the network is to be asked about. One that never beat is none: it may never have been there."""
        return [host for host, at in self._heard.items() if now - at >= self._timing.suspect]

    def checked(self, host: str, answered: bool) -> None:
        """The network's answer."""
        self._failures[host] = 0 if answered else self._failures[host] + 1

    def view(self, now: float) -> dict[str, dict[str, Any]]:
        """By compute: seconds of silence (None: never heard), and failed checks in a row."""
        return {
            host: {"silent": round(now - self._heard[host], 3) if host in self._heard else None, "failures": failures}
            for host, failures in self._failures.items()
        }


def answers(address: str, port: int) -> bool:
    """Whether the network reaches a node at all, by ICMP or TCP. Its kernel answers, also when no process does."""
    with subprocess.Popen([*PING, address], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as ping:
        try:
            socket.create_connection((address, port), CHECK).close()
            by_tcp = True
        except ConnectionRefusedError:
            by_tcp = True
        except OSError:
            by_tcp = False
        return ping.wait() == 0 or by_tcp


def run(config: Config) -> None:
    """Does not return."""
    watcher = Watcher(list(config.computes), config.timing)
    opener = wire.Opener(config.key)
    checks: dict[str, concurrent.futures.Future[bool]] = {}
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as inlet,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as outlet,
        concurrent.futures.ThreadPoolExecutor(max_workers=8) as pool,
    ):
        inlet.bind((config.address, config.beats_port))
        outlet.bind((config.address, 0))
        log.info("watching %s, for %s", ", ".join(sorted(config.computes)), config.decider)
        following = time.monotonic()
        while True:
            if message := wire.receive(inlet, opener, following - time.monotonic()):
                watcher.heard(message["from"], time.monotonic())
            for host, check in list(checks.items()):
                if check.done():
                    watcher.checked(host, checks.pop(host).result())
            now = time.monotonic()
            if now < following:
                continue
            following = now + config.timing.beat / 4
            for host in watcher.suspects(now):
                if host not in checks:
                    checks[host] = pool.submit(answers, config.computes[host], config.check_port)
            view = wire.seal(config.key, config.node, time.time(), {"view": watcher.view(now)})
            try:
                outlet.sendto(view, (config.vantage_points[config.decider], config.views_port))
            except OSError as reason:
                log.warning("%s: %s", config.decider, reason)
