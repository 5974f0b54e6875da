"""The job of `train_sklearn.py`: `hansa run job_sklearn.py:job`. It needs no torch, and neither do the sites."""

import numpy as np

from hansa import Job
from hansa.adapters.script import ScriptLearner
from hansa.data import datasets, partition
from hansa.learning import fedavg

start = {"coef": np.zeros((10, 64)), "intercept": np.zeros(10)}
learner = ScriptLearner("train_sklearn.py", init=start, config={"epochs": 2})
job = Job("digits-sklearn", fedavg(learner, rounds=3), data="digits", requires=["scikit-learn"])
data = partition.iid(datasets.digits(), sites=3, seed=0)
