"""`hansa run` and `hansa demo`."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from hansa.config.loading import Loaded
    from hansa.simulation.engine import Result, Settings
    from hansa.simulation.evaluate import Compared


class Engine(StrEnum):
    """How sites are simulated."""

    loop = "loop"
    pool = "pool"
    vectorised = "vectorised"


def run(
    job: Annotated[str | None, typer.Argument(help="job.toml, file.py:name or package.module:name.")] = None,
    *,
    engine: Annotated[Engine | None, typer.Option("--engine", help="loop (default), pool or vectorised.")] = None,
    workers: Annotated[
        int | None, typer.Option("--workers", min=1, help="Worker processes; more than one means --engine pool.")
    ] = None,
    seed: Annotated[int | None, typer.Option("--seed", help="The seed of every random stream.")] = None,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", help="A key of the job, as algorithm.rounds=5; repeatable.")
    ] = None,
    init: Annotated[Path | None, typer.Option("--init", help="Start from the model in this safetensors file.")] = None,
    out: Annotated[Path | None, typer.Option("--out", help="The run folder to write; must be empty or new.")] = None,
    data: Annotated[
        str | None, typer.Option("--data", help="Folder of larger data sets (else HANSA_DATA), or file.py:name.")
    ] = None,
    resume: Annotated[Path | None, typer.Option("--resume", help="Go on with this run folder instead of starting a job.")] = None,
    keep_updates: Annotated[bool, typer.Option("--keep-updates", help="Store what sites send, for `hansa runs verify`.")] = False,
    baselines: Annotated[
        bool, typer.Option("--baselines", help="Also train each site alone and all rows pooled; compare.")
    ] = False,
    dropout: Annotated[
        float | None, typer.Option("--dropout", min=0, max=1, help="Probability that a simulated site drops out.")
    ] = None,
    flare: Annotated[Path | None, typer.Option("--flare", help="An app folder of NVIDIA FLARE 2.0, in place of a job.")] = None,
    sites: Annotated[int | None, typer.Option("--sites", min=1, help="How many sites the FLARE app is given (2).")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout, all else on stderr.")] = False,
) -> None:
    """Run a job on simulated sites and write a run folder.

    Example: hansa run job.toml --set algorithm.rounds=5 --workers 2 --out runs/first
    """
    from hansa.cli import quiet
    from hansa.errors import InputError

    if flare is not None:
        given: dict[str, object] = {"set": overrides, "init": init, "data": data, "engine": engine, "workers": workers}
        given |= {"keep-updates": keep_updates or None, "baselines": baselines or None}
        _refuse(
            {"JOB": job, "resume": resume, **given},
            why="an app of FLARE says itself what it does and where its data are",
            by="flare",
        )
        with quiet(as_json):
            result = _flare(flare, sites or 2, seed=seed, out=out, dropout=dropout or 0.0)
        _tell(result, None, as_json=as_json)
        return
    if sites is not None:
        raise InputError("--sites is of a FLARE app", hint="a job's own sites stand in its data: see [partition] in job.toml")
    if (job is None) == (resume is None):
        raise InputError("name a job, or a run to resume", hint="hansa run job.toml, or hansa run --resume runs/NAME")
    chosen = None if engine is None else engine.value
    with quiet(as_json):
        if resume is not None:
            given = {"seed": seed, "set": overrides, "init": init, "out": out, "data": data, "dropout": dropout}
            _refuse({**given, "keep-updates": keep_updates or None, "baselines": baselines or None})
            result, compared = _resume(resume, chosen, workers), None
        else:
            loaded = _load(str(job), overrides or [], data, init)
            how = _settings(chosen, workers, keep_updates=keep_updates)
            result, compared = _start(loaded, how, seed=seed, init=init, out=out, dropout=dropout or 0.0, baselines=baselines)
    _tell(result, compared, as_json=as_json)


def demo(
    *,
    out: Annotated[Path | None, typer.Option("--out", help="The run folder to write; must be empty or new.")] = None,
    rounds: Annotated[int, typer.Option("--rounds", min=1, help="Rounds of federated averaging.")] = 30,
    seed: Annotated[int, typer.Option("--seed", help="The seed of splits and training.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout, all else on stderr.")] = False,
) -> None:
    """Four hospitals train together on the UCI Heart Disease data, and compare with training alone and with pooling.

    Example: hansa demo --out runs/hearts
    """
    from hansa.cli import quiet
    from hansa.simulation.demo import SPLITS, hospitals
    from hansa.simulation.engine import print_note

    print_note("UCI Heart Disease, four hospitals (Janosi, Steinbrunn, Pfisterer, Detrano 1989; CC BY 4.0).")
    print_note("Missing values are imputed and features scaled by a federated statistics round; no rows leave a hospital.\n")
    with quiet(as_json):
        shown = hospitals(_new_folder(out, "hearts"), rounds=rounds, seed=seed, progress="auto")
    rows = [{"site": site, "local": a, "federated": b, "pooled": c} for site, a, b, c in shown.table]
    if as_json:
        _print_json({"run": str(shown.run), "status": "completed", "metric": "auc", "splits": SPLITS, "sites": rows})
        return
    _table(f"AUC on test rows, mean of {SPLITS} random splits", ["hospital", "local only", "federated", "pooled"], shown.table)
    typer.echo(f"\nRun folder: {shown.run}\nOpen {shown.run}/report.html, or type: hansa runs show {shown.run}")


def _load(job: str, overrides: list[str], data: str | None, init: Path | None) -> Loaded:
    import os

    from hansa.config.loading import load
    from hansa.simulation.engine import print_note

    loaded = load(job, overrides=overrides, data=data, environment=os.environ.get("HANSA_DATA"), init=init)
    if loaded.note:
        print_note(loaded.note)
    return loaded


def _settings(engine: str | None, workers: int | None, **more: Any) -> Settings:
    from hansa.simulation.engine import Settings

    count = workers or 1
    return Settings(engine=engine or ("pool" if count > 1 else "loop"), workers=count, progress="auto", **more)  # type: ignore[arg-type]  # Engine's values


def _start(
    loaded: Loaded, how: Settings, *, seed: int | None, init: Path | None, out: Path | None, dropout: float, baselines: bool
) -> tuple[Result, Compared | None]:
    from hansa.record.info import Reference
    from hansa.simulation.engine import Origin, simulate
    from hansa.simulation.evaluate import compare
    from hansa.simulation.faults import Faults

    reference = Reference(
        path=loaded.path,
        overrides=list(loaded.overrides),
        folder=loaded.folder,
        init=None if init is None else str(init.resolve()),
        dropout=dropout,
        keep_updates=how.keep_updates,
        deterministic=how.deterministic,
        checkpoint_every=how.checkpoint_every,
    )
    folder = _new_folder(out, loaded.job.name)
    options: dict[str, Any] = {
        "seed": seed,
        "settings": how,
        "faults": Faults(dropout=dropout),
        "out": folder,
        "origin": Origin(reference, loaded.settings),
    }
    if not baselines:
        return simulate(loaded.job, loaded.data, **options), None
    compared = compare(loaded.job, loaded.data, **options)
    _show(compared)
    _save(compared, folder)
    return compared.federated, compared


_KEPT = "a resumed run keeps what it began with: leave out all but --engine, --workers and --json"


def _refuse(given: Mapping[str, object], *, why: str = _KEPT, by: str = "resume") -> None:
    """Refuse options that a run has for good."""
    from hansa.errors import InputError

    if names := [name if name.isupper() else f"--{name}" for name, value in given.items() if value is not None]:
        raise InputError(f"{' and '.join(names)} cannot be given with --{by}", hint=why)


def _flare(app: Path, count: int, *, seed: int | None, out: Path | None, dropout: float) -> Result:
    from hansa.compat.flare.job import Sites, job
    from hansa.simulation.engine import Settings, simulate
    from hansa.simulation.faults import Faults

    folder = _new_folder(out, app.resolve().name)
    made = job(app, workspace=folder.resolve() / "workspace")
    return simulate(
        made, Sites.of(count), seed=seed, settings=Settings(progress="auto"), faults=Faults(dropout=dropout), out=folder
    )


def _resume(folder: Path, engine: str | None, workers: int | None) -> Result:
    from hansa.config.evidence import check_same
    from hansa.config.loading import load
    from hansa.errors import InputError
    from hansa.record.folder import RunFolder
    from hansa.simulation.engine import print_note, simulate
    from hansa.simulation.faults import Faults

    opened = RunFolder.open(folder)
    info = opened.info
    if info.state == "completed":
        raise InputError("the run is completed", run=info.id, hint="there is nothing to resume; start a new one")
    again = info.reference
    if again is None:
        hint = "call hansa.simulate(job, data, out=..., resume=True) with the same job"
        raise InputError("the run was started from Python and does not say how to load its job", run=info.id, hint=hint)
    kept = {"keep_updates": again.keep_updates, "deterministic": again.deterministic, "checkpoint_every": again.checkpoint_every}
    how = _settings(
        engine or (info.engine if workers is None else None), workers or (info.workers if engine is None else 1), **kept
    )
    loaded = load(again.path, overrides=again.overrides, data=again.folder, init=again.init)
    for note in check_same(info.settings, loaded.settings, run=info.id):
        print_note(note)
    print_note(f"resuming {info.id}")
    faults = Faults(dropout=again.dropout)
    return simulate(loaded.job, loaded.data, seed=info.seed, settings=how, faults=faults, out=folder, resume=True)


def _new_folder(out: Path | None, job: str) -> Path:
    """The folder to write: `--out`, or a new name below runs/."""
    from hansa.record.folder import RunFolder

    return out if out is not None else RunFolder.create(None, job).path


def _tell(result: Result, compared: Compared | None, *, as_json: bool) -> None:
    from hansa import codec
    from hansa.record import results
    from hansa.record.series import last_global, rank

    content: dict[str, Any] = {"run": str(result.run), "status": "completed", "global": last_global(result.metrics)}
    if (trained := results.outcome_of(result.value)) is not None:
        digest = codec.digest(trained.model)
        content |= {"rounds": trained.rounds, "best_round": trained.best_round, "model_sha256": digest}
    found = (None, None) if result.run is None else results.load(result.run)
    content |= {name: each for name, each in zip(("matrix", "result"), found, strict=True) if each is not None}
    if as_json:
        _print_json(content if compared is None else content | {"baselines": _compared(compared)})
        return
    numbers = "  ".join(f"{name} {content['global'][name]:.4f}" for name in sorted(content["global"], key=rank))
    for title, head, rows in results.tables(*found):
        typer.echo(f"\n{title}\n{results.aligned(head, rows)}")
    rounds = content.get("rounds", len(result.metrics))
    typer.echo(f"\n{rounds} round{'' if rounds == 1 else 's'}  {numbers}".rstrip())
    typer.echo(f"Run folder: {result.run}\nNext: hansa runs show {result.run}")


def _compared(compared: Compared) -> dict[str, Any]:
    """The trio as JSON: each metric of each way of training, on every site's test rows and on all of them together."""
    ways = {"local": compared.local, "federated": compared.together.sites, "centralised": compared.centralised.sites}
    sites = {site: {way: dict(values.get(site, {})) for way, values in ways.items()} for site in compared.together.sites}
    pooled = {"federated": dict(compared.together.pooled), "centralised": dict(compared.centralised.pooled)}
    return {"sites": sites, "pooled": pooled}


def _save(compared: Compared, folder: Path) -> None:
    import msgspec

    from hansa.files import write_atomic

    write_atomic(folder / "baselines.json", [msgspec.json.format(msgspec.json.encode(_compared(compared)), indent=2), b"\n"])


def _show(compared: Compared) -> None:
    from hansa.simulation.engine import print_note

    names = sorted({name for values in compared.together.sites.values() for name in values})
    for name in names:
        rows = compared.table(name)
        print_note(f"\n{name} on each site's test rows\n{'site':<20}{'local only':>12}{'federated':>12}{'centralised':>12}")
        for site, *values in rows:
            print_note(f"{site:<20}" + "".join(f"{value:>12.4f}" for value in values))


def _table(title: str, head: list[str], rows: list[tuple[str, float, float, float]]) -> None:
    import sys

    if not sys.stdout.isatty():
        typer.echo(f"{title}\n" + f"{head[0]:<16}" + "".join(f"{name:>12}" for name in head[1:]))
        for site, *values in rows:
            typer.echo(f"{site:<16}" + "".join(f"{value:>12.3f}" for value in values))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, title_justify="left")
    for i, name in enumerate(head):
        table.add_column(name, justify="right" if i else "left")
    for site, *values in rows:
        best = max(values)
        table.add_row(site, *(f"[bold]{v:.3f}[/bold]" if v == best else f"{v:.3f}" for v in values))
    Console().print(table)


def _print_json(content: dict[str, Any]) -> None:
    import msgspec

    typer.echo(msgspec.json.encode(content).decode())
