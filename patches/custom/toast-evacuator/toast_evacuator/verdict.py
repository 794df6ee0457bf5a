"""Whether a compute is dead: by the views of several vantage points, never by one alone. Pure."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from toast_evacuator.config import Timing


@dataclasses.dataclass(frozen=True)
class View:
    """What a vantage point sees, and when the decider heard of it (monotonic seconds)."""

    received: float
    sights: Mapping[str, Mapping[str, Any]]  # by compute: silent, failures (see Watcher.view)


@dataclasses.dataclass(frozen=True)
class Verdict:
    """On one compute."""

    dead: bool
    alive: bool  # a heartbeat is heard by a quorum
    silent: float | None  # seconds, as the vantage point that heard it last says; None: nobody ever did
    agree: list[str]  # the vantage points to whom it is dead
    missing: list[str]  # the vantage points that the decider does not hear
    reason: str


def quorum(vantage_points: int) -> int:
    """More than half, and never one alone."""
    return max(2, vantage_points // 2 + 1)


def judge(host: str, vantage_points: list[str], views: Mapping[str, View], now: float, timing: Timing) -> Verdict:
    """A compute is dead when a quorum of all vantage points, those that are not heard included, neither hears it nor
    reaches it by the network. A decider that is cut off hears nobody, and so finds nobody dead."""
    need = quorum(len(vantage_points))
    fresh = {name: views[name] for name in vantage_points if name in views and now - views[name].received <= timing.stale}
    missing = [name for name in vantage_points if name not in fresh]
    silences = []
    dead, alive, reached = [], [], []
    for name, view in fresh.items():
        sight = view.sights.get(host)
        if sight is None or sight["silent"] is None:
            continue
        silent = sight["silent"] + now - view.received
        silences.append(silent)
        if silent < timing.suspect:
            alive.append(name)
        elif sight["silent"] >= timing.silence and sight["failures"] >= timing.checks:
            dead.append(name)
        elif sight["silent"] >= timing.silence and sight["failures"] == 0:
            reached.append(name)
    silence = min(silences, default=None)
    verdict = Verdict(dead=len(dead) >= need, alive=len(alive) >= need, silent=silence, agree=dead, missing=missing, reason="")
    if verdict.dead:
        reason = f"no heartbeat for {silence:.1f} s and no answer from the network, say {', '.join(dead)}"
    elif verdict.alive:
        reason = "its heartbeat is heard"
    elif len(fresh) < need:
        reason = f"{len(fresh)} of {len(vantage_points)} vantage points are heard, {need} must be: perhaps it is this node that is cut off"
    elif not silences:
        reason = "it was never heard"
    elif reached:
        reason = f"no heartbeat, but the network reaches it from {', '.join(reached)}"
    else:
        reason = f"dead to {len(dead)} of {len(vantage_points)} vantage points, {need} must agree"
    return dataclasses.replace(verdict, reason=reason)


def survivors(hosts: list[str], verdicts: Mapping[str, Verdict]) -> list[str]:
    """The computes that could take over."""
    return [host for host in hosts if verdicts[host].alive]
