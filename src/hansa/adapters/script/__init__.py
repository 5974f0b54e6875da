"""Training scripts that already exist, as learners and executors: Hansa's side of `hansa.client`."""

from hansa.adapters.script.learner import ScriptExecutor, ScriptLearner

__all__ = ["ScriptExecutor", "ScriptLearner"]
