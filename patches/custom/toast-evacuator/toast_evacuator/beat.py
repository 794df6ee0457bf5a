"""A compute's heartbeat: one datagram to each vantage point, each second."""

import logging
import socket
import time

from toast_evacuator import wire
from toast_evacuator.config import Config

log = logging.getLogger(__name__)


def run(config: Config) -> None:
    """Does not return."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as out:
        out.bind((config.address, 0))
        log.info("a heartbeat to %s", ", ".join(sorted(config.vantage_points)))
        failing: dict[str, str] = {}
        while True:
            datagram = wire.seal(config.key, config.node, time.time(), {})
            for name, address in config.vantage_points.items():
                try:
                    out.sendto(datagram, (address, config.beats_port))
                    failing.pop(name, None)
                except OSError as reason:  # no carrier, no route: said once
                    if failing.get(name) != str(reason):
                        log.warning("%s: %s", name, reason)
                        failing[name] = str(reason)
            time.sleep(config.timing.beat)
