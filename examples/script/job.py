"""Which script, which algorithm: `hansa run job.py:job`, or in a federation `hansa job submit job.py:job`."""

from train import net  # type: ignore[import-not-found]  # it stands beside this file

from hansa import Job
from hansa.adapters.script import ScriptLearner
from hansa.data import datasets, partition
from hansa.learning import fedavg

learner = ScriptLearner("train.py", init=net, metrics=("accuracy", "loss"))
job = Job("digits-script", fedavg(learner, rounds=5), data="digits")
data = partition.dirichlet(datasets.digits(), sites=3, alpha=1.0, seed=0)  # of the simulation, or of `hansa up`
