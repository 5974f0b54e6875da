"""What an admin session shows: the state of server and sites, and files of a run."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

from hansa.admin.answers import RunEvent, Status
from hansa.admin.client import Run
from hansa.compat.flare.admin.said import Said, harmless, said, table
from hansa.compat.flare.admin.verbs import Verbs, word_of
from hansa.errors import InputError, RefusedError

LOG: Final = "log.txt"  # what happened in a run, as a file
MOST: Final = 16 << 20  # bytes of a file that is shown
_SERVER: Final = {"pending": "training starting", "running": "training started", "paused": "training paused"}


def check_server(verbs: Verbs) -> Said:
    """The run, and a table of all sites: their tokens' thumbprints and what they contributed."""
    run, sites = verbs.run(), verbs.session.sites()
    status = None if run is None else run.status()
    number = "FL run number has not been set." if verbs.number is None else f"FL run number:{verbs.number}"
    word = "training not started" if status is None else _SERVER.get(status.state, f"training stopped ({status.state})")
    lines = [number, f"FL server status: {word}"]
    counted: Counter[str] = Counter()
    last: dict[str, int] = {}
    if run is not None and status is not None:
        counted, last, submitted = _contributions(run)
        lines += [f"run: {run.id}", f"current round:{status.round}\tmax round:{status.rounds}\tmin_num_clients:{status.min_sites}"]
        lines += [f"reason: {status.reason}"] if status.reason else []
        lines += [f"waits for {line}" for line in status.waits]
        lines += [f"Total number of clients submitted models for current round: {submitted}"]
    lines.append(f"Registered clients: {len(sites)}")
    head = ["CLIENT NAME", "TOKEN", "STATE", "LAST ACCEPTED ROUND", "CONTRIBUTION COUNT"]
    rows = [[site.site, site.key[:16], _presence(site), last.get(site.site, ""), counted[site.site]] for site in sites]
    connected = [site.site for site in sites if site.online]
    details: dict[str, Any] = {"server_engine_status": _engine(status), "status_table": [head, *rows]}
    details |= {"registered_clients": len(sites), "connected_clients": connected, "run_number": verbs.number}
    return Said([*said(*lines).lines, *table(head, rows)], {**details, "run": None if run is None else run.id})


def check_client(verbs: Verbs, names: Sequence[str]) -> Said:
    """A line for each site: its token's thumbprint, and what it is at."""
    run, sites = verbs.run(), verbs.sites(names) if names else verbs.session.sites()
    status = None if run is None else run.status()
    lines, states = [], {}
    for site in sites:
        state = "training not started" if status is None or site.site not in status.sites else word_of(status, site.site)
        working = status.working.get(site.site) if status is not None else None
        more = f"\tat {working}" if working is not None else ""
        more += "" if site.online else "\tnot connected"
        lines.append(f"instance:{site.site} : client name: {site.site}\ttoken: {site.key[:16]}\tstatus: {state}{more}")
        states[site.site] = state
    return said(*lines, client_status=states)


def stats(verbs: Verbs) -> Said:
    """The numbers of the run's last round."""
    status = verbs.needed_run().status()
    rows = [[name, value] for name, value in sorted(status.metrics.items())]
    return Said(table(["METRIC", "VALUE"], rows), {"round": status.round, **status.metrics})


def errors(verbs: Verbs, names: Sequence[str] = ()) -> Said:
    """What went wrong in the run: refusals, lost sites, what a site's code raised where its policy lets that out."""
    found = []
    for event in verbs.needed_run().events(follow=False, live=False):
        lines = _lines(event)
        wrong = event.kind in ("site.refused", "task.lost", "run.crashed") or len(lines) > 1 or event.data.get("code")
        if wrong and (not names or event.data.get("site") in names):
            found += lines
    return said(*(found or ["No errors."]), errors=found)


def ls(verbs: Verbs, target: str, site: str, options: str = "") -> Said:
    """The files of the run's folder, at the server; at a site, what of it is let out."""
    if target == "client":
        _let_out(verbs, site)
        return said(LOG, files=[LOG])
    found = verbs.needed_run().files()
    ordered = sorted(found, key=lambda file: -file.bytes) if "S" in options else found
    names = [*(file.path for file in ordered), LOG]
    return said(*(f"{file.bytes:>12,}  {file.path}" for file in ordered), f"{'events':>12}  {LOG}", files=names)


def text(verbs: Verbs, target: str, site: str, path: str) -> list[str]:
    """The lines of a file: of the run's folder at the server, or the log that a site lets out.

    Raises:
        InputError: there is no such file, or it is no text. RefusedError: it is a site's own.
    """
    if target == "client":
        if path != LOG:
            raise RefusedError(
                "a site's files are its own: none is read from afar", site=site, path=path, hint=f"tail client {site} {LOG}"
            )
        return _let_out(verbs, site)
    run = verbs.needed_run()
    if path == LOG:
        return [line for event in run.events(follow=False) for line in _lines(event)]
    try:
        return [harmless(line) for line in run.read(path, limit=MOST).decode().splitlines()]
    except UnicodeDecodeError:
        hint = f"hansa job download {run.id}"
        raise InputError("not a text file", run=run.id, path=path, hint=hint) from None


def matching(lines: Sequence[str], pattern: str, options: str) -> list[str]:
    """The lines in which the pattern is found: `i` in any case, `n` with their numbers, `v` those without it, `c` how many.

    Raises:
        InputError: it is no pattern.
    """
    try:
        wanted = re.compile(pattern, re.IGNORECASE if "i" in options else 0)
    except re.error as error:
        raise InputError(f"not a pattern: {error}", got=pattern) from None
    found = [(number, line) for number, line in enumerate(lines, 1) if bool(wanted.search(line)) != ("v" in options)]
    if "c" in options:
        return [str(len(found))]
    return [f"{number}:{line}" if "n" in options else line for number, line in found]


def _let_out(verbs: Verbs, site: str) -> list[str]:
    """The log lines of a site that its policy lets out."""
    verbs.session.site(site)
    events = verbs.needed_run().events(follow=False)
    lines = [line for event in events if event.kind == "log" and event.data.get("site") == site for line in _lines(event)]
    if not lines:
        hint = 'its log lines come where its policy says kinds = [..., "logs"], and the run is yours'
        raise RefusedError("the site lets nothing of its files out", site=site, hint=hint)
    return lines


def _lines(event: RunEvent) -> list[str]:
    lines = [str(event)]
    for raised in event.record.get("raised", []):
        lines.append(f"{raised.get('site')}: {raised.get('message')}")
        lines += [f"    {line}" for line in str(raised.get("trace", "")).splitlines()]
    return [harmless(line) for line in lines]


def _contributions(run: Run) -> tuple[Counter[str], dict[str, int], int]:
    """For each site how many rounds hold its part, and the last of them; and how many answers the present task has."""
    counted: Counter[str] = Counter()
    last: dict[str, int] = {}
    answered: set[str] = set()
    for event in run.events(follow=False, live=False):
        if event.kind == "task.opened":
            answered = set()
        elif event.kind == "result" and not event.data.get("code"):
            answered.add(str(event.data.get("site")))
        elif event.kind == "round":
            refused = {str(each.get("site")) for each in event.record.get("refused", [])}
            for site in set(event.record.get("sites", {})) - refused:
                counted[site] += 1
                last[site] = int(event.record.get("round", 0))
    return counted, last, len(answered)


def _presence(site: Any) -> str:
    return (
        "revoked"
        if site.revoked is not None
        else "removed"
        if site.disabled is not None
        else "online"
        if site.online
        else "offline"
    )


def _engine(status: Status | None) -> str:
    if status is None:
        return "not started"
    return {"pending": "starting", "running": "started", "paused": "started"}.get(status.state, "stopped")
