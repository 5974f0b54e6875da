"""What the hospitals train together: a logistic regression, FedAvg, columns scaled by a federated statistics round."""

from hansa import Job
from hansa.adapters.numpy import logistic
from hansa.learning import fedavg

job = Job("hearts", fedavg(logistic(features=22, lr=0.1, batch=32), rounds=5, standardise=True, monitor="auc"), data="heart")
