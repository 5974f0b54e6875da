import hansa as hs
from hansa.adapters.numpy import softmax
from hansa.core.protocols import Dataset
from hansa.learning.fedavg import fedavg
from hansa.learning.fedopt import fedopt
from hansa.learning.fedsgd import fedsgd

learner = softmax(classes=2, features=4)
fedavg(learner, rounds=2, epoch=3)  # E: Unexpected keyword argument "epoch" for "fedavg"
fedavg(learner, rounds="2")  # E: Argument "rounds" to "fedavg" has incompatible type "str"; expected "int"
fedavg(learner)  # E: Missing named argument "rounds" for "fedavg"
fedavg(learner, 2)  # E: Too many positional arguments for "fedavg"
fedavg(object(), rounds=2)  # E: Argument 1 to "fedavg" has incompatible type "object"; expected "Learner | SiteLearner"
fedsgd(learner, rounds=2, combine="median")  # E: Argument "combine" to "fedsgd" has incompatible type
fedopt(learner, rounds=2, optimizer="adamw")  # E: Argument "optimizer" to "fedopt" has incompatible type
fedavg(learner, rounds=2, weighting="rows")  # E: Argument "weighting" to "fedavg" has incompatible type


def rows_of(data: Dataset) -> int:
    return len(data)


@hs.federated_computation
def counted(data: hs.Clients[Dataset]) -> hs.Server[float]:
    rows = hs.federated_map(rows_of, data)
    return hs.federated_sum(rows).upper()  # E: "int" has no attribute "upper"
