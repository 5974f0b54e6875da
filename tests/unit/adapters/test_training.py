"""What all frameworks' learners make of rows: values unchanged, or refused."""

import numpy as np
import pytest

from hansa.adapters.training import inputs, targets
from hansa.errors import DataError

FLOATS = np.dtype(np.float32)


def test_integers_become_int32_with_their_values_and_one_that_does_not_fit_is_refused() -> None:
    most = np.array([-(2**31), 0, 2**31 - 1], np.int64)
    for made in (inputs(most, FLOATS), targets(most, FLOATS)):
        assert (made.dtype.name, made.tolist()) == ("int32", most.tolist())
    assert targets(np.array([True, False]), FLOATS).tolist() == [1, 0]
    assert inputs(np.zeros((0, 2), np.int64), FLOATS).shape == (0, 2)
    for wide in (most + 1, np.array([2**31], np.uint32), np.array([2**64 - 1], np.uint64)):
        with pytest.raises(DataError, match="more than 32 bits; at path x"):
            inputs(wide, FLOATS)
        with pytest.raises(DataError, match="more than 32 bits; at path y"):
            targets(wide, FLOATS)
