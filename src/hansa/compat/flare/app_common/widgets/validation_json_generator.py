"""ValidationJsonGenerator: the results of a cross-site validation as one JSON file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hansa.compat.flare.apis.dxo import DataKind, from_shareable
from hansa.compat.flare.apis.event_type import EventType
from hansa.compat.flare.apis.fl_component import FLComponent
from hansa.compat.flare.apis.fl_constant import ReturnCode
from hansa.compat.flare.apis.fl_context import FLContext
from hansa.compat.flare.apis.shareable import Shareable
from hansa.compat.flare.app_common.app_constant import AppConstants
from hansa.compat.flare.app_common.app_event_type import AppEventType
from hansa.files import write_atomic
from hansa.record.results import plain


class ValidationJsonGenerator(FLComponent):
    """Writes {site whose data: {model: metrics}} into `results_dir` of the run's folder when the run ends."""

    def __init__(self, results_dir: str = AppConstants.CROSS_VAL_DIR, json_file_name: str = "cross_val_results.json") -> None:
        super().__init__()
        self._results_dir, self._json_file_name = results_dir, json_file_name
        self._val_results: dict[str, dict[str, Any]] = {}

    def handle_event(self, event_type: str, fl_ctx: FLContext) -> None:
        if event_type == EventType.START_RUN:
            self._val_results = {}
        elif event_type == AppEventType.VALIDATION_RESULT_RECEIVED:
            site, owner = fl_ctx.get_prop(AppConstants.DATA_CLIENT), fl_ctx.get_prop(AppConstants.MODEL_OWNER)
            result = fl_ctx.get_prop(AppConstants.VALIDATION_RESULT)
            if site and owner and isinstance(result, Shareable) and result.get_return_code() == ReturnCode.OK:
                dxo = from_shareable(result)
                if dxo.data_kind == DataKind.METRICS:
                    self._val_results.setdefault(str(site), {})[str(owner)] = plain(dxo.data)
        elif event_type == EventType.END_RUN:
            folder = Path(fl_ctx.get_engine().get_workspace().get_run_dir(fl_ctx.get_run_number()), self._results_dir)
            folder.mkdir(parents=True, exist_ok=True)
            write_atomic(folder / self._json_file_name, [json.dumps(self._val_results, indent=2).encode() + b"\n"])
