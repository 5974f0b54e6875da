"""TBAnalyticsReceiver: what sites tell, as files that TensorBoard shows. It needs neither PyTorch nor TensorBoard."""

from __future__ import annotations

from pathlib import Path

from hansa.compat.flare.apis.analytix import AnalyticsData, AnalyticsDataType
from hansa.compat.flare.apis.dxo import from_shareable
from hansa.compat.flare.apis.fl_context import FLContext
from hansa.compat.flare.apis.shareable import Shareable
from hansa.compat.flare.app_common.widgets.event_file import EventFile
from hansa.compat.flare.app_common.widgets.streaming import AnalyticsReceiver


class TBAnalyticsReceiver(AnalyticsReceiver):
    """Writes scalars and text into `tb_folder` of the run's folder, by site; images are named in the log and left out."""

    def __init__(self, tb_folder: str = "tb_events", events: list[str] | None = None) -> None:
        super().__init__(events)
        self.tb_folder = tb_folder
        self.root_log_dir = Path()
        self.writers_table: dict[str, EventFile] = {}

    def initialize(self, fl_ctx: FLContext) -> None:
        run = fl_ctx.get_engine().get_workspace().get_run_dir(fl_ctx.get_run_number())
        self.root_log_dir = Path(run, self.tb_folder)

    def save(self, fl_ctx: FLContext, shareable: Shareable, record_origin: str) -> None:
        told = AnalyticsData.from_dxo(from_shareable(shareable))
        if told is None:
            return
        file = self.writers_table.get(record_origin)
        if file is None:
            file = self.writers_table[record_origin] = EventFile(self.root_log_dir / Path(record_origin).name)
        step = int((told.kwargs or {}).get("global_step") or 0)
        if told.data_type is AnalyticsDataType.SCALAR:
            file.scalars({told.tag: told.value}, step)
        elif told.data_type is AnalyticsDataType.SCALARS:
            file.scalars({f"{told.tag}/{name}": float(value) for name, value in told.value.items()}, step)
        elif told.data_type is AnalyticsDataType.TEXT:
            file.text(told.tag, told.value, step)
        else:
            self.log_warning(fl_ctx, f"{told.data_type.value} {told.tag!r} of {record_origin!r} is not written", fire_event=False)

    def finalize(self, fl_ctx: FLContext) -> None:
        del fl_ctx
        for each in self.writers_table.values():
            each.close()
        self.writers_table.clear()
