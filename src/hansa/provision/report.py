"""What is said of a project file: ours in a line, another system's key by key."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, get_args

import msgspec
import typer

from hansa.errors import ConfigError, InputError
from hansa.files import write_atomic
from hansa.provision.foreign.keys import Line
from hansa.provision.foreign.migrate import SUFFIXES, migrate
from hansa.provision.project import Project, read_project, to_toml
from hansa.provision.renewals import Paper
from hansa.runtime.authz.policy import Role

_FATES: Final = {"became": "=", "not used": "-", "decide": "?", "unknown": "!"}


@dataclass(frozen=True)
class Found:
    """A project file. Of another system's: which, what became of each key, and comments for sites' own policies."""

    path: Path
    project: Project
    kind: str = ""
    lines: tuple[Line, ...] = ()
    notes: Mapping[str, str] = field(default_factory=dict)

    def count(self, *fates: str) -> int:
        """How many keys had one of these fates."""
        return sum(line.fate in fates for line in self.lines)


def read(path: Path, *, authz: Path | None, roles: Sequence[str]) -> Found:
    """The project in the file: ours, or one of Clara Train or FLARE by its suffix. roles: NAME=ROLE, for theirs.

    Raises:
        ConfigError: it cannot be read; says where. InputError: an option is wrong, or of no use with our own file.
    """
    if path.suffix.lower() not in SUFFIXES:
        if authz is not None or roles:
            raise InputError("--authz and --role are for a project.yml", path=str(path), hint="write roles into project.toml")
        return Found(path, read_project(path))
    made = migrate(path, authz=authz, roles=dict(map(_role, roles)))
    return Found(path, made.project, made.kind, made.lines, made.notes)


def keep(found: Found, out: Path) -> None:
    """Write the project as our own file into the provisioning folder, unless one is there: from now on it is edited."""
    path = out / "project.toml"
    if found.kind and not path.exists():
        head = f"# Made of {found.path.name} of {found.kind} by `hansa provision`. From now on, this is the file to edit.\n"
        write_atomic(path, [(head + to_toml(found.project)).encode()])


def tell(found: Found, *, as_json: bool) -> None:
    """Print what became of each key, and what the project would be."""
    if as_json:
        facts = {"project": msgspec.to_builtins(found.project), "read_as": found.kind or "Hansa", "keys": rows(found)}
        typer.echo(msgspec.json.encode({**facts, "site_notes": found.notes}).decode())
        return
    if found.lines:
        _table(found.lines)
        told = [
            f"{found.count(fate)} {word}" for fate, word in (("became", "mapped"), ("not used", "not used")) if found.count(fate)
        ]
        told += [f"{found.count('decide')} to be decided"] * bool(found.count("decide"))
        told += [f"{found.count('unknown')} unknown"] * bool(found.count("unknown"))
        typer.echo(f"\n{found.kind}: {', '.join(told)}. As our own file:\n\n{to_toml(found.project)}")
    project = found.project
    typer.echo(f"{project.url}: {len(project.sites)} sites, {len(project.people)} people. Nothing was written.")


def tell_open(found: Found, out: Path) -> None:
    """Print what a person has to look at after a project of another system was taken over."""
    if not found.lines:
        return
    _table([line for line in found.lines if line.fate != "became"])
    typer.echo(f"\n{found.count('became')} keys are mapped; above is the rest. Edit {out}/project.toml from now on.\n")


def rows(found: Found) -> list[dict[str, Any]]:
    """What became of each key, for JSON."""
    return [{"file": line.file, "key": line.key, "value": line.value, "fate": line.fate, "text": line.text} for line in found.lines]


def tell_renewed(papers: Sequence[Paper], *, now: float, as_json: bool) -> None:
    """Print until when certificates are good, which are new, and where those have to go."""
    if as_json:
        told = [
            {"name": each.name, "what": each.what, "until": each.until, "renewed": each.renewed, "due": each.due} for each in papers
        ]
        typer.echo(msgspec.json.encode({"certificates": told}).decode())
        return
    for each in papers:
        state = "renewed" if each.renewed else "DUE" if each.due else ""
        until = datetime.fromtimestamp(each.until, UTC)
        left = f"{(each.until - now) / 86_400:.0f} days left" if each.until > now else "has ended"
        typer.echo(f"{each.name or 'project':<20} {each.what:<12} {until:%Y-%m-%d}  {left:<16} {state}".rstrip())
    new = [each.file for each in papers if each.renewed and each.file is not None]
    if new:
        typer.echo("\nCopy these (no secrets) into kits that are in use elsewhere; a running server takes its own in at once:")
        for file in new:
            typer.echo(f"  {file}")
    for each in papers:
        if each.due and each.what == "project CA":
            typer.echo("\nA project's CA is not renewed: provision a new folder, with new kits for everybody, before it ends.")
        elif each.due and each.file is None:
            typer.echo(f"\nThe kit of {each.name} is not in this folder: hansa provision rotate {each.name}")


def _table(lines: Sequence[Line]) -> None:
    """The keys, file by file: `=` became, `-` not used, `?` to be decided, `!` unknown."""
    for file in dict.fromkeys(line.file for line in lines):
        own = [line for line in lines if line.file == file]
        typer.echo(f"{file}    (= became, - not used, ? look at it, ! unknown)")
        wide = min(46, max(len(line.key) for line in own))
        for line in own:
            value = line.value if len(line.value) <= 20 else f"{line.value[:17]}..."
            typer.echo(f"  {_FATES[line.fate]} {line.key:<{wide}}  {value:<20}  {line.text}".rstrip())


def _role(text: str) -> tuple[str, Role]:
    name, equals, role = text.rpartition("=")
    known: tuple[Role, ...] = get_args(Role)
    for each in known:
        if role == each and equals and name:
            return name, each
    raise ConfigError("not a person's role", path="--role", got=repr(text), expected=f"NAME=ROLE, of {', '.join(known)}")
