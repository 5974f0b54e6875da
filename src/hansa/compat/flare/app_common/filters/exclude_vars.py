"""ExcludeVars: some weights never leave the site."""

from __future__ import annotations

import re
from typing import Any

from hansa.compat.flare.apis.dxo import DXO, DataKind
from hansa.compat.flare.apis.dxo_filter import DXOFilter
from hansa.compat.flare.apis.fl_context import FLContext
from hansa.compat.flare.apis.shareable import Shareable


class ExcludeVars(DXOFilter):
    """Leaves out the weights of these names (a list) or that a regular expression finds (a str); "dummy" and "" leave out none.

    Raises:
        TypeError: exclude_vars is something else. ValueError: it is no regular expression.
    """

    def __init__(self, exclude_vars: list[str] | str | None = None, data_kinds: list[str] | None = None) -> None:
        super().__init__([DataKind.WEIGHTS, DataKind.WEIGHT_DIFF], data_kinds)
        if exclude_vars is not None and not isinstance(exclude_vars, list | str):
            raise TypeError(f"exclude_vars must be a list of names or a regular expression, but got {type(exclude_vars)}")
        self.exclude_vars = exclude_vars
        self._names = set(exclude_vars) if isinstance(exclude_vars, list) else set()
        self._pattern: re.Pattern[str] | None = None
        if isinstance(exclude_vars, str) and exclude_vars not in ("", "dummy"):
            try:
                self._pattern = re.compile(exclude_vars)
            except re.error as error:
                raise ValueError(f"exclude_vars is no regular expression: {error}") from error

    def process_dxo(self, dxo: DXO, shareable: Shareable, fl_ctx: FLContext) -> DXO | None:
        del shareable
        kept: dict[str, Any] = {name: value for name, value in dxo.data.items() if not self._excluded(name)}
        if len(kept) == len(dxo.data):
            if self._names or self._pattern:
                self.log_warning(fl_ctx, f"no weight is called {self.exclude_vars!r}: nothing was left out")
            return None
        return DXO(dxo.data_kind, kept, dxo.meta)

    def _excluded(self, name: str) -> bool:
        return name in self._names or (self._pattern is not None and self._pattern.search(name) is not None)
