"""A whole session as one call: upload, deploy, start, wait."""

from __future__ import annotations

from collections.abc import Callable

from hansa.compat.flare.admin.waiting import wait
from hansa.compat.flare.fuel.hci.client.api_status import APIStatus
from hansa.compat.flare.fuel.hci.client.fl_admin_api import FLAdminAPI
from hansa.compat.flare.fuel.hci.client.fl_admin_api_constants import FLDetailKey
from hansa.compat.flare.fuel.hci.client.fl_admin_api_spec import FLAdminAPIResponse, TargetType
from hansa.errors import HansaError, RunError


class FLAdminAPIRunner:
    """Runs apps for `username`, whose kit is the folder `admin_dir`. Apps are found below the folder in which the program runs.

    `host`, `port`, `poc` and `debug` are taken as programs give them: the kit says where the server is.

    Raises:
        InputError: there is no kit. RunError: the server does not let it in.
    """

    def __init__(self, host: str, port: int, username: str, admin_dir: str, poc: bool = False, debug: bool = False) -> None:
        self.api = FLAdminAPI(host, port, client_cert=admin_dir, poc=poc, debug=debug)
        told = self.api.login(username)
        if told["status"] != APIStatus.SUCCESS:
            raise RunError(told["raw"])

    def close(self) -> None:
        """Close the connection."""
        self.api.logout()

    def run(
        self,
        run_number: int,
        app: str,
        restart_all_first: bool = False,
        min_clients: int = 2,
        timeout: float = 2000,
        shutdown_on_error: bool = False,
        shutdown_at_end: bool = False,
    ) -> FLAdminAPIResponse:
        """How the app's run has ended, with the details `run`, `state` and `reason`; or the response of the verb that failed.

        min_clients: fewer sites that are there are an error. timeout: seconds to wait. Nothing is restarted or
        shut down from afar: with `shutdown_on_error` a run that was waited for too long is aborted.
        """
        del restart_all_first, shutdown_at_end
        steps: tuple[Callable[[], FLAdminAPIResponse], ...] = (
            lambda: self.api.set_run_number(run_number),
            lambda: self._enough(min_clients),
            lambda: self.api.upload_app(app),
            lambda: self.api.deploy_app(app.rstrip("/").rpartition("/")[2], TargetType.ALL),
            lambda: self.api.start_app(TargetType.ALL),
        )
        for step in steps:
            told = step()
            if told["status"] != APIStatus.SUCCESS:
                return told
        return self._ended(timeout, abort=shutdown_on_error)

    def _enough(self, least: int) -> FLAdminAPIResponse:
        told = self.api.check_status(TargetType.SERVER)
        there = told["details"].get(FLDetailKey.CONNECTED_CLIENTS, [])
        if told["status"] == APIStatus.SUCCESS and len(there) < least:
            message = f"{len(there)} clients are connected, expected {least}"
            return FLAdminAPIResponse(APIStatus.ERROR_RUNTIME, {"message": message}, message)
        return told

    def _ended(self, timeout_s: float, *, abort: bool) -> FLAdminAPIResponse:
        try:
            told = wait(self.api.verbs, hold_s=timeout_s, timeout_s=timeout_s)
        except HansaError as error:
            if abort:
                self.api.abort(TargetType.ALL)
            return FLAdminAPIResponse(APIStatus.ERROR_RUNTIME, {"message": str(error)}, str(error))
        ended = APIStatus.SUCCESS if told.details["state"] == "completed" else APIStatus.ERROR_RUNTIME
        return FLAdminAPIResponse(ended, dict(told.details), "\n".join(told.lines))
