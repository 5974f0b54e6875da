"""A typed round in TensorFlow: how many readings are above a threshold, over all sites; and what a function may not capture."""

from typing import Any

import numpy as np
import tensorflow as tf

import hansa as hs

READINGS = hs.SequenceType(tf.float32)


@hs.local_computation(READINGS, tf.float32, backend="tensorflow")
def share_above(readings, threshold):  # type: ignore[no-untyped-def]  # the decorator says the types
    above, count = 0, 0
    for reading in readings:  # a tf.data.Dataset: the loop is part of the graph
        if reading > threshold:
            above += 1
        count += 1
    return {"share": tf.cast(above, tf.float32) / tf.cast(count, tf.float32), "count": count}


@hs.federated_computation(hs.FederatedType(READINGS, hs.CLIENTS), hs.FederatedType(tf.float32, hs.SERVER))
def hot_sites(readings: Any, threshold: Any) -> Any:
    found = hs.federated_map(share_above, (readings, hs.federated_broadcast(threshold)))
    return {"share": hs.federated_mean(found.share, weight=found.count), "readings": hs.federated_sum(found.count)}


if __name__ == "__main__":
    print(share_above.type_signature)
    print(hot_sites.type_signature)
    print(hot_sites([np.array([68.5, 70.3]), np.array([71.0]), np.array([68.0, 72.0, 70.0])], 70.0))
    scale = tf.constant(1.8)
    try:
        hs.local_computation(tf.float32, backend="tensorflow")(lambda celsius: celsius * scale + 32.0)
    except hs.HansaError as error:
        print(error)
