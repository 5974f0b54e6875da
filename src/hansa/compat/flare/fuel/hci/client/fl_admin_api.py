"""An admin session for programs: its verbs answer with a status, and do not raise."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from hansa.admin.client import connect
from hansa.compat.flare.admin import lines, looking
from hansa.compat.flare.admin.said import Said, said
from hansa.compat.flare.admin.verbs import Verbs
from hansa.compat.flare.admin.waiting import wait
from hansa.compat.flare.fuel.hci.client.api_status import APIStatus
from hansa.compat.flare.fuel.hci.client.fl_admin_api_spec import FLAdminAPIResponse, TargetType
from hansa.errors import HansaError, IdentityError, InputError, RefusedError

_STATUS: Final = (
    (IdentityError, APIStatus.ERROR_CERT),
    (RefusedError, APIStatus.ERROR_AUTHORIZATION),
    (InputError, APIStatus.ERROR_SYNTAX),
    (HansaError, APIStatus.ERROR_RUNTIME),
)


class FLAdminAPI:
    """The verbs of an admin session; see `hansa shell`.

    client_cert: the certificate in a person's kit, or the kit's folder. Its key, its CA and the server's address are the kit's own:
    `host`, `port`, `ca_cert`, `client_key`, `poc` and `debug` are taken as programs give them, and say nothing more. upload_dir:
    where apps are looked for. download_dir: where runs are copied to.

    Raises:
        InputError: there is no kit, or it is not a person's. IdentityError: a file of it was altered.
    """

    def __init__(
        self,
        host: str,
        port: int,
        ca_cert: str = "",
        client_cert: str = "",
        client_key: str = "",
        upload_dir: str = "",
        download_dir: str = "",
        poc: bool = False,
        debug: bool = False,
    ) -> None:
        del host, port, ca_cert, client_key, poc, debug
        if not client_cert:
            raise InputError("no kit", path="client_cert", hint="client_cert='kits/alice/certificate.pem', or the kit's folder")
        place = Path(client_cert)
        self._session = connect(place if place.is_dir() else place.parent)
        self._downloads = Path(download_dir)
        self.verbs = Verbs(self._session, uploads=Path(upload_dir))

    def login(self, username: str) -> FLAdminAPIResponse:
        """Whether the server lets the kit in, and it is this user's."""
        return self._told(lambda: self._login(username))

    def login_with_password(self, username: str, password: str) -> FLAdminAPIResponse:
        """The same: a kit's key says who asks, and no password is sent."""
        del password
        return self.login(username)

    def logout(self) -> FLAdminAPIResponse:
        """Close the connection."""
        self._session.close()
        return FLAdminAPIResponse(APIStatus.SUCCESS)

    def check_status(self, target_type: TargetType, targets: Sequence[str] | None = None) -> FLAdminAPIResponse:
        """How the server or the sites stand."""
        if target_type == TargetType.SERVER:
            return self._told(lambda: looking.check_server(self.verbs))
        return self._told(lambda: looking.check_client(self.verbs, targets or ()))

    def set_run_number(self, run_number: int) -> FLAdminAPIResponse:
        """Work with the run of this number."""
        return self._told(lambda: self.verbs.set_run_number(run_number))

    def delete_run_number(self, run_number: int) -> FLAdminAPIResponse:
        """Remove the runs of this number."""
        return self._told(lambda: self.verbs.delete_run_number(run_number))

    def upload_app(self, app: str) -> FLAdminAPIResponse:
        """Read and sign an app."""
        return self._told(lambda: self.verbs.upload_app(app))

    def deploy_app(self, app: str, target_type: TargetType, targets: Sequence[str] | None = None) -> FLAdminAPIResponse:
        """Say where an uploaded app is to run."""
        return self._told(lambda: self.verbs.deploy_app(app, target_type.value, targets or ()))

    def start_app(self, target_type: TargetType, targets: Sequence[str] | None = None) -> FLAdminAPIResponse:
        """Submit what is deployed, as one job."""
        return self._told(lambda: self.verbs.start_app(target_type.value, targets or ()))

    def abort(self, target_type: TargetType, targets: Sequence[str] | None = None) -> FLAdminAPIResponse:
        """End the run for good."""
        return self._told(lambda: self.verbs.abort(target_type.value, targets or ()))

    def restart(self, target_type: TargetType, targets: Sequence[str] | None = None) -> FLAdminAPIResponse:
        """ERROR_AUTHORIZATION: nobody restarts another's machine from afar."""
        return self.shutdown(target_type, targets)

    def shutdown(self, target_type: TargetType, targets: Sequence[str] | None = None) -> FLAdminAPIResponse:
        """ERROR_AUTHORIZATION: nobody stops another's machine from afar."""
        return self._told(lambda: self.verbs.shutdown(target_type.value, targets or ()))

    def remove_client(self, targets: Sequence[str]) -> FLAdminAPIResponse:
        """Work with these sites no more, until they are enabled."""
        return self._told(lambda: self.verbs.remove_client(targets))

    def set_timeout(self, timeout: float) -> FLAdminAPIResponse:
        """Nothing: an answer is waited for as long as the server lives."""
        del timeout
        return FLAdminAPIResponse(APIStatus.SUCCESS)

    def ls_target(self, target: str, options: str | None = None, path: str | None = None) -> FLAdminAPIResponse:
        """The files of the run's folder (`server`), or what a site lets out (its name)."""
        del path
        return self._line("ls", *_at(target), *(options or "").split())

    def cat_target(self, target: str, options: str | None = None, file: str | None = None) -> FLAdminAPIResponse:
        """A text file of the run's folder, or `log.txt` of a site."""
        return self._line("cat", *_at(target), file or "", *(options or "").split())

    def tail_target_log(self, target: str, options: str | None = None) -> FLAdminAPIResponse:
        """The end of what happened in the run, or of a site's log."""
        return self._line("tail", *_at(target), looking.LOG, *(options or "").split())

    def grep_target(
        self, target: str, options: str | None = None, pattern: str | None = None, file: str | None = None
    ) -> FLAdminAPIResponse:
        """The lines in which a pattern is found."""
        return self._line("grep", *_at(target), pattern or "", file or looking.LOG, *(options or "").split())

    def env_target(self, target: str) -> FLAdminAPIResponse:
        """ERROR_SYNTAX: a machine's environment is its owner's."""
        return self._line("env", target)

    def get_working_directory(self, target: str) -> FLAdminAPIResponse:
        """ERROR_SYNTAX: the folder of a run is reached by its name alone."""
        return self._line("pwd", target)

    def show_stats(self, target_type: TargetType, targets: Sequence[str] | None = None) -> FLAdminAPIResponse:
        """The numbers of the last round."""
        del target_type, targets
        return self._told(lambda: looking.stats(self.verbs))

    def show_errors(self, target_type: TargetType, targets: Sequence[str] | None = None) -> FLAdminAPIResponse:
        """What went wrong in the run."""
        del target_type
        return self._told(lambda: looking.errors(self.verbs, targets or ()))

    def reset_errors(self) -> FLAdminAPIResponse:
        """ERROR_SYNTAX: what happened stays on record."""
        return self._line("reset_errors")

    def get_connected_client_list(self) -> FLAdminAPIResponse:
        """The sites that are there, as the detail `connected_clients`."""
        return self._told(lambda: looking.check_server(self.verbs))

    def download(self) -> FLAdminAPIResponse:
        """Copy the run's folder to `download_dir`, under its name."""
        return self._told(self._download)

    def wait_until_server_status(
        self,
        interval: float = 20,
        timeout: float | None = None,
        callback: Callable[..., bool] | None = None,
        fail_attempts: int = 3,
        **kwargs: object,
    ) -> FLAdminAPIResponse:
        """How the server stands once the run has ended, or `callback(response, **kwargs)` says that it is enough.

        The server tells when something happens, so that nothing is polled: `interval` is the longest between two calls of
        `callback`. `fail_attempts` is not needed: a server that is away is waited for. timeout: seconds (None: no limit).
        """
        del fail_attempts
        return self._until(looking.check_server, interval, timeout, callback, kwargs)

    def wait_until_client_status(
        self,
        interval: float = 10,
        timeout: float | None = None,
        callback: Callable[..., bool] | None = None,
        fail_attempts: int = 6,
        **kwargs: object,
    ) -> FLAdminAPIResponse:
        """The same for what the sites are at."""
        del fail_attempts
        return self._until(lambda verbs: looking.check_client(verbs, ()), interval, timeout, callback, kwargs)

    def wait_until_server_stats(
        self,
        interval: float = 10,
        timeout: float | None = None,
        callback: Callable[..., bool] | None = None,
        fail_attempts: int = 3,
        **kwargs: object,
    ) -> FLAdminAPIResponse:
        """The same as for the server's status."""
        return self.wait_until_server_status(interval, timeout, callback, fail_attempts, **kwargs)

    def _until(
        self,
        look: Callable[[Verbs], Said],
        interval: float,
        timeout: float | None,
        callback: Callable[..., bool] | None,
        kwargs: Mapping[str, object],
    ) -> FLAdminAPIResponse:
        enough = None if callback is None else lambda: bool(callback(self._told(lambda: look(self.verbs)), **kwargs))
        waited = self._told(lambda: wait(self.verbs, hold_s=interval, timeout_s=timeout, enough=enough))
        return waited if waited["status"] != APIStatus.SUCCESS else self._told(lambda: look(self.verbs))

    def _login(self, username: str) -> Said:
        kit = self._session.kit
        if username != kit.name:
            raise RefusedError("the kit is another person's", got=username, expected=kit.name, hint="a kit's key says who asks")
        self._session.sites()
        return said(f"{kit.name} at {kit.url}")

    def _download(self) -> Said:
        run = self.verbs.needed_run()
        folder = run.download(self._downloads / run.id)
        return said(f"{run.id} is in {folder}", job_id=run.id, folder=str(folder))

    def _line(self, *words: str) -> FLAdminAPIResponse:
        return self._told(lambda: lines.run(self.verbs, words))

    def _told(self, ask: Callable[[], Said]) -> FLAdminAPIResponse:
        """What the verb says; an error of ours as its status."""
        try:
            found = ask()
        except HansaError as error:
            status = next(status for kind, status in _STATUS if isinstance(error, kind))
            return FLAdminAPIResponse(status, {"message": str(error), "code": error.code}, str(error))
        return FLAdminAPIResponse(APIStatus.SUCCESS, dict(found.details), "\n".join(found.lines))


def _at(target: str) -> tuple[str, ...]:
    """`server`, or the site of this name."""
    return ("server",) if target == TargetType.SERVER else ("client", target)
