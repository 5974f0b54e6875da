"""What an admin session does, as requests about jobs: upload, deploy and start are one submission; a run number is its label."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

from hansa.admin.answers import Site, Status
from hansa.admin.client import Run, Session
from hansa.compat.flare.admin.said import Said, said
from hansa.errors import InputError, RefusedError

Target = Literal["server", "client", "all"]
APP_FILES: Final = ("config/config_fed_server.json", "config_fed_server.json", "job.toml")
NOT_FROM_AFAR: Final = "a person stops no hospital's agent, and no server, from afar: who runs a machine ends its process there"


@dataclass(frozen=True)
class _App:
    """An app as it will travel: signed when it was uploaded."""

    folder: Path
    bundle: bytes = field(repr=False)


class Verbs:
    """The verbs of one session. It keeps the run number, and what is deployed until it is started; all else is at the server.

    uploads: where a folder that is to be uploaded is looked for.
    """

    def __init__(self, session: Session, *, uploads: Path) -> None:
        self.session, self.uploads = session, uploads
        self.number: int | None = None
        self._apps: dict[str, _App] = {}
        self._deployed: dict[str, str] = {}  # "server" or a site, and its app; no site is called so
        self._at_server: str | None = None

    @property
    def apps(self) -> list[str]:
        """The apps that can be deployed."""
        return list(self._apps)

    def run(self) -> Run | None:
        """The newest run of one's own under the run number, if there is one."""
        status = None if self.number is None else self._newest(self.number)
        return None if status is None else self.session.run(status.run)

    def needed_run(self) -> Run:
        """The run under the run number.

        Raises:
            InputError: no number is set, or nothing was started under it.
        """
        self._needed_number()
        found = self.run()
        if found is None:
            raise InputError("nothing was started under this run number", got=self.number, hint="start server")
        return found

    def set_run_number(self, number: int) -> Said:
        """Work with the run of this number, which may exist already.

        Raises:
            InputError: it is not above 0.
        """
        if number < 1:
            raise InputError("run number must be > 0.", got=number)
        self.number = number
        status = self._newest(number)
        if status is None:
            return said(f"Set the FL run number to {number}; its run is made by `start server`.", run_number=number)
        return said(f"run number already exist. Set the FL run number to {number}.", f"run: {status.run}", run_number=number)

    def delete_run_number(self, number: int) -> Said:
        """Remove the runs of a number from the server.

        Raises:
            InputError: there is none, or one has not ended.
        """
        found = [status for status in self._own() if status.label == label(number)]
        if not found:
            raise InputError("no run has this number", got=number, hint="see `list_jobs`")
        for status in found:
            self.session.run(status.run).delete()
        return said(*(f"deleted {status.run}" for status in found), run_number=number)

    def upload_app(self, folder: str) -> Said:
        """Read an app of FLARE, or a folder with a job.toml, and sign it; it is sent when it is started.

        Raises:
            InputError, ConfigError: the folder is no app; says what is amiss.
        """
        place = (self.uploads / folder).resolve()
        entry = next((place / each for each in APP_FILES if (place / each).is_file()), None)
        if entry is None:
            hint = "an app is a folder with config/config_fed_server.json, or with a job.toml"
            raise InputError("no app in this folder", path=str(place), hint=hint)
        bundle = self.session.bundle(str(entry))
        self._apps[place.name] = _App(place, bundle)
        return said(f"{place.name}: read and signed, {len(bundle):,} bytes; it is sent when it is started", app_name=place.name)

    def deploy_app(self, app: str, target: Target, names: Sequence[str] = ()) -> Said:
        """Say where an uploaded app is to run.

        Raises:
            InputError: it was not uploaded, or there is no such site.
        """
        if app not in self._apps:
            raise InputError(f"App {app} does not exist. Please upload it first", hint=f"upload_folder {app}")
        lines = []
        if target in ("server", "all"):
            self._at_server = app
            lines.append("server has been deployed.")
        if target in ("client", "all"):
            chosen = [site.site for site in self.sites(names)]
            if not names or names == ["all"]:
                self._deployed = {}
            self._deployed |= dict.fromkeys(chosen, app)
            lines += [f"instance {site} : {app} deployed." for site in chosen]
        return said(*lines, "Nothing is sent before `start server`.", app_name=app)

    def start_app(self, target: Target, names: Sequence[str] = ()) -> Said:
        """Submit what is deployed, with the server's start; the sites begin by themselves.

        Raises:
            InputError: no run number, or nothing deployed. RefusedError: the server says no.
        """
        self._needed_number()
        if target == "client":
            run = self.needed_run()
            status = run.status()
            chosen = [site.site for site in self.sites(names)] if names else status.sites
            if left := [site for site in chosen if site not in status.sites]:
                raise InputError(
                    "the run is not for these sites", run=run.id, got=", ".join(left), expected=", ".join(status.sites)
                )
            return said(*(f"instance {site} : {word_of(status, site)}" for site in chosen), run=run.id)
        if (alive := self.run()) is not None and not (status := alive.status()).over:
            return said(f"Server training has started already: {alive.id} is {status.state}", run=alive.id)
        app, sites = self._ready()
        run = self.session.submit_bundle(self._apps[app].bundle, sites=sites, label=label(self._needed_number()))
        return said("Server training is starting...", f"run: {run.id} with {', '.join(sites)}", run=run.id)

    def abort(self, target: Target, names: Sequence[str] = ()) -> Said:
        """End the run for good, at the server and at its sites.

        Raises:
            InputError: single sites are named: a run is one.
        """
        if target == "client" and names and list(names) != ["all"]:
            hint = f"leave a site out: remove_client {names[0]}; end the run: abort server"
            raise InputError("a run is one job: it is not aborted at a single site", got=" ".join(names), hint=hint)
        run = self.needed_run()
        status = run.status()
        if status.over:
            return said(f"{run.id} has ended already: {status.state}", run=run.id)
        return said(f"{run.id} is {run.abort('from the admin session').state}, at the server and at its sites", run=run.id)

    def remove_client(self, names: Sequence[str]) -> Said:
        """Work with these sites no more, until they are enabled.

        Raises:
            InputError: no site is named, or there is none of the name.
        """
        if not names:
            raise InputError("no client is named", hint="remove_client SITE ...")
        for site in self.sites(names):
            self.session.disable(site.site, reason="removed in the admin session")
        back = f"Back again: hansa site enable {names[0]} --kit {self.session.kit.folder}"
        return said(*(f"{name}: removed; the project works with it no more" for name in names), back)

    def shutdown(self, target: Target, names: Sequence[str] = ()) -> Said:
        """Nothing: always refused.

        Raises:
            RefusedError: says what to type instead.
        """
        site = names[0] if names else "SITE"
        instead = f"remove_client {site}" if target == "client" else "abort server"
        raise RefusedError(NOT_FROM_AFAR, hint=f"what you can do from here: {instead}")

    def sites(self, names: Sequence[str] = ()) -> list[Site]:
        """The sites of these names; without names, or for "all", those that the project works with.

        Raises:
            InputError: there is no such site.
        """
        if names and list(names) != ["all"]:
            return [self.session.site(name) for name in names]
        return [site for site in self.session.sites() if site.revoked is None and site.disabled is None]

    def _ready(self) -> tuple[str, list[str]]:
        """The app and the sites that are deployed."""
        if self._at_server is None:
            raise InputError("no app is deployed at the server", hint="deploy APP server")
        if not self._deployed:
            raise InputError("no app is deployed at a site", hint=f"deploy {self._at_server} client")
        if others := sorted(set(self._deployed.values()) - {self._at_server}):
            got = f"{self._at_server} at the server, {', '.join(others)} at sites"
            raise InputError("a run is one app, for the server and its sites", got=got, hint=f"deploy {self._at_server} client")
        return self._at_server, list(self._deployed)

    def _needed_number(self) -> int:
        if self.number is None:
            raise InputError("Please set a run number.", hint="set_run_number 1")
        return self.number

    def _own(self) -> list[Status]:
        return [status for status in self.session.runs() if status.author == self.session.kit.name]

    def _newest(self, number: int) -> Status | None:
        return next((status for status in reversed(self._own()) if status.label == label(number)), None)


def label(number: int) -> str:
    """The label of a run with this number.

    >>> label(7)
    'run_7'
    """
    return f"run_{number}"


def word_of(status: Status, site: str) -> str:
    """How far a site is in a run, in the words of the original."""
    if site in status.refused:
        return f"refused: {status.refused[site]}"
    if status.state == "pending":
        return "training starting"
    if status.over:
        return f"training stopped ({status.state})"
    return "training started" if site in status.accepted else "training starting"
