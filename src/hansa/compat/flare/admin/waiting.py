"""Waiting for a run to end, as the server tells of it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from hansa.compat.flare.admin.said import Said, said
from hansa.compat.flare.admin.verbs import Verbs
from hansa.errors import InputError, RunError

HOLD_S: Final = 25.0  # the server holds a question no longer


def wait(verbs: Verbs, *, hold_s: float, timeout_s: float | None, enough: Callable[[], bool] | None = None) -> Said:
    """How the run stands once it has ended, or `enough` says so: asked when something happened, or after `hold_s` seconds.

    Raises:
        InputError: there is no run under the number, or a time is not above 0. RunError: `timeout_s` have gone by.
    """
    if hold_s <= 0 or (timeout_s is not None and timeout_s <= 0):
        raise InputError("a time to wait is above 0", got=f"{hold_s} and {timeout_s}", expected="seconds")
    run, after, began = verbs.needed_run(), 0, time.monotonic()
    while True:
        left_s = hold_s if timeout_s is None else timeout_s - (time.monotonic() - began)
        if left_s <= 0:
            raise RunError(f"waited for {timeout_s:g} s", run=run.id, got=run.status().state, expected="the end of the run")
        page = run.happened(after, None, hold_s=min(hold_s, left_s, HOLD_S))
        after = page.after
        status = run.status()
        if status.over or (enough is not None and enough()):
            return said(f"{run.id} is {status.state}", run=run.id, state=status.state, reason=status.reason)
