"""Jobs that are no plain rounds: a model that goes round and is measured everywhere; a composed mean, then an analysis."""

from typing import Any

import numpy as np

from hansa import aggregators, analytics
from hansa.adapters.numpy import logistic
from hansa.core.computation import federated_computation
from hansa.core.intrinsics import federated_map
from hansa.core.job import Job
from hansa.core.protocols import Dataset
from hansa.core.trees import Array
from hansa.core.types import Clients
from hansa.data import datasets, partition
from hansa.learning import cross_site, cyclic, fedavg, once
from hansa.learning.sequence import Sequence

SITES = partition.column(datasets.heart(), by="site", split=(0.6, 0.15, 0.25))
data = {"heart": SITES, "data": SITES}  # a job file's data are called `data`
learner = logistic(lr=0.1, epochs=1, batch=32, l2=1e-3).bound_to(datasets.heart(), classes=2)
METRICS = ["auc", "loss"]
training = cyclic(learner, rounds=2, order="random", standardise=True, metrics=METRICS, keep_local=True)
job = Job("round-trip", Sequence(training, cross_site(learner, local=True, metrics=METRICS)), data="heart")

# The same hospitals with a composed aggregator, rotated, rounded at random and clipped to a learned norm; then an analysis.
STACK = aggregators.clipping_factory(
    aggregators.quantile_estimation(0.05, 0.5, 0.2),
    aggregators.MeanFactory(aggregators.HadamardTransformFactory(aggregators.QuantizedSumFactory(8, threshold=4))),
)


def ages(patients: Dataset) -> Array:
    return np.asarray(patients.x[:, 0])


@federated_computation
def quartiles_of_age(patients: Clients[Dataset]) -> Any:
    return analytics.quantiles([0.25, 0.5, 0.75])(federated_map(ages, patients))


clipped = fedavg(learner, rounds=3, standardise=True, metrics=METRICS, aggregator=STACK)
composed = Job("composed", Sequence(clipped, once(quartiles_of_age)), data="heart")
