"""Recompute the server's side of a run from the updates that were kept, and compare hashes."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from hansa import codec
from hansa.core.job import Job
from hansa.core.task import Failure, Shareable, Task
from hansa.core.trees import Tree
from hansa.errors import InputError
from hansa.record.folder import RunFolder
from hansa.record.results import outcome_of
from hansa.simulation.engine import Settings, threads
from hansa.simulation.faults import Faults
from hansa.simulation.federation import SimulatedFederation
from hansa.simulation.sites import Answer, Call

FINAL = "model.safetensors"


@dataclass(frozen=True)
class Report:
    """`rounds`: each round with the recorded and the recomputed SHA-256 of the server's state; last, the final model's file."""

    rounds: Sequence[tuple[int | str, str, str]]

    @property
    def ok(self) -> bool:
        """Whether all are the same."""
        return all(expected == got for _, expected, got in self.rounds)


class _Kept:
    """A crew that answers from the kept updates; a site that has none gave no usable reply."""

    def __init__(self, folder: RunFolder) -> None:
        self._folder = folder
        self._updates: Mapping[int, Shareable] = {}

    def begin(self, task: Task, calls: Sequence[Call], kept: Mapping[int, Mapping[str, Tree]]) -> None:  # noqa: ARG002  a crew's signature
        self._updates = self._folder.load_updates(task.round, task.name)

    def answer(self, call: Call) -> Answer:
        update = self._updates.get(call.slot)
        return Answer(Shareable(), Failure("lost", "no update was kept")) if update is None else Answer(update)

    def close(self) -> None:
        """Nothing is held."""


def verify(folder: RunFolder, job: Job, sites: Sequence[str]) -> Report:
    """Run the job's server side again on the updates in the run folder. `sites` are the job's, by slot.

    Raises:
        InputError: no updates were kept.
    """
    expected = folder.digests()
    if not expected:
        raise InputError("the run kept no updates", run=folder.id, hint="run it with --keep-updates")
    info = folder.info
    got: dict[int, str] = {}

    def compare(number: int, tree: Tree, notes: Mapping[str, Any]) -> None:  # noqa: ARG001  a checkpoint's signature
        if "state" in tree:  # what trains says; other workflows keep results, which are not summed
            got[number] = codec.digest(cast(Tree, tree["state"]))

    at_once = Faults(duration_s=1e-9)  # who was late has left no update: no deadline is to cut off the others
    federation = SimulatedFederation(sites, info.seed, _Kept(folder), at_once, on_checkpoint=compare)
    with threads(Settings(deterministic=info.deterministic)):
        outcome = job.workflow(federation)
    rows: list[tuple[int | str, str, str]] = [(number, sha, got.get(number, "")) for number, sha in expected.items()]
    model = folder.path / FINAL
    trained = outcome_of(outcome)
    if trained is not None and model.exists():
        rows.append((FINAL, hashlib.sha256(model.read_bytes()).hexdigest(), codec.digest(trained.model)))
    return Report(rows)
