"""An app as a job of ours: the same for a simulation and a deployment."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hansa.compat.flare.app import App, read
from hansa.compat.flare.server import AppWorkflow
from hansa.compat.flare.site import AppExecutor
from hansa.core.job import Job

DATA = "flare"  # the label of the data, of which an app loads its own


@dataclass(frozen=True)
class Sites:
    """The sites of a simulation, as FLARE names them. They have no data but what the app's own code finds.

    >>> Sites.of(2).sites
    ('site-1', 'site-2')
    """

    sites: Sequence[str]

    @staticmethod
    def of(count: int) -> Sites:
        """`site-1`, `site-2`, ..."""
        return Sites(tuple(f"site-{number}" for number in range(1, count + 1)))

    def load(self, slot: int) -> None:
        """Nothing."""
        del slot


def of_config(path: Path) -> Job:
    """The job of an app by its `config/config_fed_server.json`, as a bundle brings it.

    Raises:
        InputError, ConfigError: as for `job`.
    """
    return job(path.parent.parent)


def job(folder: str | Path, *, workspace: Path | None = None) -> Job:
    """The job of an app folder. Nothing of the app is imported before it runs.

    workspace: where server and sites have their folders; None: in a place that is gone when they end.

    Raises:
        InputError, ConfigError: the folder is no app, or an entry of its configuration is not what it should be.
    """
    app: App = read(folder)
    name = re.sub(r"[^A-Za-z0-9._-]", "-", app.name).strip("-._")[:63] or "app"
    return Job(name, AppWorkflow(app, workspace), data=DATA, executor=AppExecutor(app, workspace), progress_s=None)
