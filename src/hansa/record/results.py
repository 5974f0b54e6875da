"""What a workflow gave, in the run folder: models, a matrix of models and sites, or whatever else JSON can say."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np

from hansa.core.workflow import Outcome
from hansa.errors import MissingExtraError, SpecError, StorageError
from hansa.files import storage_error, write_atomic
from hansa.record import matrix as matrices
from hansa.record.folder import RunFolder
from hansa.record.series import number

RESULT, MATRIX, HEAT_MAP = "result.json", "matrix.json", "matrix.png"
MOST: Final = 1_000_000  # numbers of one array in result.json
CROSS_SITE: Final = "cross_site"  # the `kind` of a matrix


def planned(workflow: object, sites: int) -> int:
    """How many rounds a workflow says that it will report, with so many sites; 0 where it does not say."""
    told: Any = getattr(workflow, "rounds", 0)
    return int(told(sites)) if callable(told) else int(told)


def outcome_of(value: object) -> Outcome | None:
    """The result of the last training in a workflow's result; None where nothing was trained."""
    trained = [each for each in (value if isinstance(value, tuple) else (value,)) if isinstance(each, Outcome)]
    return trained[-1] if trained else None


def save(folder: RunFolder, value: object) -> list[str]:
    """Write what a workflow gave; the notes say what of it could not be written.

    The models of the last training as model.safetensors and best.safetensors, a cross-site matrix as matrix.json with its heat map,
    everything else as result.json. A sequence's results are a tuple, each for itself.
    """
    steps = list(value) if isinstance(value, tuple) and not hasattr(value, "_fields") else [value]
    trained = outcome_of(tuple(steps))
    if trained is not None:
        folder.save_model(trained.model)
        folder.save_best(trained.best)
    notes: list[str] = []
    others: list[Any] = []
    for each in steps:
        if each is None or isinstance(each, Outcome):
            continue
        try:
            others.append(plain(each))
        except SpecError as error:
            notes.append(f"no {RESULT}: {error}")
    for content in [each for each in others if _is_matrix(each)][-1:]:
        _write(folder.path / MATRIX, content)
        notes += _draw(folder.path / HEAT_MAP, content)
    rest = [each for each in others if not _is_matrix(each)]
    if rest:
        _write(folder.path / RESULT, rest[0] if len(rest) == 1 else rest)
    return notes


def load(folder: Path) -> tuple[Any, Any]:
    """The content of matrix.json and of result.json; None for a file that is not there.

    Raises:
        StorageError: one cannot be read.
    """
    return _read(folder / MATRIX), _read(folder / RESULT)


def plain(value: object, *, path: str = "") -> Any:
    """A result as JSON has it: records by field, arrays as lists, what is no number as null.

    >>> plain({"mean": np.array([1.5, np.nan]), "rows": np.int64(3)})
    {'mean': [1.5, None], 'rows': 3}

    Raises:
        SpecError: something in it is neither a number, nor text, nor a container of them; names its path.
    """
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return value if np.isfinite(value) else None
    if isinstance(value, np.ndarray | np.generic) and value.dtype.kind in "biufU" and value.size <= MOST:
        return plain(value.tolist(), path=path)
    if isinstance(value, Mapping):
        return {str(key): plain(item, path=f"{path}/{key}") for key, item in value.items()}
    fields = getattr(value, "_fields", None) or (
        [each.name for each in dataclasses.fields(value)]
        if dataclasses.is_dataclass(value) and not isinstance(value, type)
        else None
    )
    if fields is not None:
        return {name: plain(getattr(value, name), path=f"{path}/{name}") for name in fields}
    if isinstance(value, list | tuple):
        return [plain(item, path=f"{path}/{place}") for place, item in enumerate(value)]
    raise SpecError("the result is not for JSON", path=path.strip("/") or None, got=type(value).__name__)


def tables(matrix: Any, result: Any) -> list[matrices.Table]:
    """Title, head and rows of each table that shows a matrix and a result to people."""
    found = [] if matrix is None else matrices.tables(matrix)
    for place, each in enumerate(result if isinstance(result, list) else [] if result is None else [result]):
        found += _facts("result" if not isinstance(result, list) else f"result {place + 1}", each)
    return found


def aligned(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in aligned columns, plain text: the same on a terminal, in a pipe and in a log."""
    full = [head, *rows]
    widths = [max(len(row[k]) if k < len(row) else 0 for row in full) for k in range(len(head))]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=False)) for row in full)
    return "\n".join(line.rstrip() for line in lines)


def numbers(matrix: Any, result: Any) -> dict[str, float]:
    """The single numbers of a run's results by name: what runs can be compared by."""
    found: dict[str, float] = {}
    for model, metrics in (matrix or {}).get("pooled", {}).items():
        found |= {f"{model} {name}": float("nan") if value is None else float(value) for name, value in metrics.items()}
    for each in result if isinstance(result, list) else [result]:
        if isinstance(each, Mapping):
            found |= {name: float(value) for name, value in each.items() if isinstance(value, int | float)}
    return found


def _facts(title: str, content: Any) -> list[matrices.Table]:
    """A mapping as tables: one of its plain values, and one of each mapping of records in it."""
    if not isinstance(content, Mapping):
        return [(title, ["value"], [[_short(content)]])]
    found = []
    title = str(content.get("kind", title))
    plain_values = [
        [str(name), _short(value)] for name, value in content.items() if not isinstance(value, Mapping) and name != "kind"
    ]
    if plain_values:
        found.append((title, ["", "value"], plain_values))
    for name, inner in content.items():
        if isinstance(inner, Mapping) and inner and all(isinstance(each, Mapping) for each in inner.values()):
            heads = list(dict.fromkeys(key for each in inner.values() for key in each))
            rows = [[str(key), *(_short(each.get(head)) for head in heads)] for key, each in inner.items()]
            found.append((str(name), ["", *heads], rows))
        elif isinstance(inner, Mapping) and inner:
            found.append((str(name), ["", "value"], [[str(key), _short(each)] for key, each in inner.items()]))
    return found


def _short(value: Any) -> str:
    if value is None:
        return "–"  # noqa: RUF001
    if isinstance(value, list | Mapping):
        text = msgspec.json.encode(value).decode()
        return text if len(text) <= 80 else f"{text[:77]}..."
    return number(value)


def _is_matrix(content: Any) -> bool:
    return isinstance(content, Mapping) and content.get("kind") == CROSS_SITE


def _draw(path: Path, content: Any) -> list[str]:
    try:
        write_atomic(path, [matrices.heat_map(content)])
    except MissingExtraError as missing:
        return [f"no {path.name}: {missing}"]
    return []


def _write(path: Path, content: Any) -> None:
    write_atomic(path, [msgspec.json.format(msgspec.json.encode(content), indent=2), b"\n"])


def _read(path: Path) -> Any:
    try:
        return msgspec.json.decode(path.read_bytes()) if path.exists() else None
    except OSError as error:
        raise storage_error(error, path) from error
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise StorageError(f"not JSON: {error}", path=str(path)) from error
