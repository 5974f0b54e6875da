import re

import pytest
import torch
from threadpoolctl import threadpool_limits

from hansa.adapters.torch import leaves


def mkl_threads() -> int:
    found = re.search(r"mkl_get_max_threads\(\) : (\d+)", torch.__config__.parallel_info())
    return int(found[1]) if found else 0


@pytest.mark.skipif(mkl_threads() == 0, reason="this torch is built without MKL")
def test_one_thread_is_one_thread_of_mkl_too_where_openmp_was_limited_before() -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)  # as a parent leaves it, whose forked workers limit OpenMP by threadpoolctl
        with threadpool_limits(1), leaves.threads(1):
            assert mkl_threads() == 1
    finally:
        torch.set_num_threads(before)
