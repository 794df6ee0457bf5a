"""What was done about a compute, on disk before the next step is taken: who starts anew goes on from there."""

import dataclasses
import json
import os
import pathlib
import threading

# An incident's states, each the step that is behind it.
DETECTED = "detected"
FENCED = "fenced"
FORCED_DOWN = "forced_down"
EVACUATED = "evacuated"
RECOVERED = "recovered"
WITHDRAWN = "withdrawn"  # it was back before anything had been done

OVER = {RECOVERED, WITHDRAWN}


@dataclasses.dataclass
class Instance:
    """One that was on the compute. Times are seconds since the epoch."""

    name: str
    status: str  # what it was: ACTIVE, SHUTOFF, ...
    requested: float | None = None  # its first evacuation
    active: float | None = None  # it is on another compute, in the status it had
    host: str | None = None  # which
    tries: int = 0
    error: str | None = None  # why it is given up

    @property
    def settled(self) -> bool:
        return self.active is not None or self.error is not None


@dataclasses.dataclass
class Incident:
    """Of one compute."""

    host: str
    state: str = DETECTED
    # When: silent (the last heartbeat), detected, fenced (the fence has answered), proved_dead (as the fence saw it),
    # forced_down, evacuated, back (it beats again), recovered or withdrawn.
    steps: dict[str, float] = dataclasses.field(default_factory=dict)
    agreed: list[str] = dataclasses.field(default_factory=list)  # the vantage points that found it dead
    instances: dict[str, Instance] = dataclasses.field(default_factory=dict)  # by id
    alarm: str | None = None  # what needs a person

    @property
    def over(self) -> bool:
        return self.state in OVER


class Journal:
    """A folder with a file for each compute's last incident."""

    def __init__(self, folder: str) -> None:
        self._folder = pathlib.Path(folder)
        self._folder.mkdir(parents=True, exist_ok=True)
        self._lock = threading.Lock()

    def save(self, incident: Incident) -> None:
        """Whole or not at all, and on the disk when it returns."""
        with self._lock:
            replace(self._folder / f"{incident.host}.json", json.dumps(dataclasses.asdict(incident), indent=2))

    def load(self) -> dict[str, Incident]:
        """The last incident of each compute."""
        incidents = {}
        for file in sorted(self._folder.glob("*.json")):
            fields = json.loads(file.read_text())
            instances = {id: Instance(**instance) for id, instance in fields.pop("instances").items()}
            incidents[fields["host"]] = Incident(instances=instances, **fields)
        return incidents


def replace(file: pathlib.Path, text: str, *, sync: bool = True) -> None:
    """Writes a file in place of the one that is there."""
    new = file.with_suffix(".new")
    with open(new, "w", encoding="utf-8") as out:
        out.write(text + "\n")
        if sync:
            out.flush()
            os.fsync(out.fileno())
    new.replace(file)
