"""FedAvg on a hundred simulated clients whose labels are skewed: twenty lines of torch. `hansa run digits.py:job` runs it, too."""

import sys

import torch

import hansa as hs
from hansa.adapters.torch import TorchLearner
from hansa.data import datasets, partition
from hansa.learning import fedavg


def net() -> torch.nn.Module:
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))


learner = TorchLearner(net, loss=torch.nn.functional.cross_entropy, lr=0.1, epochs=1)
job = hs.Job("digits", fedavg(learner, rounds=2 if "--small" in sys.argv else 20, cohort=10), data="digits")

if __name__ == "__main__":
    shards = partition.dirichlet(datasets.digits(), sites=100, alpha=0.3, seed=0)
    print(hs.simulate(job, {"digits": shards}, seed=0).metrics[-1])
