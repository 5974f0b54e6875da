from typing import Any

import numpy as np
import pytest

from hansa.core.protocols import Update
from hansa.stacked import Stacked


def test_each_client_gets_views_of_its_rows_and_numbers_of_its_own() -> None:
    whole = np.arange(6).reshape(3, 2)
    delta = {"head": {"w": whole}, "scale": np.array([7.0, 8.0, 9.0])}
    columns = (np.array([10, 20, 30]), np.array([1, 2, 3]), np.full(3, 0.5), np.zeros(3))
    updates = Stacked(Update(delta, *columns), 3)  # type: ignore[arg-type]  # columns
    last: Any = updates[-1]
    assert (last.examples, last.steps, last.lr, last.loss, type(last.examples)) == (30, 3, 0.5, 0.0, int)
    assert np.shares_memory(last.delta["head"]["w"], whole)
    assert (last.delta["head"]["w"].tolist(), last.delta["scale"].shape) == ([4, 5], ())
    assert [each.examples for each in updates] == [each.examples for each in updates[:]] == [10, 20, 30]
    with pytest.raises(IndexError):
        updates[3]
