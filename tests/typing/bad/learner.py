import numpy as np

from hansa import FitConfig, Learner, Shareable, Signal, Tree, Update
from hansa.core.protocols import Dataset, Evaluation
from hansa.core.trees import Array


class NoPredict:
    @property
    def metrics(self) -> tuple[str, ...]:
        return ()

    def init(self, rng: np.random.Generator) -> Tree:
        return {}

    def fit(self, model: Tree, data: Dataset, config: FitConfig, *, rng: np.random.Generator, abort: Signal) -> Update:
        return Update(model, 1, 1, 0.1)  # E: Missing positional argument "loss" in call to "Update"

    def evaluate(self, model: Tree, data: Dataset) -> Evaluation:
        return Evaluation(data.x, 0.0)


class SwappedArguments(NoPredict):
    def fit(
        self,
        data: Dataset,  # E: Argument 1 of "fit" is incompatible
        model: Tree,  # E: Argument 2 of "fit" is incompatible
        config: FitConfig,
        *,
        rng: np.random.Generator,
        abort: Signal,
    ) -> Update:
        return Update(model, 1, 1, 0.1, 0.0)

    def predict(self, model: Tree, x: Array) -> Array:
        return x


incomplete: Learner = NoPredict()  # E: expression has type "NoPredict"
swapped: Learner = SwappedArguments()  # E: expression has type "SwappedArguments"
config = FitConfig(learning_rate=0.1)  # E: Unexpected keyword argument "learning_rate"
message = Shareable(metrics={"loss": "low"})  # E: Dict entry 0 has incompatible type "str": "str"
message.headers = {}  # E: Property "headers" defined in "Shareable" is read-only
