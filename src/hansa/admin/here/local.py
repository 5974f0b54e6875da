"""A federation's folder on one machine: project, kits, and sites that open their share of the data to every author of it."""

from __future__ import annotations

import json
import socket
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hansa.admin.here import shards
from hansa.core.protocols import FederatedData
from hansa.errors import InputError
from hansa.files import write_atomic
from hansa.provision.changes import provision
from hansa.provision.kits import SITE_TOML
from hansa.provision.project import Organisation, Person, Project, ServerSection, Site, to_toml
from hansa.provision.renewals import renew
from hansa.provision.state import load_roster
from hansa.runtime import sandbox
from hansa.runtime.authz.policy import Rules

SITES: Final = 4
MOST: Final = 100  # sites, unless more are asked for
_NAME, _ORG = "local", "Local"
_OURS: Final = "# written by hansa up"
_HOST: Final = "127.0.0.1"


@dataclass(frozen=True)
class Local:
    """The folder, what is provisioned in it, and its sites in slot order."""

    folder: Path
    url: str
    sites: tuple[str, ...]

    @property
    def kits(self) -> Path:
        """The kits: server, admin, and one for each site."""
        return self.folder / "kits"

    @property
    def logs(self) -> Path:
        """What the processes print, a file each."""
        return self.folder / "logs"

    @property
    def runs(self) -> Path:
        """Where runs are downloaded to."""
        return self.folder / "runs"


@dataclass(frozen=True)
class Source:
    """Where the sites' data come from: references, absolute, as `shards.by_label` takes them, and what they lead to."""

    job: str | None
    data: str | None
    folder: str | None
    sets: Mapping[str, FederatedData]


def source(job: str | None, data: str | None, *, folder: str | None) -> Source:
    """The data of the references as a person gave them."""
    label, equals, reference = (data or "").rpartition("=")
    placed = f"{label}{equals}{_absolute(reference)}" if data else None
    whole, room = (_absolute(job) if job else None), (str(Path(folder).resolve()) if folder else None)
    return Source(whole, placed, room, shards.by_label(whole, placed, folder=room))


def prepare(folder: Path, data: Source, *, sites: int | None, port: int = 0) -> Local:
    """The folder, provisioned: anew, or as it was when the federation was started here before.

    sites: how many (None: as many as the data have, else 4, else those of before). port: where the server listens (0: a free one).

    Raises:
        InputError: the folder holds something else, another number of sites or another port, or the data have fewer sites.
    """
    most, before = shards.count(data.sets), _before(folder)
    total = sites or (len(before.sites) if before else None) or min(most or SITES, MOST)
    if most is not None and most < total:
        raise InputError("the data have fewer sites than asked for", path="--sites", got=total, expected=f"at most {most}")
    if before is not None and len(before.sites) != total:
        hint = "take another --dir, or leave out --sites"
        raise InputError("the folder holds another federation", path=str(folder), got=f"{len(before.sites)} sites", hint=hint)
    if before is not None and port not in (0, before.server.port):
        hint = "its kits name that port: leave out --port, or take another --dir"
        raise InputError("the folder's server has another port", path="--port", got=port, expected=before.server.port, hint=hint)
    project = before or _project(total, port or _free_port())
    provision(project, folder, now=time.time(), central_keys=True, zips=False)
    renew(folder, now=time.time())
    write_atomic(folder / "project.toml", [f"{_OURS}: a federation on this machine alone\n{to_toml(project)}".encode()])
    roster = load_roster(folder / "state")
    names = [site.name for site in project.sites]
    local = Local(folder, project.url, tuple(name for name in names if roster is None or not roster.is_revoked(name)))
    for name in local.sites:
        _furnish(local.kits / name, data, names.index(name))
    return local


def _before(folder: Path) -> Project | None:
    """The project that was provisioned here before."""
    roster = load_roster(folder / "state") if (folder / "state").is_dir() else None
    if roster is not None and roster.project.name != _NAME:
        hint = "start its parts: hansa server start KIT, hansa site start KIT; or --dir another folder"
        raise InputError("the folder holds another federation", path=str(folder), got=f"project {roster.project.name!r}", hint=hint)
    return None if roster is None else roster.project


def _furnish(kit: Path, data: Source, slot: int) -> None:
    """Write a site's site.toml and its loader, unless it has its owner's, or ours and there are no other data to give."""
    path = kit / "site.toml"
    there = path.read_text(encoding="utf-8")
    ours = there.startswith(_OURS)
    if (not ours and there != SITE_TOML) or (ours and not data.sets):
        return
    labels = sorted(data.sets)
    text = shards.loader(data.job, data.data, folder=data.folder, labels=labels, slot=slot)
    write_atomic(kit / "shard.py", [text.encode()])
    write_atomic(path, [_site_toml(labels).encode()])


def _project(sites: int, port: int) -> Project:
    return Project(
        name=_NAME,
        server=ServerSection(host=_HOST, port=port, listen=_HOST, sandbox=_sandbox()),
        organisations=(Organisation(name=_ORG),),
        sites=tuple(Site(name=f"site-{number}", org=_ORG) for number in range(1, sites + 1)),
        people=(Person(name="me", org=_ORG, role="project_admin"),),
        policy=Rules(min_cohort=1),
        central_keys=True,
    )


def _site_toml(labels: Sequence[str]) -> str:
    data = "".join(f'{json.dumps(label)} = "shard.py:load_{number}"\n' for number, label in enumerate(labels))
    policy = 'authors = "any"\ncode = "any"\nmin_cohort = 1\nkinds = ["arrays", "metrics", "logs"]\ntraceback = true\n'
    policy += "local_models = true\ncollect = true\n"
    head = f"{_OURS}: open to every author of this local project. Remove this line to keep what you change."
    return f'{head}\nsandbox = "basic"\n\n[data]\n{data}\n[policy]\n{policy}'


def _sandbox() -> sandbox.Mode:
    """The strictest that this machine can do: a federation for trying is to start anywhere."""
    return "basic" if sandbox.fault("strict", Path(tempfile.gettempdir())) else "strict"


def _absolute(reference: str) -> str:
    """The reference from anywhere."""
    file, python, name = reference.partition(".py:")
    if python:
        return f"{Path(f'{file}.py').resolve()}:{name}"
    return str(Path(reference).resolve()) if reference.endswith(".toml") else reference


def _free_port() -> int:
    with socket.socket() as trial:
        trial.bind((_HOST, 0))
        return int(trial.getsockname()[1])
