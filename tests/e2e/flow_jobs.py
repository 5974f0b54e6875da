"""A job that is no plain rounds: the model goes round, then every model is measured at every site."""

from hansa.adapters.numpy import logistic
from hansa.core.job import Job
from hansa.data import datasets, partition
from hansa.learning import cross_site, cyclic
from hansa.learning.sequence import Sequence

SITES = partition.column(datasets.heart(), by="site", split=(0.6, 0.15, 0.25))
data = {"heart": SITES, "data": SITES}  # a job file's data are called `data`
learner = logistic(lr=0.1, epochs=1, batch=32, l2=1e-3).bound_to(datasets.heart(), classes=2)
METRICS = ["auc", "loss"]
training = cyclic(learner, rounds=2, order="random", standardise=True, metrics=METRICS, keep_local=True)
job = Job("round-trip", Sequence(training, cross_site(learner, local=True, metrics=METRICS)), data="heart")
