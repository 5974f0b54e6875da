"""Federated analytics: what all sites' rows say together, as typed computations of sums, ends and counts."""

from hansa.analytics.distinct import distinct, standard_error
from hansa.analytics.moments import count, max, mean, min, sum, variance  # noqa: A004  read as analytics.sum
from hansa.analytics.ranks import histogram, quantiles

__all__ = ["count", "distinct", "histogram", "max", "mean", "min", "quantiles", "standard_error", "sum", "variance"]
