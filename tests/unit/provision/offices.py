"""A small project, and its kits in a folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hansa.provision.changes import Done, provision
from hansa.provision.project import Organisation, Person, Project, ServerSection, Site

NOW = 1_700_000_000.0
HEARTS = Project(
    name="hearts",
    server=ServerSection(host="localhost", port=8443, addresses=("127.0.0.1",)),
    organisations=(Organisation(name="Uni"), Organisation(name="North Hospital")),
    sites=(Site(name="north", org="North Hospital"), Site(name="south", org="Uni")),
    people=(Person(name="alice", org="Uni", role="project_admin"), Person(name="bob", org="Uni", role="lead")),
)


def opened(folder: Path, project: Project = HEARTS, *, now: float = NOW, zips: bool = False, **how: Any) -> Done:
    """The project's office, at work in `folder`; no zips unless asked for, which are slow to make."""
    return provision(project, folder, now=now, zips=zips, **how)
