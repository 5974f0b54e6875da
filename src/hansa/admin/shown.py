"""How answers are printed: a table or plain lines for people, one JSON object for programs."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import typer

from hansa.admin.answers import LIVE, Fit, Plan, RunEvent, Site, Status
from hansa.admin.client import Run
from hansa.admin.here.local import Local
from hansa.files import storage_error
from hansa.runtime.audit.chain import inert
from hansa.runtime.jobs.bundle import Bundle
from hansa.runtime.store.event import Event


def planned(bundle: Bundle, size: int, code: str, *, types: bool, as_json: bool) -> None:
    """What a job would do, with the types of its phases if wanted. `code` is the hash by which sites approve it."""
    manifest, document = bundle.manifest, bundle.plan
    if as_json:
        facts = {"job_hash": manifest.plan_hash, "code_hash": code, "bytes": size, "files": manifest.files}
        json({**msgspec.to_builtins(document), **facts, "plan": str(document)})
        return
    typer.echo(str(document))
    if types:
        typer.echo(f"\n{document.phases()}")
    typer.echo(f"\nbundle     {size:,} bytes, {len(manifest.files)} file(s): {', '.join(sorted(manifest.files))}")
    typer.echo(f"job hash   {manifest.plan_hash}  (of this plan; signed by its author)")
    typer.echo(f"code hash  {code}  (sites approve code by it)")
    if manifest.requires:
        typer.echo(f"requires   {', '.join(manifest.requires)}")


def fits(reference: str, found: Sequence[Fit], *, as_json: bool) -> None:
    """Which sites' data a job takes: a line a site, and one for each place where they are not what it takes."""
    if as_json:
        json({"job": reference, "fits": all(each.fits is not False for each in found), "sites": msgspec.to_builtins(found)})
        return
    width = max((len(each.site) for each in found), default=0)
    for each in found:
        said = {True: f"fits     {each.type}", False: f"DIFFERS  {each.type}", None: f"unknown  {each.why}"}[each.fits]
        typer.echo(inert(f"{each.site:<{width}}  {said}").rstrip())
    for each in found:
        for misfit in each.misfits:
            typer.echo(inert(f"{each.site}: {misfit}"))


def runs(found: Sequence[Status], *, as_json: bool) -> None:
    """A table of runs."""
    if as_json:
        json({"runs": [msgspec.to_builtins(each) for each in found]})
    elif found:
        rows = [
            [each.run, each.author, each.state, _rounds(each), str(len(each.accepted)), _when(each.created), _metrics(each)]
            for each in found
        ]
        table(["run", "author", "state", "rounds", "sites", "submitted", "last metrics"], rows)
    else:
        typer.echo("no runs yet", err=True)


def run(status: Status, said: Plan | None, code: str, *, plan: bool, hashes: bool, as_json: bool) -> None:
    """One run, with its plan and its hashes if wanted."""
    if as_json:
        more: dict[str, Any] = {} if said is None else {**msgspec.to_builtins(said), "code_hash": code}
        json({**more, **msgspec.to_builtins(status), "status": status.state})
        return
    facts = {
        "run": status.run,
        "label": status.label,
        "job": status.job,
        "author": f"{status.author} ({status.org})",
        "state": status.state,
    }
    facts |= {"reason": status.reason, "rounds": _rounds(status), "seed": str(status.seed), "submitted": _when(status.created)}
    facts |= {"ended": _when(status.ended), "sites": ", ".join(status.sites), "accepted": ", ".join(status.accepted)}
    facts |= {"metrics": _metrics(status)}
    if said is not None and hashes:
        facts |= {"job hash": said.job_hash, "code hash": code, "bundle": status.bundle}
    for name, value in facts.items():
        if value:
            typer.echo(f"{name:<10} {inert(value)}")
    for line in status.waits:
        typer.echo(f"waits for  {inert(line)}")
    for site, working in sorted(status.working.items()):
        typer.echo(f"{inert(site)} is at {inert(str(working))}")
    for site, reason in status.refused.items():
        typer.echo(f"{inert(site)} refused: {inert(reason)}")
    if said is not None and hashes:
        table(["SHA-256", "file"], [[digest, inert(path)] for path, digest in sorted(said.files.items())])
    if said is not None and plan:
        typer.echo(f"\n{said.plan}")


def logs(run: Run, *, site: str | None, follow: bool, as_json: bool) -> None:
    """What happened in a run, and what its sites let out while they worked; with `follow`, until it has ended."""
    events = (event for event in run.events(follow=follow) if site is None or event.data.get("site") == site)
    if as_json:
        told = [{"seq": event.seq, "kind": event.kind, "at": event.at, **event.data} for event in events]
        live = [line for line in told if line["kind"] in LIVE]
        json({"run": run.id, "events": [line for line in told if line["kind"] not in LIVE], "live": live})
        return
    for event in events:
        typer.echo(str(event))
        for raised in event.record.get("raised", []):
            typer.echo(f"{inert(str(raised.get('site')))}: {inert(str(raised.get('message')))}")
            for line in str(raised.get("trace", "")).splitlines():
                typer.echo(f"    {inert(line)}")


def sites(found: Sequence[Site], *, as_json: bool) -> None:
    """A table of sites."""
    if as_json:
        json({"sites": [msgspec.to_builtins(each) for each in found]})
        return
    rows = [
        [each.site, each.org, _presence(each), ", ".join(sorted(each.data)), *map(str, (each.cores, each.gpus, len(each.runs)))]
        for each in found
    ]
    rows = [[*row, _left(each.certificate_ends)] for row, each in zip(rows, found, strict=True)]
    table(["site", "organisation", "state", "data", "cores", "GPUs", "runs", "certificate"], rows)


def site(found: Site, *, as_json: bool) -> None:
    """One site."""
    if as_json:
        json(msgspec.to_builtins(found))
        return
    facts = {"site": found.site, "org": found.org, "state": _presence(found), "last heard": _when(found.seen)}
    memory = f"{found.memory_bytes / 2**30:.1f} GiB" if found.memory_bytes else "no limit"
    facts |= {"cores": str(found.cores), "GPUs": str(found.gpus), "memory": memory}
    facts |= {"data": "; ".join(f"{label} {kind}" for label, kind in sorted(found.data.items())), "runs": ", ".join(found.runs)}
    facts |= {"demands": "; ".join(found.demands), "key": found.key}
    if (until := found.certificate_ends) is not None:
        facts |= {"certificate": f"{_left(until)} (until {_when(until)})"}
    for name, value in facts.items():
        if value:
            typer.echo(f"{name:<11} {inert(value)}")


def record(events: Sequence[Event], *, as_json: bool) -> None:
    """Events of the record, a line each."""
    if as_json:
        json({"events": [msgspec.to_builtins(event) for event in events]})
        return
    for event in events:
        typer.echo(f"{event.seq:>6}  {_when(event.at)}  {event.kind:<14} {_facts(event)}  {event.hash[:12]}".rstrip())


def ended(status: Status, kit: Path, *, as_json: bool) -> None:
    """How a run has ended."""
    if as_json:
        json(
            {
                "run": status.run,
                "status": status.state,
                "reason": status.reason,
                "global": status.metrics,
                "refused": status.refused,
            }
        )
        return
    why = f": {status.reason}" if status.reason and status.state != "completed" else ""
    typer.echo(f"\n{status.run} {status.state}{inert(why)}  {_metrics(status)}".rstrip())
    if status.state == "completed":
        typer.echo(f"Next: hansa job download {status.run} --kit {kit}")


def downloaded(run: str, folder: Path, *, as_json: bool) -> None:
    """Where a run folder is now."""
    if as_json:
        json({"run": run, "folder": str(folder), "model_sha256": model_digest(folder)})
    else:
        typer.echo(f"{folder}\nOpen {folder}/report.html, or type: hansa runs show {folder}")


def ready(local: Local, seconds: float, *, job: str | None, as_json: bool) -> None:
    """That the federation is up, and what to type next."""
    if as_json and job is None:
        json({"url": local.url, "sites": list(local.sites), "kits": str(local.kits), "logs": str(local.logs)})
        return
    kits = ",".join(("server", "admin", *local.sites[:1], *(["..."] if len(local.sites) > 1 else [])))
    typer.echo(f"up in {seconds:.1f} s: {local.url}, {len(local.sites)} sites", err=True)
    typer.echo(f"kits  {local.kits}/{{{kits}}}\nlogs  {local.logs}", err=True)
    if job is None:
        typer.echo(f"next  hansa job submit FILE.py:job --kit {local.kits / 'admin'} --wait", err=True)
        typer.echo(f"      hansa site list --kit {local.kits / 'admin'}\nCtrl-C stops it.", err=True)


def ran(status: Status, folder: Path, *, as_json: bool) -> None:
    """How a job that `hansa up` ran has ended, and where its run folder is."""
    if as_json:
        content = {"run": status.run, "status": status.state, "reason": status.reason, "folder": str(folder)}
        json({**content, "global": status.metrics, "model_sha256": model_digest(folder)})
        return
    why = f": {status.reason}" if status.reason and status.state != "completed" else ""
    typer.echo(f"\n{status.state}{inert(why)}  {_metrics(status)}".rstrip())
    typer.echo(f"Run folder: {folder}\nNext: hansa runs show {folder}")


def model_digest(folder: Path) -> str | None:
    """The SHA-256 of a run folder's final model; None if it has none."""
    path = folder / "model.safetensors"
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise storage_error(error, path) from error


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Aligned columns, plain text, harmless to a terminal."""
    full = [list(head), *([inert(cell) for cell in row] for row in rows)]
    widths = [max(len(row[k]) for row in full) for k in range(len(head))]
    for row in full:
        typer.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def json(content: dict[str, Any]) -> None:
    """One JSON object on stdout."""
    typer.echo(msgspec.json.encode(content).decode())


def _presence(site: Site) -> str:
    if site.revoked is not None:
        return f"revoked: {site.revoked}" if site.revoked else "revoked"
    if site.disabled is not None:
        return f"disabled {site.disabled}"
    return "online" if site.online else "offline"


def _rounds(status: Status) -> str:
    return f"{status.round}/{status.rounds}" if status.rounds else str(status.round)


def _metrics(status: Status) -> str:
    names = sorted(status.metrics, key=lambda name: (name.startswith("train_"), name))
    numbers = {name: status.metrics[name] for name in names[:3]}
    return "  ".join(f"{name} {'nan' if value is None else format(value, '.4g')}" for name, value in numbers.items())


def _left(until: float | None) -> str:
    """The days of a certificate."""
    if until is None:
        return ""
    days = (until - time.time()) / 86_400
    return "has ended" if days < 0 else f"{days:.0f} days"


def _when(at: float | None) -> str:
    return "" if at is None else f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M:%SZ}"


def _facts(event: Event) -> str:
    return str(RunEvent(event.seq, event.kind, event.at, event.data)).partition(event.kind)[2].strip()
