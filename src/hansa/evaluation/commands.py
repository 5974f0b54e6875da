"""`hansa predict`: a run's model on new rows."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from hansa.core.protocols import Learner
    from hansa.core.trees import Array
    from hansa.record.info import RunInfo

_SHOWN = 5  # rows in the printed table; the file has them all


def predict(
    run: Annotated[str, typer.Argument(help="A run's folder, or its name below --root.")],
    *,
    data: Annotated[Path, typer.Option("--data", help="The rows: .npz with an array x, or .csv with a header.")],
    drop: Annotated[list[str] | None, typer.Option("--drop", help="A column of the CSV that is no feature; repeatable.")] = None,
    best: Annotated[bool, typer.Option("--best", help="The best model instead of the final one.")] = False,
    out: Annotated[Path, typer.Option("--out", help="The CSV to write.")] = Path("predictions.csv"),
    root: Annotated[Path, typer.Option("--root", help="The folder that holds the runs.")] = Path("runs"),
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
) -> None:
    """Write a run's predictions for new rows: class probabilities, the probability of class 1, or values of a regression.

    Example: hansa predict runs/20250304T100000Z-heart-3f2a --data patients.csv --drop label --out predictions.csv
    """
    import numpy as np

    from hansa.cli import quiet
    from hansa.files import write_atomic
    from hansa.record.folder import RunFolder

    folder = RunFolder.find(run, root=root)
    info, model = folder.info, folder.load_model(best=best)
    x = _rows(data, drop=drop or [], features=info.settings.get("features", []))
    with quiet(as_json):
        scores = np.asarray(_score(_learner(info), model, x, data))
    head, table = _columns(scores)
    lines = [",".join(["row", *head]), *(",".join([str(n), *map(repr, row)]) for n, row in enumerate(table))]
    write_atomic(out, [("\n".join(lines) + "\n").encode()])
    if as_json:
        import msgspec

        content = {"run": str(folder.path), "model": "best" if best else "final", "rows": len(x), "columns": head, "out": str(out)}
        typer.echo(msgspec.json.encode({**content, "first": table[:_SHOWN]}).decode())
        return
    width = max(map(len, head), default=0) + 2
    typer.echo("row".ljust(6) + "".join(name.rjust(width) for name in head))
    for n, row in enumerate(table[:_SHOWN]):
        typer.echo(str(n).ljust(6) + "".join(f"{value:.4g}".rjust(width) for value in row))
    typer.echo(f"{len(table):,} rows, written to {out}")


def _learner(info: RunInfo) -> Learner:
    """The learner of the run's job, loaded as the run says.

    Raises:
        InputError: the run does not say how, or the job trains no single model.
    """
    from typing import cast

    from hansa.config.loading import load_job
    from hansa.errors import InputError

    reference = info.reference
    if reference is None:
        hint = "load model.safetensors with hansa.tensors.load_tree and call your learner's predict"
        raise InputError("the run does not say how its job is loaded: it was started from Python", run=info.id, hint=hint)
    shape = info.settings.get("shape")
    job = load_job(reference.path, overrides=reference.overrides, data=reference.folder, shape=shape)
    learner = getattr(job.workflow, "learner", None)
    if not hasattr(learner, "predict"):  # a script's predictions are its own affair
        raise InputError("the run's job has no learner to predict with", run=info.id, path=reference.path)
    return cast("Learner", learner)


def _rows(path: Path, *, drop: list[str], features: list[str]) -> Array:
    """x of an npz file; the columns of a CSV file, but the dropped ones, as float32 with nan for an empty cell.

    Where the run knows the names of its features, the columns are put in their order, whatever the file's is.

    Raises:
        DataError: the file is missing, of another kind, without rows, or not what it should be.
    """
    from hansa.data.formats import read_npz
    from hansa.errors import DataError

    if not path.is_file():
        raise DataError("there is no such file", path=str(path))
    if path.suffix == ".npz":
        if drop:
            raise DataError("only columns of a CSV file can be dropped", path=str(path), got=", ".join(drop))
        x = read_npz(path, "x")[0]
    elif path.suffix == ".csv":
        x = _csv(path, drop, features)
    else:
        raise DataError("rows are read from .npz or .csv", path=str(path), got=path.suffix or "no extension")
    if not x.ndim or not len(x):
        raise DataError("there are no rows to predict", path=str(path))
    return x


def _csv(path: Path, drop: list[str], features: list[str]) -> Array:
    import csv
    import io

    import numpy as np

    from hansa.errors import DataError
    from hansa.registry import nearest

    try:
        lines = [line for line in csv.reader(io.StringIO(path.read_text(encoding="utf-8-sig"), newline=""), strict=True) if line]
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"the file cannot be read as CSV in UTF-8: {error}", path=str(path)) from error
    header = [name.strip() for name in lines[0]] if lines else []
    for name in drop:
        if name not in header:
            raise DataError("no such column", path=str(path), got=name, hint=nearest(name, header))
    kept = _in_order([name for name in header if name not in drop], features, path)
    places = [header.index(name) for name in kept] if features else [k for k, name in enumerate(header) if name not in drop]
    x = np.empty((max(0, len(lines) - 1), len(places)), np.float32)
    for n, line in enumerate(lines[1:]):
        if len(line) != len(header):
            raise DataError("a line does not fit the header", path=f"{path}: row {n}", expected=len(header), got=len(line))
        for column, k in enumerate(places):
            x[n, column] = _cell(line[k].strip(), f"{path}: row {n}, {header[k]}")
    return x


def _in_order(names: list[str], features: list[str], path: Path) -> list[str]:
    """The columns in the order in which the model takes them.

    Raises:
        DataError: one is missing, unknown, or there twice; names it.
    """
    from hansa.errors import DataError
    from hansa.registry import nearest

    if not features:
        return names
    if missing := [name for name in features if name not in names]:
        near = nearest(missing[0], names) if names else None
        raise DataError("the file lacks columns that the model was trained on", path=str(path), got=", ".join(missing), hint=near)
    if unknown := [name for name in dict.fromkeys(names) if name not in features]:
        hint = "leave it out with --drop " + " --drop ".join(unknown)
        raise DataError("the model was not trained on these columns", path=str(path), got=", ".join(unknown), hint=hint)
    if len(names) > len(features):
        twice = next(name for name in names if names.count(name) > 1)
        raise DataError("a column is there twice", path=str(path), got=twice)
    return features


def _cell(text: str, path: str) -> float:
    from hansa.errors import DataError

    if text.lower() in {"", "na", "nan", "null", "none", "?"}:
        return float("nan")
    try:
        return float(text)
    except ValueError:
        hint = "a label or another column that is no feature is left out with --drop"
        raise DataError("not a number", path=path, got=repr(text), hint=hint) from None


def _score(learner: Learner, model: dict[str, Any], x: Array, data: Path) -> Array:
    """The learner's predictions.

    Raises:
        DataError: the rows do not fit the model.
    """
    from hansa.errors import DataError

    try:
        return learner.predict(model, x)
    except (ValueError, TypeError, RuntimeError) as error:  # what numpy and torch raise for shapes that do not fit
        raise DataError(f"the model cannot take these rows: {error}", path=str(data), got=f"{x.dtype}{list(x.shape)}") from error


def _columns(scores: Array) -> tuple[list[str], list[list[float]]]:
    """Names and values of the columns: one for each score, and the class where the scores are probabilities of classes."""
    import numpy as np

    if scores.ndim == 1:
        return ["score"], [[float(value)] for value in scores]
    flat = scores.reshape(len(scores), -1)
    head = [f"score_{k}" for k in range(flat.shape[1])]
    if scores.ndim == 2 and np.allclose(flat.sum(axis=1), 1, atol=1e-3) and (flat >= 0).all():
        return ["class", *head], [[int(np.argmax(row)), *map(float, row)] for row in flat]
    return head, [list(map(float, row)) for row in flat]
