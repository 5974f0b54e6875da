"""checkpoints/round-N.safetensors: the state after round N, sealed, so that a half-written or changed file is noticed."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from hansa import tensors
from hansa.core.trees import Tree
from hansa.errors import CheckpointError, StorageError
from hansa.files import storage_error

_NAME = re.compile(r"round-(\d+)\.safetensors")


class Checkpoint(NamedTuple):
    """The newest checkpoint that is whole. `notes` says which newer ones were passed over, and why."""

    round: int
    tree: dict[str, Any]
    meta: dict[str, Any]
    notes: list[str]


def save(folder: Path, number: int, tree: Tree, meta: Mapping[str, Any], *, keep: int) -> None:
    """Write the state after a round; of this and earlier rounds the last `keep` stay.

    Raises:
        StorageError: the file cannot be written; the earlier checkpoints still stand.
    """
    fields = {"round": str(number), "meta": json.dumps(dict(meta), sort_keys=True)}
    tensors.save_tree(folder / f"round-{number}.safetensors", tree, fields)
    # A file of a later round is one that a resume passed over as corrupt: it will be written again, and must not count here.
    old = [n for n in rounds(folder) if n < number]
    for stale in old[: max(0, len(old) - max(keep, 1) + 1)]:
        path = folder / f"round-{stale}.safetensors"
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise storage_error(error, path) from error


def latest(folder: Path) -> Checkpoint | None:
    """The newest checkpoint that is whole; None if there is no checkpoint at all.

    Raises:
        CheckpointError: there are some, and every one is corrupt; says what is wrong with each.
    """
    notes: list[str] = []
    for number in reversed(rounds(folder)):
        path = folder / f"round-{number}.safetensors"
        try:
            tree, fields = tensors.load_tree(path, sealed=True)
            if fields.get("round") != str(number):
                raise CheckpointError("the file is of another round", got=fields.get("round"), expected=number)
            return Checkpoint(number, tree, json.loads(fields["meta"]), notes)
        except StorageError as error:
            notes.append(f"{path.name} was passed over: {error.message}")
    if notes:
        raise CheckpointError("no checkpoint can be read", path=str(folder), got="; ".join(notes), hint="run the job anew")
    return None


def rounds(folder: Path) -> list[int]:
    """The rounds of which there is a checkpoint file, ascending."""
    if not folder.is_dir():
        return []
    return sorted(int(match[1]) for path in folder.iterdir() if (match := _NAME.fullmatch(path.name)))
