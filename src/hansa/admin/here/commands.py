"""`hansa site`, `hansa preflight` and `hansa up`: the sites of a federation, from afar and on their own machine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

if TYPE_CHECKING:
    from hansa.admin.answers import Status
    from hansa.admin.here.processes import Parts

site = typer.Typer(no_args_is_help=True, help="The sites of a federation; and a site itself: enrol it, start it.")

_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")

Kit = Annotated[Path, typer.Option("--kit", envvar="HANSA_KIT", help="Your start-up kit: a folder (else HANSA_KIT).")]
Json = Annotated[bool, typer.Option("--json", help="One JSON object on stdout, all else on stderr.")]
Reason = Annotated[str, typer.Option("--reason", help="Why; it stays on record.")]
SiteName = Annotated[str, typer.Argument(help="A site.")]
KitFolder = Annotated[Path, typer.Argument(help="The folder of the site's kit.")]
LogFormat = Annotated[Literal["text", "json"], typer.Option("--log-format", help="Lines for people, or a JSON object each.")]
LogLevel = Annotated[Literal["debug", "info", "warning", "error"], typer.Option("--log-level", help="What is worth a line.")]
Seed = Annotated[int | None, typer.Option("--seed", help="The seed of every random stream.")]


@site.command("list", epilog="Example: hansa site list --kit fed/kits/admin")
def site_list(*, kit: Kit, as_json: Json = False) -> None:
    """The sites of the project: who is there, with what data."""
    from hansa.admin import shown
    from hansa.admin.client import connect

    with connect(kit) as session:
        shown.sites(session.sites(), as_json=as_json)


@site.command("show", epilog="Example: hansa site show north --kit fed/kits/admin")
def site_show(name: SiteName, *, kit: Kit, as_json: Json = False) -> None:
    """One site."""
    from hansa.admin import shown
    from hansa.admin.client import connect

    with connect(kit) as session:
        shown.site(session.site(name), as_json=as_json)


@site.command("disable", epilog='Example: hansa site disable north --reason "new scanner" --kit fed/kits/admin')
def site_disable(name: SiteName, *, kit: Kit, reason: Reason = "", as_json: Json = False) -> None:
    """Work with a site no more until it is enabled. (For good: hansa provision revoke.)"""
    from hansa.admin import shown
    from hansa.admin.client import connect

    with connect(kit) as session:
        shown.site(session.disable(name, reason=reason), as_json=as_json)


@site.command("enable", epilog="Example: hansa site enable north --kit fed/kits/admin")
def site_enable(name: SiteName, *, kit: Kit, reason: Reason = "", as_json: Json = False) -> None:
    """Work with a site again."""
    from hansa.admin import shown
    from hansa.admin.client import connect

    with connect(kit) as session:
        shown.site(session.enable(name, reason=reason), as_json=as_json)


@site.command("start", epilog="Example: hansa site start kits/north")
def site_start(kit: KitFolder, *, log_format: LogFormat = "text", log_level: LogLevel = "info") -> None:
    """Serve a site until Ctrl-C: ask the server for work, do it here, send results. Prints one line when the server lets it in."""
    import os

    from hansa.runtime.client.loop import serve
    from hansa.runtime.logs import configure

    configure(log_format, level=log_level)
    serve(kit, environment=os.environ, ready=_say_ready)


@site.command("enroll", epilog="Example: hansa site enroll kits/north")
def site_enroll(kit: KitFolder, *, as_json: Json = False) -> None:
    """Make this site's key, here, and have it certified with the kit's one-time token (good for 24 h)."""
    import os

    from hansa.admin.here.enrolling import enroll
    from hansa.runtime.config import load_kit

    found = load_kit(kit)
    enroll(found, environment=os.environ)
    serial = f"{found.chain()[0].serial_number:x}"
    if as_json:
        _print_json({"site": found.name, "serial": serial, "until": found.chain()[0].not_valid_after_utc.isoformat()})
    else:
        typer.echo(f"{found.name} is enrolled, certificate {serial}\nNext: hansa preflight {kit}, then hansa site start {kit}")


@site.command("renew", epilog="Example: hansa site renew kits/north")
def site_renew(
    kit: KitFolder,
    *,
    keep_key: Annotated[bool, typer.Option("--keep-key", help="For the key that it has, instead of a new one.")] = False,
    as_json: Json = False,
) -> None:
    """Renew this site's certificate now. Its agent does that by itself: this is for a site that seldom runs."""
    import os

    from hansa.admin.here.enrolling import renew
    from hansa.runtime.config import load_kit

    found = load_kit(kit)
    renew(found, environment=os.environ, keep_key=keep_key)
    until = found.chain()[0].not_valid_after_utc
    if as_json:
        _print_json({"site": found.name, "serial": f"{found.chain()[0].serial_number:x}", "until": until.isoformat()})
    else:
        typer.echo(f"{found.name} has a new certificate, good until {until:%Y-%m-%d %H:%M} UTC")


@site.command("approvals", epilog="Example: hansa site approvals kits/north")
def site_approvals(kit: KitFolder, *, as_json: Json = False) -> None:
    """Code that waits for a person of this site (`approval = "by_hand"`)."""
    from hansa.admin import shown
    from hansa.runtime.client.approvals import waiting

    found = [(each.code, each.run, each.bundle.manifest) for each in waiting(_places(kit))]
    if as_json:
        _print_json({"waiting": [{"code": code, "run": run, "job": m.job, "author": m.author} for code, run, m in found]})
    elif found:
        shown.table(["code", "job", "author", "run"], [[code, m.job, m.author, run] for code, run, m in found])
    else:
        typer.echo("nothing waits", err=True)


@site.command("approve", epilog="Example: hansa site approve kits/north")
def site_approve(
    kit: KitFolder,
    code: Annotated[str, typer.Argument(help="The hash, or its beginning; left out if one alone waits.")] = "",
    *,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask again.")] = False,
    as_json: Json = False,
) -> None:
    """Let code run here, after you have read what is new in it: it is shown against what you approved last of the same job."""
    from hansa.runtime.client.approvals import changes, say

    places = _places(kit)
    what = _waiting(kit, code)
    _show_code(what, list(changes(places, what)))
    if not yes and not typer.confirm("Let it run at this site?", err=True):
        raise typer.Exit(3)
    told = say(places, what, "yes")
    if as_json:
        _print_json({"code": told.code, "verdict": told.verdict, "by": told.by})
    else:
        typer.echo(f"approved {told.code} by {told.by}")


@site.command("reject", epilog='Example: hansa site reject kits/north 2c26b4 --reason "reads names"')
def site_reject(
    kit: KitFolder, code: str, *, reason: Annotated[str, typer.Option("--reason", help="The author reads it.")]
) -> None:
    """Refuse code that waits; its author reads why."""
    from hansa.runtime.client.approvals import say

    told = say(_places(kit), _waiting(kit, code), "no", reason=reason)
    typer.echo(f"refused {told.code}")


@site.command("policy", epilog="Example: hansa site policy kits/north")
def site_policy(kit: KitFolder, *, as_json: Json = False) -> None:
    """What a site offers and permits, as its site.toml is understood."""
    import msgspec

    from hansa.runtime.config import load_kit, load_site

    content = msgspec.to_builtins(load_site(load_kit(kit)))
    if as_json:
        _print_json(content)
    else:
        typer.echo(msgspec.json.format(msgspec.json.encode(content), indent=2).decode())


def up(
    *,
    folder: Annotated[Path, typer.Option("--dir", help="The federation's folder: new, or one that `up` made.")],
    sites: Annotated[int | None, typer.Option("--sites", min=1, help="How many sites; 4 unless the data say otherwise.")] = None,
    data: Annotated[
        str | None, typer.Option("--data", help="file.py:name, or label=file.py:name: federated data; each site gets its share.")
    ] = None,
    job: Annotated[str | None, typer.Option("--job", help="Run this job, download its results, and stop.")] = None,
    seed: Seed = None,
    port: Annotated[int, typer.Option("--port", min=0, max=65_535, help="Where the server listens; 0: a free port.")] = 0,
    log_format: LogFormat = "text",
    as_json: Json = False,
) -> None:
    """Start a whole federation on this machine: real processes, real TLS. Ctrl-C stops it.

    Example: hansa up --sites 4 --dir fed --job hospitals.py:job
    """
    import os

    os.environ.update(_ONE_THREAD)  # before numpy is loaded: its threads would be forked

    from hansa.admin import shown
    from hansa.admin.here.up import Asked, run, serve

    asked = Asked(folder, job, data, os.environ.get("HANSA_DATA"), sites=sites, port=port, seed=seed)

    def ready(local: Any, seconds: float) -> None:
        shown.ready(local, seconds, job=job, as_json=as_json)

    if job is None:
        try:
            ended = serve(asked, _parts(log_format), os.environ, ready)
        except KeyboardInterrupt:
            typer.echo("stopped", err=True)
            return
        raise ended.failure()
    status, out = run(asked, job, _parts(log_format), os.environ, ready)
    shown.ran(status, out, as_json=as_json)
    _exit_as(status)


def preflight(kit: Annotated[Path, typer.Argument(help="The folder of a kit.")], *, as_json: Json = False) -> None:
    """Look for what would keep a site, a person or a server from working; each fault has its mend and its exit code, 10 to 19.

    Example: hansa preflight kits/north
    """
    from hansa.admin.here.preflight import look

    found = list(look(kit))
    first = next((check.code for check in found if not check.good), 0)
    if as_json:
        checks = [
            {"name": each.name, "ok": each.good, "code": each.code, "detail": each.detail, "hint": each.hint} for each in found
        ]
        _print_json({"ok": first == 0, "exit_code": first, "checks": checks})
    else:
        for each in found:
            typer.echo(f"{'ok  ' if each.good else 'FAIL'}  {each.name:<12} {each.detail}")
            if each.hint:
                typer.echo(f"{'':<18} -> {each.hint}")
    if first:
        raise typer.Exit(first)


def _places(kit: Path) -> Any:
    """Where the agent of the kit keeps what."""
    from hansa.runtime.client.places import Places
    from hansa.runtime.config import load_kit

    return Places(load_kit(kit))


def _waiting(kit: Path, code: str) -> Any:
    """The code that waits and whose hash begins so.

    Raises:
        InputError: there is none, or several.
    """
    from hansa.errors import InputError
    from hansa.runtime.client.approvals import waiting

    found = [each for each in waiting(_places(kit)) if each.code.startswith(code)]
    if len(found) != 1:
        got = ", ".join(each.code[:12] for each in found) or "none"
        raise InputError("not one code that waits", got=got, hint=f"see `hansa site approvals {kit}`")
    return found[0]


def _show_code(what: Any, lines: list[str]) -> None:
    """Who wants what to run, and what is new in it, on stderr, harmless to a terminal."""
    from hansa.runtime.audit.chain import inert

    manifest = what.bundle.manifest
    typer.echo(f"job     {inert(manifest.job)} of {inert(manifest.author)} (run {what.run})\ncode    {what.code}", err=True)
    for line in (*str(what.bundle.plan).splitlines(), "", *(lines or ["nothing is new in it"])):
        colour = {"+": typer.colors.GREEN, "-": typer.colors.RED}.get(line[:1])
        typer.secho(inert(line), err=True, fg=colour)


def _say_ready(url: str) -> None:
    import sys

    sys.stdout.write(f"ready {url}\n")
    sys.stdout.flush()


def _parts(log_format: Literal["text", "json"]) -> Parts:
    """What a server and a site do, loaded so that their processes need not, and how they write their logs."""
    import os

    from hansa.admin.here.processes import Parts
    from hansa.runtime.client import __main__ as client

    def server(kit: Path) -> int:
        from hansa.runtime.logs import configure
        from hansa.runtime.server.main import serve

        configure(log_format, level="warning")
        serve(kit, environment=os.environ, ready=_say_ready)
        return 0

    def load() -> None:
        import hansa.runtime.logs
        import hansa.runtime.server.main  # noqa: F401

    return Parts(server, lambda kit: client.main([str(kit)], log_format), load)


def _exit_as(status: Status) -> None:
    """End with the code of the run's state."""
    code = {"completed": 0, "refused": 3}.get(status.state, 1)
    if code:
        raise typer.Exit(code)


def _print_json(content: dict[str, Any]) -> None:
    import msgspec

    typer.echo(msgspec.json.encode(content).decode())
