import numpy as np

import hansa as hs
from hansa import aggregators
from hansa.adapters.numpy import logistic
from hansa.learning import fedavg
from hansa.templates import AggregationProcess

number = hs.TensorType(np.float32)
weighted: AggregationProcess = aggregators.clipping_factory(1.0, aggregators.MeanFactory()).create(number, number)
plain: AggregationProcess = aggregators.zeroing_factory(1.0, aggregators.SumFactory()).create(number)
stack = aggregators.robust_aggregator(weighted=False).create(number)
fedavg(logistic(features=2), rounds=1, aggregator=aggregators.robust_aggregator())
