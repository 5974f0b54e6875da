"""TensorFlow Federated's tutorial on image classification: federated averaging of a Keras model, as written for it.

python tff_image_classification.py            (HANSA_DATA names the folder with MNIST; without it, scikit-learn's digits)
python tff_image_classification.py --small    (fewer rounds)
"""

import collections
import os
import sys

import tensorflow as tf

import hansa.compat.tff as tff

NUM_ROUNDS = 2 if "--small" in sys.argv else 20
NUM_CLIENTS, NUM_EPOCHS, BATCH_SIZE, SHUFFLE_BUFFER = 10, 5, 20, 100

emnist = tff.simulation.datasets.emnist
if "HANSA_DATA" in os.environ:
    emnist_train, emnist_test = emnist.load_data()
else:
    emnist_train, emnist_test = tff.simulation.datasets.ClientData.train_test_client_split(emnist.get_synthetic(), 4)
print(len(emnist_train.client_ids), "clients of", emnist_train.element_type_structure)


def preprocess(dataset):
    def batch_format_fn(element):
        return collections.OrderedDict(
            x=tf.reshape(element["pixels"], [-1, 784]),
            y=tf.reshape(element["label"], [-1, 1]),
        )

    return dataset.repeat(NUM_EPOCHS).shuffle(SHUFFLE_BUFFER, seed=1).batch(BATCH_SIZE).map(batch_format_fn)


def make_federated_data(client_data, client_ids):
    return [preprocess(client_data.create_tf_dataset_for_client(x)) for x in client_ids]


federated_train_data = make_federated_data(emnist_train, emnist_train.client_ids[:NUM_CLIENTS])


def model_fn():
    keras_model = tf.keras.models.Sequential(
        [
            tf.keras.layers.InputLayer(shape=(784,)),
            tf.keras.layers.Dense(10, kernel_initializer="zeros"),
            tf.keras.layers.Softmax(),
        ]
    )
    return tff.learning.models.from_keras_model(
        keras_model,
        input_spec=federated_train_data[0].element_spec,
        loss=tf.keras.losses.SparseCategoricalCrossentropy(),
        metrics=[tf.keras.metrics.SparseCategoricalAccuracy()],
    )


training_process = tff.learning.algorithms.build_weighted_fed_avg(
    model_fn,
    client_optimizer_fn=tff.learning.optimizers.build_sgdm(learning_rate=0.02),
    server_optimizer_fn=tff.learning.optimizers.build_sgdm(learning_rate=1.0),
)
print(training_process.initialize.type_signature.formatted_representation())

train_state = training_process.initialize()
for round_num in range(1, NUM_ROUNDS + 1):
    result = training_process.next(train_state, federated_train_data)
    train_state = result.state
    metrics = result.metrics["client_work"]["train"]
    print(f"round {round_num:2d}", ", ".join(f"{name}={float(value):.4g}" for name, value in metrics.items()))

evaluation_process = tff.learning.algorithms.build_fed_eval(model_fn)
evaluation_state = evaluation_process.initialize()
model_weights = training_process.get_model_weights(train_state)
evaluation_state = evaluation_process.set_model_weights(evaluation_state, model_weights)
sample_clients = [x for x in emnist_test.client_ids if x in emnist_train.client_ids[:NUM_CLIENTS]] or emnist_test.client_ids
evaluation_output = evaluation_process.next(evaluation_state, make_federated_data(emnist_test, sample_clients))
current = evaluation_output.metrics["client_work"]["eval"]["current_round_metrics"]
print("evaluation", ", ".join(f"{name}={float(value):.4g}" for name, value in current.items()))
