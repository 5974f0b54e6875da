"""The run folder: one directory with all that a run leaves behind, each file whole or not there."""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import msgspec

from hansa import codec, tensors
from hansa.core.task import Shareable
from hansa.core.trees import Tree
from hansa.errors import InputError, MissingExtraError, SpecError, StorageError
from hansa.files import storage_error, write_atomic
from hansa.record import checkpoints, info
from hansa.record.checkpoints import Checkpoint
from hansa.record.info import RunInfo, State
from hansa.record.lock import is_free
from hansa.registry import nearest

_UPDATE = re.compile(r"(?P<task>.+)-(?P<slot>\d+)\.safetensors")


class RunFolder:
    """A run's directory. Every failure of the disk is a StorageError that names the file; what stood before still stands.

    `keep` is how many checkpoints stay.
    """

    def __init__(self, path: Path, *, keep: int = 3) -> None:
        self.path, self.keep = path, keep

    @staticmethod
    def create(out: Path | None, job: str, *, root: Path = Path("runs"), keep: int = 3) -> RunFolder:
        """A new, empty run folder: `out` itself, or `<root>/<UTC time>-<job>-<4 hex>`.

        Raises:
            InputError: `out` is a file, or a folder that is not empty. StorageError: the folder cannot be made.
        """
        name = f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{re.sub(r'[^A-Za-z0-9._-]+', '-', job) or 'job'}-{secrets.token_hex(2)}"
        path = root / name if out is None else Path(out)
        try:
            if path.exists() and (not path.is_dir() or any(path.iterdir())):
                raise InputError(
                    "the run folder is not empty", path=str(path), hint="give another --out, or `hansa run --resume` it"
                )
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise storage_error(error, path) from error
        return RunFolder(path, keep=keep)

    @staticmethod
    def open(path: str | Path, *, keep: int = 3) -> RunFolder:
        """The run folder at `path`; nothing in it is changed.

        Raises:
            InputError: it is not a run folder. VersionError: a newer Hansa wrote it.
        """
        folder = RunFolder(Path(path), keep=keep)
        info.read(folder.path / "run.json")
        return folder

    @staticmethod
    def find(run: str, *, root: Path = Path("runs")) -> RunFolder:
        """The run folder at that path, or the one of that name, or the only one whose name begins so, below `root`.

        Raises:
            InputError: there is none (the nearest name is the hint), or several.
        """
        if (Path(run) / "run.json").exists():
            return RunFolder.open(run)
        known = sorted(path.name for path in (root.iterdir() if root.is_dir() else ()) if (path / "run.json").exists())
        matches = [name for name in known if name == run] or [name for name in known if name.startswith(run)]
        if len(matches) > 1:
            raise InputError("several runs begin like that", path=run, got=", ".join(matches[:5]))
        if not matches:
            raise InputError("no such run", path=run, hint=nearest(run, known) if known else f"there are none below {root}")
        return RunFolder.open(root / matches[0])

    @property
    def id(self) -> str:
        """The folder's own name."""
        return self.path.resolve().name

    @property
    def info(self) -> RunInfo:
        """What run.json says now."""
        return info.read(self.path / "run.json")

    @property
    def state(self) -> State | Literal["interrupted"]:
        """The run's state; `interrupted` where run.json says `running` and the process that wrote it is gone."""
        told = self.info.state
        return "interrupted" if told == "running" and is_free(self.path) else told

    def write_info(self, content: RunInfo) -> None:
        """Write run.json, atomically."""
        write_atomic(self.path / "run.json", [info.encode(content)])

    def append_round(self, record: Mapping[str, Any]) -> None:
        """Add a line to metrics.jsonl. JSON has no nan and no inf: both are written as null, which reads back as nan.

        Raises:
            StorageError: the line cannot be written; the lines before it still stand.
        """
        _append(self.path / "metrics.jsonl", msgspec.json.encode(record) + b"\n")

    def append_live(self, lines: Sequence[Mapping[str, Any]]) -> None:
        """Add to live.jsonl what sites' code told of its work while it went on.

        Raises:
            StorageError: the lines cannot be written; those before still stand.
        """
        _append(self.path / "live.jsonl", b"".join(msgspec.json.encode(line) + b"\n" for line in lines))

    def rounds(self) -> list[dict[str, Any]]:
        """The records of metrics.jsonl; a last line that a crash tore off is left out, a null metric is nan.

        Raises:
            StorageError: another line is not JSON; names it.
        """
        return [_read_back(msgspec.json.decode(line)) for line in self._lines()]

    def resume_from(self, number: int) -> None:
        """Make ready to run on after round `number`: later lines of metrics.jsonl and live.jsonl, and torn ones, are dropped."""
        for name in ("metrics.jsonl", *(["live.jsonl"] if (self.path / "live.jsonl").exists() else [])):
            kept = [line for line in self._lines(name) if msgspec.json.decode(line).get("round", 0) <= number]
            write_atomic(self.path / name, [line + b"\n" for line in kept])

    def _lines(self, name: str = "metrics.jsonl") -> list[bytes]:
        path = self.path / name
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            return []
        except OSError as error:
            raise storage_error(error, path) from error
        lines = data.split(b"\n")[:-1]  # what follows the last newline is nothing, or a torn line
        for number, line in enumerate(lines, start=1):
            try:
                msgspec.json.decode(line, type=dict[str, Any])
            except (msgspec.MsgspecError, UnicodeDecodeError) as error:
                raise StorageError(f"a line is not a record: {error}", path=f"{path}:{number}") from error
        return lines

    def save_checkpoint(self, number: int, tree: Tree, meta: Mapping[str, Any]) -> None:
        """Write the state after round `number`; `meta` is what JSON holds. The last `keep` checkpoints stay."""
        checkpoints.save(self.path / "checkpoints", number, tree, meta, keep=self.keep)

    def latest_checkpoint(self) -> Checkpoint | None:
        """The newest checkpoint that is whole; None if there is none yet.

        Raises:
            CheckpointError: there are some, and every one is corrupt.
        """
        return checkpoints.latest(self.path / "checkpoints")

    def save_model(self, tree: Tree) -> None:
        """Write the final global model."""
        tensors.save_tree(self.path / "model.safetensors", tree)

    def save_best(self, tree: Tree) -> None:
        """Write the best global model so far."""
        tensors.save_tree(self.path / "best.safetensors", tree)

    def load_model(self, *, best: bool = False) -> dict[str, Any]:
        """The final model, or the best one.

        Raises:
            InputError: the run has none yet.
        """
        path = self.path / ("best.safetensors" if best else "model.safetensors")
        if not path.exists():
            raise InputError("the run has no such model", path=str(path), hint="it has not finished" if not best else None)
        return tensors.load_tree(path)[0]

    def save_update(self, number: int, task: str, slot: int, update: Shareable) -> None:
        """Keep what a site sent, as it came, for `hansa runs verify`."""
        path = self.path / "updates" / f"round-{number}" / f"{task}-{slot}.safetensors"
        write_atomic(path, codec.encode_parts(update))

    def load_updates(self, number: int, task: str) -> dict[int, Shareable]:
        """The kept updates of one round and task, by slot, in slot order; empty if none were kept.

        Raises:
            StorageError: one cannot be read, or is not what was written; names the file.
        """
        folder, found = self.path / "updates" / f"round-{number}", {}
        for path in folder.iterdir() if folder.is_dir() else ():
            match = _UPDATE.fullmatch(path.name)
            if match and match["task"] == task:
                try:
                    found[int(match["slot"])] = codec.decode(path.read_bytes())
                except OSError as error:
                    raise storage_error(error, path) from error
                except SpecError as error:
                    raise StorageError(f"a kept update is damaged: {error.message}", path=str(path)) from error
        return dict(sorted(found.items()))

    def save_digest(self, number: int, digest: str) -> None:
        """Keep the SHA-256 of the server's state after a round, beside the updates that made it."""
        write_atomic(self.path / "updates" / f"round-{number}" / "state.sha256", [digest.encode()])

    def digests(self) -> dict[int, str]:
        """The kept digests by round, in order; empty if none were kept."""
        found = (self.path / "updates").glob("round-*/state.sha256")
        return dict(sorted((int(path.parent.name.removeprefix("round-")), path.read_text()) for path in found))

    def finish(
        self, state: State, *, summary: Mapping[str, Any] | None = None, error: str | None = None, now: datetime | None = None
    ) -> list[str]:
        """Write run.json with the final state, report.html and curves.png; the notes say what could not be drawn.

        A paused run goes on, and who pressed Ctrl-C waits: it gets no curves.png, which takes seconds.
        run.json comes first: whatever happens to the pictures, the run's end is on record.
        """
        from hansa.record import plot, report, results
        from hansa.record.series import curves

        content = msgspec.structs.replace(
            self.info,
            state=state,
            summary=dict(summary) if summary is not None else self.info.summary,
            error=error,
            finished=(now or datetime.now(UTC)).isoformat(timespec="milliseconds"),
        )
        self.write_info(content)
        records, found = self.rounds(), results.load(self.path)
        write_atomic(self.path / "report.html", [report.render(content, records, *found).encode()])
        if state == "paused" or (any(found) and not curves(records)):
            return []
        try:
            write_atomic(self.path / "curves.png", [plot.render([(content.job, records)])])
        except MissingExtraError as missing:
            return [f"no curves.png: {missing}"]
        return []


def _append(path: Path, lines: bytes) -> None:
    """Add whole lines to a file, or none of them."""
    try:
        with path.open("ab", buffering=0) as file:
            before = file.tell()
            if file.write(lines) != len(lines):  # a nearly full disk takes a part
                os.ftruncate(file.fileno(), before)
                raise StorageError("the disk is full", path=str(path), expected=f"room for {len(lines):,} bytes")
    except OSError as error:
        raise storage_error(error, path, size=len(lines)) from error


def _read_back(record: dict[str, Any]) -> dict[str, Any]:
    """A record with nan for each null metric."""
    shared = {name: value if value is not None else float("nan") for name, value in record.get("global", {}).items()}
    sites = {
        site: {name: value if value is not None else float("nan") for name, value in metrics.items()}
        for site, metrics in record.get("sites", {}).items()
    }
    return {**record, **({"global": shared} if "global" in record else {}), **({"sites": sites} if "sites" in record else {})}


def load_model(path: str | Path, *, best: bool = False) -> dict[str, Any]:
    """The model of a run folder, or of one safetensors file, as a tree of arrays.

    Raises:
        InputError: there is no such model. StorageError: the file cannot be read.
    """
    place = Path(path)
    return tensors.load_tree(place)[0] if place.is_file() else RunFolder.open(place).load_model(best=best)
