"""A job whose transfers are thin: half precision both ways, and a layer that stays at each site."""

from hansa.adapters.numpy import mlp
from hansa.aggregation.filters import HalfPrecision
from hansa.core.job import Job
from hansa.data import datasets, partition
from hansa.learning.fedavg import fedavg

data = partition.iid(datasets.digits(), sites=2, seed=0)
learner = mlp((16,), classes=10, features=64)
job = Job("thin", fedavg(learner, rounds=2, personal=["1.*"]), data="digits", filters=[HalfPrecision("bfloat16")])
