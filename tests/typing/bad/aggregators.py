import numpy as np

import hansa as hs
from hansa import aggregators
from hansa.adapters.numpy import logistic
from hansa.learning import fedavg

number = hs.TensorType(np.float32)
clipped = aggregators.clipping_factory(1.0, aggregators.MeanFactory())
clipped.create(number)  # E: Missing positional argument "weight_type" in call to "create" of "MeanFactory"
aggregators.robust_aggregator(weighted=False).create(number, number)  # E: Too many arguments for "create"
aggregators.MeanFactory(aggregators.MeanFactory())  # E: Argument 1 to "MeanFactory" has incompatible type "MeanFactory"
fedavg(logistic(features=2), rounds=1, aggregator=3)  # E: Argument "aggregator" to "fedavg" has incompatible type "int"
