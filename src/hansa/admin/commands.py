"""`hansa job` and `hansa audit`: what people ask of a federation's server."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from hansa.admin.answers import Plan, Status
    from hansa.admin.client import Run, Session

job = typer.Typer(no_args_is_help=True, help="Submit jobs to a federation, watch them, take their results home.")
audit = typer.Typer(no_args_is_help=True, help="What happened, and whether the record is whole.")

Kit = Annotated[Path, typer.Option("--kit", envvar="HANSA_KIT", help="Your start-up kit: a folder (else HANSA_KIT).")]
Json = Annotated[bool, typer.Option("--json", help="One JSON object on stdout, all else on stderr.")]
RunName = Annotated[str, typer.Argument(help="A run, or the beginning of its name.")]
Seed = Annotated[int | None, typer.Option("--seed", help="The seed of every random stream.")]
Reason = Annotated[str, typer.Option("--reason", help="Why; it stays on record.")]
Out = Annotated[Path | None, typer.Option("--out", help="The folder to write; must be empty or new.")]
Wait = Annotated[bool, typer.Option("--wait", help="Watch it until it has ended; the exit code says how.")]
JobReference = Annotated[str, typer.Argument(metavar="JOB", help="file.py:name, package.module:name or job.toml.")]


@job.command("submit", epilog="Example: hansa job submit digits.py:job --kit fed/kits/admin --seed 3 --wait")
def submit(
    reference: Annotated[str | None, typer.Argument(metavar="JOB", help="file.py:name, package.module:name or job.toml.")] = None,
    *,
    flare: Annotated[Path | None, typer.Option("--flare", help="An app folder of NVIDIA FLARE 2.0, in place of a job.")] = None,
    kit: Kit,
    sites: Annotated[str | None, typer.Option("--sites", help="Names, separated by commas, in slot order; else all.")] = None,
    min_sites: Annotated[int | None, typer.Option("--min-sites", min=1, help="Fewer refuse the run; else all.")] = None,
    seed: Seed = None,
    priority: Annotated[int, typer.Option("--priority", min=-100, max=100, help="Higher goes first.")] = 0,
    include: Annotated[list[str] | None, typer.Option("--include", help="A further file of the bundle; repeatable.")] = None,
    label: Annotated[str, typer.Option("--label", help="What you call the run; several may have one label.")] = "",
    wait: Wait = False,
    as_json: Json = False,
) -> None:
    """Submit a job, signed with your key."""
    from hansa.errors import InputError

    if (reference is None) == (flare is None):
        raise InputError("name a job, or an app of FLARE", hint="hansa job submit digits.py:job, or hansa job submit --flare APP")
    what = str(reference) if flare is None else str(flare / "config" / "config_fed_server.json")
    with _session(kit) as session:
        options: dict[str, Any] = {"sites": _names(sites), "min_sites": min_sites, "seed": seed, "priority": priority}
        run = session.submit(what, include=include or (), label=label, **options)
        _submitted(run, kit, wait=wait, as_json=as_json)


@job.command("clone", epilog="Example: hansa job clone 20260102T101500Z-digits-3f2a --kit fed/kits/admin --seed 4")
def clone(name: RunName, *, kit: Kit, seed: Seed = None, wait: Wait = False, as_json: Json = False) -> None:
    """Submit the job of one of your runs again, to the same sites."""
    with _session(kit) as session:
        _submitted(session.clone(name, seed=seed), kit, wait=wait, as_json=as_json)


@job.command("plan", epilog="Example: hansa job plan digits.py:job --types")
def plan(
    reference: JobReference,
    *,
    types: Annotated[bool, typer.Option("--types", help="Also the type of each phase.")] = False,
    as_json: Json = False,
) -> None:
    """What would run where, on which data, and what would leave: what you would sign and sites would read. Nothing is submitted."""
    from hansa.admin import shown
    from hansa.runtime.client.policy import code_hash
    from hansa.runtime.jobs.build import build
    from hansa.runtime.jobs.bundle import open_bundle

    data = build(reference)
    bundle = open_bundle(data)
    shown.planned(bundle, len(data), code_hash(bundle.manifest), types=types, as_json=as_json)


@job.command("check", epilog="Example: hansa job check digits.py:job --kit fed/kits/admin --sites north,south")
def check(
    reference: JobReference,
    *,
    kit: Kit,
    sites: Annotated[str | None, typer.Option("--sites", help="Names, separated by commas; else all.")] = None,
    as_json: Json = False,
) -> None:
    """Whether the sites' data are what the job takes, by the types that sites publish; exit code 1 if one's are not.

    Nothing is submitted and nothing runs at any site.
    """
    from hansa.admin import shown

    with _session(kit) as session:
        found = session.check(reference, sites=_names(sites))
    shown.fits(reference, found, as_json=as_json)
    if any(each.fits is False for each in found):
        raise typer.Exit(1)


@job.command("list", epilog="Example: hansa job list --kit fed/kits/admin")
def list_(*, kit: Kit, as_json: Json = False) -> None:
    """The runs of the project, newest first."""
    from hansa.admin import shown

    with _session(kit) as session:
        shown.runs(session.runs()[::-1], as_json=as_json)


@job.command("show", epilog="Example: hansa job show 20260102T101500Z-digits-3f2a --kit fed/kits/admin --hash")
def show(
    name: RunName,
    *,
    kit: Kit,
    plan: Annotated[bool, typer.Option("--plan", help="Also what runs where and what leaves.")] = False,
    hashes: Annotated[bool, typer.Option("--hash", help="Also the hashes of job, plan and code.")] = False,
    as_json: Json = False,
) -> None:
    """One run: how it stands, its sites and who refused it."""
    from hansa.admin import shown

    with _session(kit) as session:
        run = session.run(name)
        said = run.plan() if plan or hashes else None
        shown.run(run.status(), said, _code_hash(said), plan=plan, hashes=hashes, as_json=as_json)


@job.command("watch", epilog="Example: hansa job watch 20260102T101500Z-digits-3f2a --kit fed/kits/admin")
def watch(name: RunName, *, kit: Kit, as_json: Json = False) -> None:
    """Watch a run until it has ended; the exit code says how."""
    with _session(kit) as session:
        _watched(session.run(name), kit, as_json=as_json)


@job.command("logs", epilog="Example: hansa job logs 20260102T101500Z-digits-3f2a --kit fed/kits/admin")
def logs(
    name: RunName,
    *,
    kit: Kit,
    site: Annotated[str | None, typer.Option("--site", help="Only what this site said.")] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the run has ended.")] = False,
    as_json: Json = False,
) -> None:
    """What happened in a run, and what its sites let out while they worked: numbers, log lines."""
    from hansa.admin import shown

    with _session(kit) as session:
        run = session.run(name)
        shown.logs(run, site=site, follow=follow, as_json=as_json)


@job.command("abort", epilog="Example: hansa job abort 20260102T101500Z-digits-3f2a --kit fed/kits/admin")
def abort(name: RunName, *, kit: Kit, reason: Reason = "", as_json: Json = False) -> None:
    """End a run for good."""
    with _session(kit) as session:
        _steered(session.run(name).abort(reason), as_json=as_json)


@job.command("pause", epilog="Example: hansa job pause 20260102T101500Z-digits-3f2a --kit fed/kits/admin")
def pause(name: RunName, *, kit: Kit, reason: Reason = "", as_json: Json = False) -> None:
    """Let a run rest until it is resumed."""
    with _session(kit) as session:
        _steered(session.run(name).pause(reason), as_json=as_json)


@job.command("resume", epilog="Example: hansa job resume 20260102T101500Z-digits-3f2a --kit fed/kits/admin")
def resume(name: RunName, *, kit: Kit, reason: Reason = "", as_json: Json = False) -> None:
    """Go on with a run after a pause."""
    with _session(kit) as session:
        _steered(session.run(name).resume(reason), as_json=as_json)


@job.command("download", epilog="Example: hansa job download 20260102T101500Z-digits-3f2a --out runs/digits --kit fed/kits/admin")
def download(name: RunName, *, kit: Kit, out: Out = None, as_json: Json = False) -> None:
    """Copy a run's folder: models, metrics, curves, report."""
    from hansa.admin import shown

    with _session(kit) as session:
        run = session.run(name)
        shown.downloaded(run.id, run.download(out), as_json=as_json)


@job.command("delete", epilog="Example: hansa job delete 20260102T101500Z-digits-3f2a --kit fed/kits/admin")
def delete(name: RunName, *, kit: Kit, as_json: Json = False) -> None:
    """Remove a run that has ended, and its folder, from the server; the record of what happened stays."""
    with _session(kit) as session:
        run = session.run(name)
        run.delete()
    if as_json:
        _print_json({"run": run.id, "deleted": True})
    else:
        typer.echo(f"deleted {run.id}")


@audit.command("show", epilog="Example: hansa audit show --kit fed/kits/admin --last 20")
def audit_show(
    *,
    kit: Kit,
    stream: Annotated[str, typer.Option("--stream", help="project, or run/NAME.")] = "project",
    last: Annotated[int, typer.Option("--last", min=1, help="How many events, the newest.")] = 100,
    as_json: Json = False,
) -> None:
    """The newest events of the record: who did what, and what was refused."""
    from collections import deque

    from hansa.admin import shown

    with _session(kit) as session:
        shown.record(list(deque(session.audit(stream), maxlen=last)), as_json=as_json)


@audit.command("verify", epilog="Example: hansa audit verify --kit fed/kits/admin --heads heads.json")
def audit_verify(
    *,
    kit: Kit,
    heads: Annotated[
        Path | None, typer.Option("--heads", help="Compare with the heads in this file, and keep the new ones in it.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Recompute every hash of the record; exit code 1 and the first bad event if one is not what was committed.

    Heads that you keep show whether the record was later cut off or rewritten.
    """
    from hansa.admin.record import verify
    from hansa.runtime.audit.chain import Broken

    with _session(kit) as session:
        verdict = verify(session, heads)
    if isinstance(verdict, Broken):
        if as_json:
            _print_json({"ok": False, "stream": verdict.stream, "seq": verdict.seq, "why": verdict.why})
        else:
            typer.echo(f"NOT WHOLE: stream {verdict.stream}, event {verdict.seq}: {verdict.why}", err=True)
        raise typer.Exit(1)
    if as_json:
        _print_json({"ok": True, "events": verdict.events, "streams": len(verdict.heads)})
    else:
        typer.echo(f"whole: {verdict.events:,} events in {len(verdict.heads)} streams")


def _names(sites: str | None) -> list[str] | None:
    return None if sites is None else [name.strip() for name in sites.split(",") if name.strip()]


@contextmanager
def _session(kit: Path) -> Iterator[Session]:
    from hansa.admin.client import connect

    with connect(kit) as session:
        yield session


def _submitted(run: Run, kit: Path, *, wait: bool, as_json: bool) -> None:
    if wait:
        _watched(run, kit, as_json=as_json)
    elif as_json:
        _print_json({"run": run.id, "status": run.status().state})
    else:
        typer.echo(f"{run.id}\nNext: hansa job watch {run.id} --kit {kit}")


def _watched(run: Run, kit: Path, *, as_json: bool) -> None:
    from hansa.admin import shown
    from hansa.admin.follow import follow
    from hansa.errors import Interrupted

    try:
        status = follow(run)
    except KeyboardInterrupt:
        hint = f"it goes on at the server: hansa job watch {run.id} --kit {kit}"
        raise Interrupted("no longer watched", run=run.id, hint=hint) from None
    shown.ended(status, kit, as_json=as_json)
    _exit_as(status)


def _steered(status: Status, *, as_json: bool) -> None:
    if as_json:
        _print_json({"run": status.run, "status": status.state})
    else:
        typer.echo(f"{status.run} is {status.state}")


def _code_hash(said: Plan | None) -> str:
    """The hash by which sites approve the code of a run."""
    from hansa.runtime.client.policy import code_hash
    from hansa.runtime.manifest import Manifest

    if said is None:
        return ""
    return code_hash(Manifest(reference=said.reference, job="", data="", plan_hash=said.job_hash, files=said.files))


def _exit_as(status: Status) -> None:
    """End with the code of the run's state."""
    code = {"completed": 0, "refused": 3}.get(status.state, 1)
    if code:
        raise typer.Exit(code)


def _print_json(content: dict[str, Any]) -> None:
    import msgspec

    typer.echo(msgspec.json.encode(content).decode())
