"""Counts, sums, means and variances over all sites' numbers, least and greatest: each one round, of sums and ends alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from hansa.analytics.values import FLOAT64, INT64, LIMBS, NUMBERS, known, limbs, local, rounded, values_of
from hansa.core.computation import federated_computation
from hansa.core.intrinsics import federated_aggregate, federated_map, federated_max, federated_min, federated_sum
from hansa.core.trees import Spec, Tree
from hansa.core.types import TensorType, to_type


class Moments(NamedTuple):
    """How many rows have a number, their mean, and the sum of squares about it."""

    rows: np.float64
    mean: np.float64
    squares: np.float64


@dataclass(frozen=True, slots=True)
class Joined:
    """The aggregator of sites' Moments, by the update of Chan, Golub & LeVeque (STAN-CS-79-773): a large mean costs no digit."""

    def zero(self, like: Tree) -> dict[str, Any]:  # noqa: ARG002  the protocol's
        """The moments of no numbers."""
        return Moments(np.float64(0), np.float64(0), np.float64(0))._asdict()

    def add(self, acc: Tree, update: Tree, weight: float = 1.0) -> dict[str, Any]:  # noqa: ARG002  counts weigh the sites
        """The moments with one more site's.

        Raises:
            SpecError: these are no moments; nothing was added.
        """
        _SPEC.check(update)
        return self.merge(acc, update)

    def merge(self, left: Tree, right: Tree) -> dict[str, Any]:
        """The moments of both."""
        (n, mean, squares), (m, other, more) = (tuple(np.float64(tree[name]) for name in Moments._fields) for tree in (left, right))  # type: ignore[arg-type]  # scalars
        share, apart = m / ((n + m) or 1.0), other - mean
        return Moments(n + m, mean + apart * share, squares + more + apart * apart * n * share)._asdict()

    def finish(self, acc: Tree | None) -> dict[str, Any]:
        """The moments of all sites."""
        return {name: np.asarray(value) for name, value in (self.zero({}) if acc is None else acc).items()}


_SPEC = Spec.of({name: np.zeros(()) for name in Moments._fields})
_EXACT = TensorType(np.int64, [LIMBS])
_OF = {"values": NUMBERS}
_size = local("size", lambda values: np.int64(len(known(values))), _OF, INT64)
_exact = local("exact_sum", lambda values: limbs(known(values)), _OF, _EXACT)
_least = local("least", lambda values: np.float64(known(values).min(initial=np.inf)), _OF, FLOAT64)
_greatest = local("greatest", lambda values: np.float64(known(values).max(initial=-np.inf)), _OF, FLOAT64)
_or_nan = local("or_nan", lambda x: np.float64(x if np.isfinite(x) else np.nan), {"x": FLOAT64}, FLOAT64)
_rounded = local("rounded", lambda total: np.float64(rounded(total)), {"total": _EXACT}, FLOAT64)
_quotient = local("quotient", lambda t, n: np.float64(rounded(t, int(n))), {"total": _EXACT, "count": INT64}, FLOAT64)


def _moments(values: Any) -> Moments:
    numbers = known(values)
    mean = rounded(limbs(numbers), len(numbers)) if len(numbers) else 0.0
    return Moments(np.float64(len(numbers)), np.float64(mean), np.float64(np.square(numbers - mean).sum()))


def _spread(moments: Moments) -> np.float64:
    return np.float64(moments.squares / moments.rows if moments.rows else np.nan)


_moments_of = local("moments", _moments, _OF, to_type(Moments))
_spread_of = local("variance", _spread, {"moments": to_type(Moments)}, FLOAT64)


@federated_computation(values_of())
def count(values: Any) -> Any:
    """How many numbers there are, without NaN."""
    return federated_sum(federated_map(_size, values))


@federated_computation(values_of())
def sum(values: Any) -> Any:  # noqa: A001  read as analytics.sum
    """The sum, exact and rounded once, however the numbers are spread over sites; 0 of none."""
    return federated_map(_rounded, federated_sum(federated_map(_exact, values)))


@federated_computation(values_of())
def mean(values: Any) -> Any:
    """The mean: the exact sum over the count, rounded once; nan of none."""
    return federated_map(_quotient, (federated_sum(federated_map(_exact, values)), federated_sum(federated_map(_size, values))))


@federated_computation(values_of())
def variance(values: Any) -> Any:
    """The mean square about the mean (over n, as np.var), from each site's count, mean and sum of squares; nan of none."""
    joined = federated_aggregate(federated_map(_moments_of, values), Joined())
    return federated_map(_spread_of, {"moments": joined})


@federated_computation(values_of())
def min(values: Any) -> Any:  # noqa: A001  read as analytics.min
    """The least number; nan of none. It is one row's: each site's own leaves the site."""
    return federated_map(_or_nan, federated_min(federated_map(_least, values)))


@federated_computation(values_of())
def max(values: Any) -> Any:  # noqa: A001  read as analytics.max
    """The greatest number; nan of none. It is one row's: each site's own leaves the site."""
    return federated_map(_or_nan, federated_max(federated_map(_greatest, values)))
