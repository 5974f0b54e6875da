"""A filter that looks at the DXO of a shareable alone."""

from __future__ import annotations

from abc import abstractmethod

from hansa.compat.flare.apis.dxo import DXO, from_shareable
from hansa.compat.flare.apis.filter import Filter
from hansa.compat.flare.apis.fl_constant import ReturnCode
from hansa.compat.flare.apis.fl_context import FLContext
from hansa.compat.flare.apis.shareable import Shareable


class DXOFilter(Filter):
    """Filters DXOs of some kinds; what has another kind, or says that something went wrong, passes as it is."""

    def __init__(self, supported_data_kinds: list[str] | None = None, data_kinds_to_filter: list[str] | None = None) -> None:
        super().__init__()
        self.data_kinds = data_kinds_to_filter or supported_data_kinds
        if supported_data_kinds and (wrong := sorted(set(self.data_kinds or ()) - set(supported_data_kinds))):
            raise ValueError(f"{type(self).__name__} does not support data of kind {wrong[0]}")

    def process(self, shareable: Shareable, fl_ctx: FLContext) -> Shareable:
        if shareable.get_return_code() != ReturnCode.OK:
            return shareable
        dxo = from_shareable(shareable)
        if self.data_kinds and dxo.data_kind not in self.data_kinds:
            return shareable
        filtered = self.process_dxo(dxo, shareable, fl_ctx)
        return shareable if filtered is None else filtered.update_shareable(shareable)

    @abstractmethod
    def process_dxo(self, dxo: DXO, shareable: Shareable, fl_ctx: FLContext) -> DXO | None:
        """What goes on in place of the DXO; None if it stays as it is."""
