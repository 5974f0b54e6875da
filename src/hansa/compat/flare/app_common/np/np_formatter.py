"""Validation results as text."""

from __future__ import annotations

from pathlib import Path

from hansa.compat.flare.apis.dxo import from_bytes
from hansa.compat.flare.apis.fl_context import FLContext
from hansa.compat.flare.app_common.abstract.formatter import Formatter
from hansa.compat.flare.app_common.app_constant import AppConstants


class NPFormatter(Formatter):
    """A line for each site and model."""

    def format(self, fl_ctx: FLContext) -> str:
        files = fl_ctx.get_prop(AppConstants.VALIDATION_RESULT, {})
        lines = [
            f"{site}: {owner}: {from_bytes(Path(file).read_bytes()).data}"
            for site, owners in sorted(files.items())
            for owner, file in sorted(owners.items())
        ]
        return "\n".join(lines)
