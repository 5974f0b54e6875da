"""Analytics: one value that a component tells of its work."""

from __future__ import annotations

from enum import Enum
from typing import Any

from hansa.compat.flare.apis.dxo import DXO, DataKind


class AnalyticsDataType(Enum):
    """What the value is."""

    SCALARS = "SCALARS"
    SCALAR = "SCALAR"
    IMAGE = "IMAGE"
    TEXT = "TEXT"
    LOG_RECORD = "LOG_RECORD"


_TYPES: dict[AnalyticsDataType, type] = {
    AnalyticsDataType.SCALAR: float,
    AnalyticsDataType.SCALARS: dict,
    AnalyticsDataType.TEXT: str,
}


class AnalyticsData:
    """A value with its tag."""

    def __init__(self, tag: str, value: Any, data_type: AnalyticsDataType, kwargs: dict[str, Any] | None = None) -> None:
        if not isinstance(tag, str):
            raise TypeError(f"expected tag to be a str, but got {type(tag)}")
        if not isinstance(data_type, AnalyticsDataType):
            raise TypeError(f"expected data_type to be an AnalyticsDataType, but got {type(data_type)}")
        if kwargs is not None and not isinstance(kwargs, dict):
            raise TypeError(f"expected kwargs to be a dict, but got {type(kwargs)}")
        wanted = _TYPES.get(data_type, object)
        if not isinstance(value, wanted):
            raise TypeError(f"expected the value of a {data_type.value} to be a {wanted.__name__}, but got {type(value)}")
        self.value: Any = value
        self.tag, self.data_type, self.kwargs = tag, data_type, kwargs

    def to_dxo(self) -> DXO:
        """The value as a DXO."""
        data = {"track_key": self.tag, "track_value": self.value, "kwargs": dict(self.kwargs or {})}
        return DXO(DataKind.ANALYTIC, data, {"analytics_data_type": self.data_type.value})

    @classmethod
    def from_dxo(cls, dxo: DXO) -> AnalyticsData | None:
        """The value in a DXO; None where there is none.

        Raises:
            TypeError: the value is not of the type that it says.
        """
        if dxo.data_kind != DataKind.ANALYTIC or "track_key" not in dxo.data:
            return None
        kind = AnalyticsDataType(dxo.get_meta_prop("analytics_data_type"))
        return cls(dxo.data["track_key"], dxo.data["track_value"], kind, dxo.data.get("kwargs") or None)
