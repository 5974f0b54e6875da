"""Start-up kits: a folder a party, and the same as an AES zip with its own password."""

from __future__ import annotations

import functools
import hashlib
import json
import secrets
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from hansa.errors import InputError, RefusedError
from hansa.files import storage_error, write_atomic
from hansa.provision import ca
from hansa.provision.project import Project
from hansa.provision.state import Certificate
from hansa.runtime import config
from hansa.runtime.authz.certificates import key_pem, pem
from hansa.runtime.authz.enrolment import Ticket, Tickets, new_ticket
from hansa.runtime.authz.policy import Member, Policy
from hansa.runtime.authz.renewal import RENEWED, write_secret
from hansa.runtime.authz.signed import seal

_ALPHABET: Final = "abcdefghjkmnpqrstuvwxyz23456789"  # nothing that is read for something else
_UNPACKED_LIMIT: Final = 4 * 1024 * 1024
_ENROLMENT: Final = (config.BOOTSTRAP_FILE, config.BOOTSTRAP_KEY_FILE, config.TOKEN_FILE)
_IDENTITY: Final = (config.CERTIFICATE_FILE, config.KEY_FILE)

SITE_TOML: Final = """\
# What this site offers and permits. Yours to edit; nobody else's program changes it.
sandbox = "basic"               # strict | basic | off
# proxy = "http://proxy.example.org:3128"   # else HTTPS_PROXY; "none": no proxy. NAME:PASSWORD go into the file proxy.login

[data]                          # label = "file.py:function", beside this file; the function returns the site's rows
# patients = "data.py:load"
# scans = "/srv/scans"          # or a file or folder, for jobs whose own scripts read it

[environments]                  # label = a virtual environment that jobs may ask for by that label
# torch = "/opt/hansa/torch"

[resources]                     # what is leased to runs; 0: all cores, bound to none; no GPUs; no limit of memory
cores = 0
gpus = 0
memory_mb = 0

# Closed until you say whose work may run: without authors (or orgs) and code, every job is refused.
[policy]
# authors = ["alice"]           # or "any": every author of the project
# orgs = ["Example University"]
# code = ["<SHA-256>"]          # hashes of code that you have read: hansa job show --hash; or "any"
min_cohort = 2                  # rounds of fewer sites are refused
max_upload_mb = 4096
kinds = ["arrays", "metrics"]   # what may leave; "logs" too, if authors may read the lines that their code prints here
# hours = "22:00-06:00"         # local time
# filters = [{kind = "clip", norm = 1.0}]   # put on all that leaves, by this site; {kind = "exclude", paths = ["*/head/*"]}
approval = "auto"               # by_hand: a person here says yes to every job
traceback = false               # whether authors see where their code failed here
models = true                   # whether this site wants the models of runs that it took part in
local_models = false            # whether this site's own model may be asked for, and so reach the other sites of a run
"""


@dataclass(frozen=True, slots=True)
class Made:
    """A kit that was written. The password is nowhere else."""

    name: str
    kind: str
    folder: Path
    zip: Path | None = None
    password: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Content:
    """A kit's files by name, and what provisioning is to remember of it."""

    files: Mapping[str, bytes] = field(repr=False)
    certificates: tuple[Certificate, ...]
    ticket: Ticket | None = None


def compose(
    member: Member,
    project: Project,
    keys: ca.Secrets,
    policy: Policy,
    *,
    now: float,
    central_keys: bool = False,
    tickets: tuple[Ticket, ...] = (),
    note: str = "",
) -> Content:
    """The files of a member's kit, with new keys; a site's own key only with `central_keys`. `tickets` are for the server.

    note: comments at the end of a site's site.toml.
    """
    files = {
        config.KIT_FILE: _kit_toml(member, project),
        config.CA_FILE: pem(keys.root.certificate),
        config.PROJECT_KEY_FILE: keys.project_public.hex().encode() + b"\n",
    }
    if project.server.front_ca is not None:
        files[config.FRONT_CA_FILE] = project.server.front_ca.encode()
    later: dict[str, bytes] = {config.POLICY_FILE: seal(policy, keys.project_key)}  # what a manifest cannot hold
    ticket = None
    at_site = member.kind == "site" and not central_keys
    hosts = project.hosts if member.kind == "server" else ()
    issued = ca.issue(keys, member, project.name, now=now, bootstrap=at_site, hosts=hosts)
    if at_site:
        token, ticket = new_ticket(member.name, generation=member.generation, now=now)
        later |= dict(zip(_ENROLMENT, (issued.certificate, issued.key, token.encode() + b"\n"), strict=True))
    else:
        later |= dict(zip(_IDENTITY, (issued.certificate, issued.key), strict=True))
    if member.kind == "site":
        later[config.SITE_FILE] = (SITE_TOML + note).encode()
    if member.kind == "server":
        authority = ca.site_authority(keys, project.name, now=now)
        later[config.SITE_CA_FILE] = pem(authority.certificate)
        later[config.SITE_CA_KEY_FILE] = key_pem(authority.key)
        later[config.TICKETS_FILE] = seal(Tickets(tickets=tickets), keys.project_key)
    manifest = config.Manifest(files={name: hashlib.sha256(content).hexdigest() for name, content in files.items()})
    later[config.MANIFEST_FILE] = seal(manifest, keys.project_key)  # written last: a kit that was cut off is seen to be
    kind = "bootstrap" if at_site else member.kind
    made = Certificate(serial=issued.serial, name=member.name, kind=kind, generation=member.generation, until=issued.until)
    return Content(files | later, (made,), ticket)


def write(folder: Path, content: Content) -> None:
    """Write a kit's files into its folder. What its owner has put there (site.toml, data) stays; old keys go."""
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        for name in (*_ENROLMENT, *_IDENTITY, RENEWED):
            if name not in content.files:
                (folder / name).unlink(missing_ok=True)
    except OSError as error:
        raise storage_error(error, folder) from error
    for name, data in content.files.items():
        if name == config.SITE_FILE and (folder / name).exists():
            continue
        if name in config.SECRET_FILES:
            write_secret(folder / name, data)
        else:
            write_atomic(folder / name, [data])


def pack(path: Path, name: str, content: Content) -> str:
    """Write the kit as an AES-256 zip and return its password, 100 random bits. The files stand in a folder of the kit's name."""
    import pyzipper  # here, as below: it takes a tenth of a second to load, and `hansa up` packs nothing

    password = "-".join("".join(secrets.choice(_ALPHABET) for _ in range(5)) for _ in range(4))
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    part = path.with_suffix(".part")
    try:
        with pyzipper.AESZipFile(part, "w", compression=pyzipper.ZIP_DEFLATED, encryption=pyzipper.WZ_AES) as archive:
            archive.setpassword(password.encode())
            archive.setencryption(pyzipper.WZ_AES, nbits=256)
            for file, data in content.files.items():
                archive.writestr(f"{name}/{file}", data)  # mode 600
        part.replace(path)
    except OSError as error:
        raise storage_error(error, path) from error
    return password


def unpack(path: Path, out: Path, *, password: str) -> Path:
    """The kit's folder, made below `out` from its zip; secrets can be read by their owner only.

    Raises:
        InputError: no zip; the folder is there already. RefusedError: the password is wrong, or an entry would land elsewhere.
    """
    name, files = _opened(path, password)
    folder = out / name
    if folder.exists():
        hint = "--into replaces the kit that stands there, and leaves what is yours in it; or --out another folder"
        raise InputError("the folder is there already", path=str(folder), hint=hint)
    write(folder, Content(files, ()))
    return folder


def replace(path: Path, folder: Path, *, password: str) -> Path:
    """The folder of a kit of before, with the files of the zip: for a certificate that has ended or was revoked.

    What its owner put there stays: site.toml, loaders, `state`. Cut off, it may be repeated.

    Raises:
        InputError: no zip, or no kit in the folder. RefusedError: the password is wrong; another project's, or another party's kit.
    """
    _, files = _opened(path, password)
    facts = {"project": config.PROJECT_KEY_FILE, "name": config.KIT_FILE}
    try:
        old = {fact: (folder / file).read_bytes() for fact, file in facts.items()}
    except FileNotFoundError as error:
        raise InputError("no start-up kit", path=str(folder), hint="name the folder that holds kit.toml") from error
    except OSError as error:
        raise storage_error(error, folder) from error
    if old["project"] != files.get(config.PROJECT_KEY_FILE):
        raise RefusedError("the kits are of two projects", path=str(folder), hint="unpack the new one with --out")
    if _named(old["name"]) != _named(files.get(config.KIT_FILE, b"")):
        got = "{} for {}".format(_named(files.get(config.KIT_FILE, b"")), _named(old["name"]))
        raise RefusedError("the kits are of two parties", path=str(folder), got=got, hint="unpack the new one with --out")
    write(folder, Content(files, ()))
    return folder


def _named(kit: bytes) -> str:
    try:
        content = tomllib.loads(kit.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"kit.toml cannot be read: {error}", hint="unpack the kit anew") from error
    return f"{content.get('kind')} {content.get('name')}"


def _opened(path: Path, password: str) -> tuple[str, dict[str, bytes]]:
    """The name of the kit in a zip, and its files."""
    import pyzipper

    try:
        with pyzipper.AESZipFile(path) as archive:
            archive.setpassword(password.encode())
            entries = archive.infolist()
            names = [_check_entry(entry.filename, path) for entry in entries]
            if len({folder for folder, _ in names}) != 1:
                raise InputError("not a kit", path=str(path), expected="one folder with files")
            if len(names) > 100 or sum(entry.file_size for entry in entries) > _UNPACKED_LIMIT:
                raise RefusedError("the archive is too large for a kit", path=str(path))
            files = {file: archive.read(entry) for (_, file), entry in zip(names, entries, strict=True)}
    except FileNotFoundError as error:
        raise InputError("no such file", path=str(path), expected="a kit's zip") from error
    except OSError as error:
        raise storage_error(error, path) from error
    except pyzipper.BadZipFile as error:
        raise InputError(f"not a kit: {error}", path=str(path), hint="a damaged download? fetch it again") from error
    except RuntimeError as error:  # the library's word for a wrong password
        raise RefusedError("the password does not open the kit", path=str(path), hint="passwords are case-sensitive") from error
    return names[0][0], files


def write_public(folder: Path, policy: Policy, tickets: tuple[Ticket, ...], keys: ca.Secrets) -> None:
    """Give the server's kit the newest policy and tickets; a server that runs picks them up."""
    write_atomic(folder / config.TICKETS_FILE, [seal(Tickets(tickets=tickets), keys.project_key)])
    write_atomic(folder / config.POLICY_FILE, [seal(policy, keys.project_key)])


def _check_entry(name: str, path: Path) -> tuple[str, str]:
    folder, _, file = name.partition("/")
    if not folder or not file or "/" in file or "\\" in name or "\0" in name or {folder, file} & {".", ".."}:
        hint = "this is not a kit as provisioning writes them; nothing was unpacked"
        raise RefusedError("an entry of the archive would land outside the kit", path=str(path), got=repr(name[:100]), hint=hint)
    return folder, file


def _kit_toml(member: Member, project: Project) -> bytes:
    text = functools.partial(json.dumps, ensure_ascii=False)  # of printable text, a JSON string is a TOML string
    lines = [f"kind = {text(member.kind)}", f"name = {text(member.name)}", f"org = {text(member.org)}"]
    lines += [f"role = {text(member.role)}"] if member.role else []
    server = project.server
    trust = "front" if server.front_ca is not None else server.trust
    lines += [f"project = {text(project.name)}", f"url = {text(project.url)}", f"direct = {text(server.direct)}"]
    lines += [f"trust = {text(trust)}"]
    if member.kind == "server":
        port = server.port if server.listen_port is None else server.listen_port
        lines += [
            "",
            "[server]",
            f"host = {text(server.listen)}",
            f"port = {port}",
            'data = "data"',
            f"tls = {text(server.listen_tls)}",
            f"sandbox = {text(server.sandbox)}",
            f"low_water = {server.low_water}",
            f"run_memory_mb = {server.run_memory_mb}",
            f"run_file_mb = {server.run_file_mb}",
            f"metrics_port = {server.metrics_port}",
        ]
    return ("\n".join(lines) + "\n").encode()
