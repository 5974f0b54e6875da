"""The job of the tests of a deployed federation: four hospitals, a logistic regression, federated averaging."""

from hansa.adapters.numpy import logistic, mlp
from hansa.core.job import Job
from hansa.data import datasets, partition
from hansa.learning.fedavg import fedavg

SPLIT = (0.6, 0.15, 0.25)
data = partition.column(datasets.heart(), by="site", split=SPLIT)
learner = logistic(lr=0.1, epochs=1, batch=32, l2=1e-3).bound_to(datasets.heart(), classes=2)
job = Job("hearts", fedavg(learner, rounds=3, standardise=True, monitor="auc"), data="heart")
_many = mlp((24_000,), lr=0.01, epochs=1, batch=32).bound_to(datasets.heart(), classes=2)
wide = Job("wide", fedavg(_many, rounds=2, standardise=True), data="heart")  # an update of it takes two requests
