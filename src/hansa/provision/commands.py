"""`hansa provision`: start-up kits for everybody, and who belongs to the project."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

if TYPE_CHECKING:
    from hansa.provision.changes import Done


class _Provision(TyperGroup):
    """A group whose first argument may be a project file: `hansa provision project.toml` is `hansa provision new project.toml`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """The arguments, with the command that is meant when none is named."""
        named = args and (args[0] in self.commands or args[0] == "--help")
        return super().parse_args(ctx, args if named or not args else ["new", *args])


class RoleName(StrEnum):
    """What a person may do."""

    project_admin = "project_admin"
    org_admin = "org_admin"
    lead = "lead"
    member = "member"
    auditor = "auditor"


app = typer.Typer(cls=_Provision, no_args_is_help=True, help="Start-up kits and the roster: hansa provision project.toml --out DIR")

Folder = Annotated[Path, typer.Option("--dir", help="The provisioning folder.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")]
Central = Annotated[bool, typer.Option("--central-keys", help="Make the site's key here, instead of at the site.")]
Org = Annotated[str, typer.Option("--org", help="An organisation of the project.")]


@app.command("new", epilog="Example: hansa provision project.toml --out fed")
def new(
    project: Annotated[Path, typer.Argument(help="The project file; a project.yml of Clara Train or FLARE is read too.")],
    *,
    out: Annotated[Path | None, typer.Option("--out", help="The provisioning folder: new, or one to bring up to date.")] = None,
    check: Annotated[bool, typer.Option("--check", help="Only say what would be, and write nothing.")] = False,
    authz: Annotated[
        Path | None, typer.Option("--authz", help="Of a project.yml: its authz_config.json, if it is not beside it.")
    ] = None,
    role: Annotated[list[str] | None, typer.Option("--role", help="Of a project.yml: NAME=ROLE, a person's role here.")] = None,
    central_keys: Central = False,
    as_json: Json = False,
) -> None:
    """Make kits for all in the project file who have none yet. Also meant when no command is named."""
    import time

    from hansa.provision import report
    from hansa.provision.changes import provision
    from hansa.provision.project import check as check_project

    found = report.read(project, authz=authz, roles=role or [])
    if out is None and not check:
        raise typer.BadParameter("--out DIR says where the kits go; --check only looks at the file")
    if check or out is None:
        report.tell(found, as_json=as_json)
        check_project(found.project)
        return
    check_project(found.project)
    done = provision(found.project, out, now=time.time(), central_keys=central_keys, notes=found.notes)
    report.keep(found, out)
    if not as_json:
        report.tell_open(found, out)
    _tell(done, as_json=as_json, more={"keys": report.rows(found)} if found.lines else {})


@app.command("add-site", epilog='Example: hansa provision add-site west --org "Western Hospital" --dir fed')
def add_site(name: str, *, org: Org, folder: Folder = Path(), central_keys: Central = False, as_json: Json = False) -> None:
    """A kit for a new site."""
    import time

    from hansa.provision import changes

    _tell(changes.add_site(folder, name, org=org, now=time.time(), central_keys=central_keys), as_json=as_json)


@app.command("add-user", epilog='Example: hansa provision add-user bob --org "Example University" --role lead --dir fed')
def add_user(
    name: str,
    *,
    org: Org,
    role: Annotated[RoleName, typer.Option("--role", help="What the person may do.")],
    folder: Folder = Path(),
    as_json: Json = False,
) -> None:
    """A kit for a person; a person who has one gets the role."""
    import time

    from hansa.provision import changes

    _tell(changes.add_user(folder, name, org=org, role=role.value, now=time.time()), as_json=as_json)


@app.command("revoke", epilog='Example: hansa provision revoke west --reason "left the project" --dir fed')
def revoke(
    name: Annotated[str, typer.Argument(help="A site or person; or give --serial.")] = "",
    *,
    serial: Annotated[str, typer.Option("--serial", help="One certificate, by its number.")] = "",
    reason: Annotated[str, typer.Option("--reason", help="Said to who is refused.")] = "",
    folder: Folder = Path(),
    as_json: Json = False,
) -> None:
    """Shut a site or person out, for good; a running server cuts them within seconds."""
    import time

    from hansa.errors import InputError
    from hansa.provision import changes

    if bool(name) == bool(serial):
        raise InputError("name who is to be revoked, or give one --serial", hint="hansa provision revoke NAME --dir DIR")
    _tell(changes.revoke(folder, name=name, serial=serial, reason=reason, now=time.time()), as_json=as_json)


@app.command("rotate", epilog="Example: hansa provision rotate west --dir fed")
def rotate(
    name: Annotated[str, typer.Argument(help="A site, a person, or server.")],
    *,
    folder: Folder = Path(),
    central_keys: Central = False,
    as_json: Json = False,
) -> None:
    """A new kit with new keys; the old ones are revoked."""
    import time

    from hansa.provision import changes

    _tell(changes.rotate(folder, name, now=time.time(), central_keys=central_keys), as_json=as_json)


@app.command("renew", epilog="Example: hansa provision renew --dir fed")
def renew(
    names: Annotated[list[str] | None, typer.Argument(help="server, or people; else those of which two thirds are over.")] = None,
    *,
    every: Annotated[bool, typer.Option("--all", help="Every one, due or not.")] = False,
    folder: Folder = Path(),
    as_json: Json = False,
) -> None:
    """Renew the server's and people's certificates, whose keys stay; sites renew theirs themselves. Made for a timer."""
    import time

    from hansa.provision import report
    from hansa.provision.renewals import renew as renew_certificates

    now = time.time()
    report.tell_renewed(renew_certificates(folder, now=now, names=names or [], every=every), now=now, as_json=as_json)


@app.command("unpack", epilog="Example: hansa provision unpack west.zip --out /srv/hansa")
def unpack(
    kit: Annotated[Path, typer.Argument(help="A kit's zip.")],
    *,
    out: Annotated[Path, typer.Option("--out", help="The folder to make the kit's folder in.")] = Path(),
    into: Annotated[Path | None, typer.Option("--into", help="A kit of before: replaced, but for what is yours.")] = None,
    as_json: Json = False,
) -> None:
    """Open a kit's zip with its one-time password, asked for, or read from a pipe; any program that knows AES zips does as well."""
    import sys

    from hansa.provision import kits

    password = typer.prompt("Password", hide_input=True, err=True) if sys.stdin.isatty() else sys.stdin.readline().strip()
    folder = kits.unpack(kit, out, password=password) if into is None else kits.replace(kit, into, password=password)
    if as_json:
        _print_json({"folder": str(folder)})
    else:
        typer.echo(f"{folder}")


def _tell(done: Done, *, as_json: bool, more: dict[str, Any] | None = None) -> None:
    if as_json:
        made = [
            {
                "name": kit.name,
                "kind": kit.kind,
                "folder": str(kit.folder),
                "zip": None if kit.zip is None else str(kit.zip),
                "password": kit.password,
            }
            for kit in done.kits
        ]
        facts = {"project": done.project, "dir": str(done.folder), "version": done.version, "changed": done.changed}
        _print_json({**facts, "fingerprint": done.fingerprint, "kits": made, **(more or {})})
        return
    for kit in done.kits:
        typer.echo(f"{kit.kind:<7} {kit.name:<20} {kit.zip}   password {kit.password}")
    if done.kits:
        typer.echo("\nSend a zip and its password by different ways; passwords are shown this once.")
        typer.echo(f"Project key, to compare on the telephone:\n  {done.fingerprint}")
    policy = done.folder / "kits" / "server" / "policy.json"
    if done.changed:
        typer.echo(
            f"Policy version {done.version}: {policy} (where the server runs elsewhere, copy it, and tickets.json, into its kit)"
        )
    else:
        typer.echo(f"Nothing to do: policy version {done.version} says so already.")


def _print_json(content: dict[str, Any]) -> None:
    import msgspec

    typer.echo(msgspec.json.encode(content).decode())
