"""`hansa runs`: look at what ran."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from hansa.record.folder import RunFolder
    from hansa.record.series import Curve

app = typer.Typer(no_args_is_help=True, help="List, show, compare, plot and verify runs.")

Root = Annotated[Path, typer.Option("--root", help="The folder that holds the runs.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")]
Run = Annotated[str, typer.Argument(help="A run's folder, its name below --root, or the beginning of the name.")]
Runs = Annotated[list[str], typer.Argument(help="Runs: folders, or names below --root.")]


@app.command("list", epilog="Example: hansa runs list --root runs")
def list_(*, root: Root = Path("runs"), as_json: Json = False) -> None:
    """The runs below a folder, newest first: state, rounds, sites and final metrics."""
    from hansa.record.folder import RunFolder
    from hansa.record.info import RunInfo

    found: list[tuple[RunFolder, RunInfo, str, int, dict[str, float]]] = []
    broken: list[str] = []
    for path in sorted(root.iterdir() if root.is_dir() else (), reverse=True):
        if (path / "run.json").is_file():
            _list_one(RunFolder(path), found, broken)
    found.sort(key=lambda item: item[1].started, reverse=True)
    if as_json:
        runs = [
            _brief(folder.path, info) | {"state": state, "rounds_done": done, "metrics": metrics}
            for folder, info, state, done, metrics in found
        ]
        _print_json({"runs": runs, "unreadable": broken})
    elif found:
        rows = [
            [folder.path.name, info.job, state, f"{done}/{info.rounds}", f"{info.sites:,}", _metrics(metrics)]
            for folder, info, state, done, metrics in found
        ]
        _table(["run", "job", "state", "rounds", "sites", "last metrics"], rows)
    else:
        typer.echo(f"no runs below {root}", err=True)
    for note in broken:
        typer.echo(note, err=True)


@app.command("show", epilog="Example: hansa runs show runs/20250304T100000Z-digits-3f2a")
def show(run: Run, *, root: Root = Path("runs"), as_json: Json = False) -> None:
    """One run: how it was made, its last and best metrics per site, who was refused or lost."""
    from hansa.record import results
    from hansa.record.series import curves

    folder = _open(run, root)
    found = results.load(folder.path)
    info, records = folder.info, folder.rounds()
    drawn = curves(records)
    refused = [{"round": record["round"], **entry} for record in records for entry in record.get("refused", ())]
    lost = [{"round": record["round"], "site": site} for record in records for site in record.get("lost", ())]
    if as_json:
        import msgspec

        content = {"path": str(folder.path), "state": folder.state, "info": msgspec.to_builtins(info), "rounds_done": len(records)}
        content |= {name: each for name, each in zip(("matrix", "result"), found, strict=True) if each is not None}
        _print_json(content | {"metrics": _extremes(drawn), "refused": refused, "lost": lost})
        return
    facts = {"run": str(folder.path), "job": info.job, "state": folder.state, "rounds": f"{len(records)} of {info.rounds}"}
    facts |= {"sites": f"{info.sites:,}", "seed": str(info.seed), "engine": f"{info.engine}, {info.workers} worker(s)"}
    facts |= {"started": info.started, "finished": info.finished or "", "error": info.error or "", "job hash": info.job_hash[:16]}
    for name, value in facts.items():
        if value:
            typer.echo(f"{name:<10} {value}")
    if drawn:
        typer.echo("")
        _table(["site", *(head for curve in drawn for head in (curve.name, "best"))], _site_rows(drawn))
    for title, head, rows in results.tables(*found):
        typer.echo(f"\n{title}")
        _table(head, rows)
    for entry in refused:
        typer.echo(f"round {entry['round']}: {entry.get('site')} refused, {entry.get('code')} {entry.get('path') or ''}".rstrip())
    for entry in lost:
        typer.echo(f"round {entry['round']}: {entry['site']} lost")


@app.command("compare", epilog="Example: hansa runs compare runs/a runs/b")
def compare(runs: Runs, *, root: Root = Path("runs"), as_json: Json = False) -> None:
    """Several runs side by side: final and best global metrics, and the settings that differ."""
    from hansa.record import results
    from hansa.record.series import curves, number

    folders = [_open(run, root) for run in runs]
    names = _labels(folders)
    drawn = [curves(folder.rounds()) for folder in folders]
    values = [_settings(folder) for folder in folders]
    keys = sorted({key for one in values for key in one})
    differ = {key: [one.get(key) for one in values] for key in keys if len({repr(one.get(key)) for one in values}) > 1}
    metrics = [{name: row["global"] for name, row in _extremes(each).items() if "global" in row} for each in drawn]
    found = [results.numbers(*results.load(folder.path)) for folder in folders]
    if as_json:
        told = {"results": found} if any(found) else {}
        _print_json({"runs": names, "metrics": metrics, **told, "settings": differ})
        return
    shown = list(dict.fromkeys(name for each in metrics for name in each))
    rows = []
    for name, each in zip(names, metrics, strict=True):
        cells = [(each[m]["last"], each[m]["best"], each[m]["best_round"]) if m in each else None for m in shown]
        rows.append([name, *(text for cell in cells for text in _pair(cell))])
    if shown:
        _table(["run", *(head for name in shown for head in (name, "best"))], rows)
    if keys := list(dict.fromkeys(key for each in found for key in each)):
        typer.echo("\nresults")
        _table(["", *names], [[key, *(number(each.get(key, float("nan"))) for each in found)] for key in keys])
    if differ:
        typer.echo("\nsettings that differ")
        _table(["setting", *names], [[key, *("–" if v is None else number(v) for v in row)] for key, row in differ.items()])  # noqa: RUF001
    else:
        typer.echo("\nno setting differs")


@app.command("plot", epilog="Example: hansa runs plot runs/a runs/b --out compare.png")
def plot(
    runs: Runs,
    *,
    out: Annotated[Path, typer.Option("--out", help="The PNG to write.")] = Path("curves.png"),
    root: Root = Path("runs"),
    as_json: Json = False,
) -> None:
    """Curves as a PNG: one run with its sites, or several runs' global models in one figure; a cross-site run's heat map."""
    from hansa.errors import InputError
    from hansa.files import write_atomic
    from hansa.record import matrix, results
    from hansa.record.plot import render
    from hansa.record.series import curves

    if out.suffix.lower() != ".png":
        raise InputError("curves are drawn as PNG", path=str(out), hint=f"give --out {out.with_suffix('.png')}")
    folders = [_open(run, root) for run in runs]
    records = [folder.rounds() for folder in folders]
    crossed = results.load(folders[0].path)[0] if len(folders) == 1 and not curves(records[0]) else None
    image = render(list(zip(_labels(folders), records, strict=True))) if crossed is None else matrix.heat_map(crossed)
    write_atomic(out, [image])
    if as_json:
        _print_json({"out": str(out), "bytes": len(image)})
    else:
        typer.echo(f"wrote {out}")


@app.command("verify", epilog="Example: hansa runs verify runs/20250304T100000Z-digits-3f2a")
def verify(run: Run, *, root: Root = Path("runs"), as_json: Json = False) -> None:
    """Recompute the server's side from the stored updates and compare hashes; exit code 1 if one differs."""
    from hansa.cli import quiet
    from hansa.config.loading import load
    from hansa.errors import InputError
    from hansa.simulation import verify as server

    folder = _open(run, root)
    again = folder.info.reference
    if again is None:
        hint = "hansa.simulation.verify.verify takes the job"
        raise InputError("the run was started from Python and does not say how to load its job", run=folder.id, hint=hint)
    with quiet(as_json):
        loaded = load(again.path, overrides=again.overrides, data=again.folder, init=again.init)
        report = server.verify(folder, loaded.job, loaded.data[loaded.job.data].sites)
    rounds = [{"round": n, "expected": expected, "got": got, "ok": expected == got} for n, expected, got in report.rounds]
    if as_json:
        _print_json({"path": str(folder.path), "ok": report.ok, "rounds": rounds})
    else:
        rows = [[str(r["round"]), str(r["expected"])[:16], str(r["got"])[:16], "same" if r["ok"] else "DIFFERS"] for r in rounds]
        _table(["round", "recorded", "recomputed", ""], rows)
        typer.echo("\nverified: every hash is the same" if report.ok else "\nnot verified", err=not report.ok)
    if not report.ok:
        raise typer.Exit(1)


def _open(run: str, root: Path) -> RunFolder:
    from hansa.record.folder import RunFolder

    return RunFolder.find(run, root=root)


def _list_one(folder: RunFolder, found: list[Any], broken: list[str]) -> None:
    from hansa.errors import HansaError
    from hansa.record import results
    from hansa.record.series import last_global

    try:
        records = folder.rounds()
        metrics = last_global(records) or results.numbers(*results.load(folder.path))
        found.append((folder, folder.info, folder.state, len(records), metrics))
    except HansaError as error:  # one run of a newer version must not hide the others
        broken.append(str(error))


def _brief(path: Path, info: Any) -> dict[str, Any]:
    named = {
        name: getattr(info, name) for name in ("id", "job", "state", "rounds", "sites", "seed", "engine", "started", "finished")
    }
    return {"path": str(path), **named}


def _settings(folder: RunFolder) -> dict[str, Any]:
    from hansa.record.report import flat

    info = folder.info
    how = {"seed": info.seed, "engine": info.engine, "workers": info.workers, "sites": info.sites}
    return {**how, **flat(info.settings), **info.versions}


def _labels(folders: list[RunFolder]) -> list[str]:
    """A name for each run, the shortest that tells them apart."""
    names = [folder.id for folder in folders]
    return names if len(set(names)) == len(names) else [str(folder.path) for folder in folders]


def _extremes(drawn: list[Curve]) -> dict[str, dict[str, Any]]:
    from hansa.record.series import extremes

    return {
        curve.name: {
            **({"global": extremes(curve.name, curve.shared)._asdict()} if curve.shared else {}),
            "sites": {site: extremes(curve.name, points)._asdict() for site, points in curve.sites.items()},
        }
        for curve in drawn
    }


def _site_rows(drawn: list[Curve]) -> list[list[str]]:
    from hansa.record.series import extremes, site_names

    sites = site_names(drawn)
    rows = [["global", *(text for c in drawn for text in _pair(extremes(c.name, c.shared)))]]
    rows += [[site, *(text for c in drawn for text in _pair(extremes(c.name, c.sites.get(site, []))))] for site in sites[:50]]
    return rows + ([[f"and {len(sites) - 50:,} more"]] if len(sites) > 50 else [])


def _pair(cell: tuple[float, float, int] | None) -> tuple[str, str]:
    from hansa.record.series import number

    if cell is None:
        return "–", "–"  # noqa: RUF001
    last, best, at = cell
    return number(last), f"{number(best)} (round {at})" if at else number(best)


def _metrics(metrics: dict[str, float]) -> str:
    from hansa.record.series import number, rank

    names = sorted(metrics, key=rank)
    return "  ".join(f"{name} {number(metrics[name])}" for name in names[:3])


def _table(head: list[str], rows: list[list[str]]) -> None:
    from hansa.record.results import aligned

    typer.echo(aligned(head, rows))


def _print_json(content: dict[str, Any]) -> None:
    import msgspec

    typer.echo(msgspec.json.encode(content).decode())
