"""TensorFlow Federated's tutorial on building an algorithm of one's own, as written for it, but for the line `import ... as tff`.

python tff_tutorial.py            (HANSA_DATA names the folder with MNIST; without it, scikit-learn's digits)
python tff_tutorial.py --small    (fewer rounds)
"""

import os
import sys

import tensorflow as tf

import hansa.compat.tff as tff

ROUNDS = 2 if "--small" in sys.argv else 15
NUM_CLIENTS, BATCH_SIZE = 10, 20

# Data: a tf.data.Dataset for each client ----------------------------------------------------------------------------------------

emnist = tff.simulation.datasets.emnist
if "HANSA_DATA" in os.environ:
    emnist_train, emnist_test = emnist.load_data()
else:
    emnist_train, emnist_test = tff.simulation.datasets.ClientData.train_test_client_split(emnist.get_synthetic(), 4)


def preprocess(dataset):
    def batch_format_fn(element):
        return (tf.reshape(element["pixels"], [-1, 784]), tf.reshape(element["label"], [-1, 1]))

    return dataset.batch(BATCH_SIZE).map(batch_format_fn)


client_ids = sorted(emnist_train.client_ids)[:NUM_CLIENTS]
federated_train_data = [preprocess(emnist_train.create_tf_dataset_for_client(x)) for x in client_ids]
central_emnist_test = preprocess(emnist_test.create_tf_dataset_from_all_clients())

# The model, and what clients and server do with it in TensorFlow ----------------------------------------------------------------


def create_keras_model():
    initializer = tf.keras.initializers.GlorotNormal(seed=0)
    return tf.keras.models.Sequential(
        [
            tf.keras.layers.Input(shape=(784,)),
            tf.keras.layers.Dense(10, kernel_initializer=initializer),
            tf.keras.layers.Softmax(),
        ]
    )


def model_fn():
    keras_model = create_keras_model()
    return tff.learning.from_keras_model(
        keras_model,
        input_spec=federated_train_data[0].element_spec,
        loss=tf.keras.losses.SparseCategoricalCrossentropy(),
        metrics=[tf.keras.metrics.SparseCategoricalAccuracy()],
    )


@tf.function
def client_update(model, dataset, server_weights, client_optimizer):
    """The client's weights after one pass over its batches, from the server's on."""
    client_weights = model.trainable_variables
    tf.nest.map_structure(lambda x, y: x.assign(y), client_weights, server_weights)
    for batch in dataset:
        with tf.GradientTape() as tape:
            outputs = model.forward_pass(batch)
        grads = tape.gradient(outputs.loss, client_weights)
        client_optimizer.apply_gradients(zip(grads, client_weights, strict=True))
    return client_weights


@tf.function
def server_update(model, mean_client_weights):
    """The model with the clients' mean for its weights."""
    model_weights = model.trainable_variables
    tf.nest.map_structure(lambda x, y: x.assign(y), model_weights, mean_client_weights)
    return model_weights


# Federated types and computations -----------------------------------------------------------------------------------------------

federated_float_on_clients = tff.FederatedType(tf.float32, tff.CLIENTS)
print(str(federated_float_on_clients))


@tff.federated_computation(tff.FederatedType(tf.float32, tff.CLIENTS))
def get_average_temperature(client_temperatures):
    return tff.federated_mean(client_temperatures)


print(str(get_average_temperature.type_signature), get_average_temperature([68.5, 70.3, 69.8]))


@tff.tf_computation(tf.float32)
def add_half(x):
    return tf.add(x, 0.5)


print(str(add_half.type_signature))


@tff.federated_computation(tff.FederatedType(tf.float32, tff.CLIENTS))
def add_half_on_clients(x):
    return tff.federated_map(add_half, x)


print(str(add_half_on_clients.type_signature), add_half_on_clients([1.0, 3.0, 2.0]))

# The algorithm in those: where it starts, and one round -------------------------------------------------------------------------


@tff.tf_computation
def server_init():
    model = model_fn()
    return model.trainable_variables


@tff.federated_computation
def initialize_fn():
    return tff.federated_value(server_init(), tff.SERVER)


whimsy_model = model_fn()
tf_dataset_type = tff.SequenceType(whimsy_model.input_spec)
model_weights_type = server_init.type_signature.result
print(server_init.type_signature, tf_dataset_type, model_weights_type, sep="\n")


@tff.tf_computation(tf_dataset_type, model_weights_type)
def client_update_fn(tf_dataset, server_weights):
    model = model_fn()
    client_optimizer = tf.keras.optimizers.SGD(learning_rate=0.01)
    return client_update(model, tf_dataset, server_weights, client_optimizer)


@tff.tf_computation(model_weights_type)
def server_update_fn(mean_client_weights):
    model = model_fn()
    return server_update(model, mean_client_weights)


print(client_update_fn.type_signature, server_update_fn.type_signature, sep="\n")

federated_server_type = tff.FederatedType(model_weights_type, tff.SERVER)
federated_dataset_type = tff.FederatedType(tf_dataset_type, tff.CLIENTS)


@tff.federated_computation(federated_server_type, federated_dataset_type)
def next_fn(server_weights, federated_dataset):
    server_weights_at_client = tff.federated_broadcast(server_weights)
    client_weights = tff.federated_map(client_update_fn, (federated_dataset, server_weights_at_client))
    mean_client_weights = tff.federated_mean(client_weights)
    return tff.federated_map(server_update_fn, mean_client_weights)


federated_algorithm = tff.templates.IterativeProcess(initialize_fn=initialize_fn, next_fn=next_fn)
print(str(federated_algorithm.initialize.type_signature))
print(str(federated_algorithm.next.type_signature))

# Rounds -------------------------------------------------------------------------------------------------------------------------


def evaluate(server_state):
    keras_model = create_keras_model()
    keras_model.compile(
        loss=tf.keras.losses.SparseCategoricalCrossentropy(), metrics=[tf.keras.metrics.SparseCategoricalAccuracy()]
    )
    keras_model.set_weights(server_state)
    return keras_model.evaluate(central_emnist_test, verbose=0)


def rounds(algorithm, data, weights=lambda state: state):
    server_state = algorithm.initialize()
    before = evaluate(weights(server_state))
    for _ in range(ROUNDS):
        server_state = algorithm.next(server_state, data)
    loss, accuracy = evaluate(weights(server_state))
    print(f"loss {before[0]:.4f} accuracy {before[1]:.4f} before, {loss:.4f} and {accuracy:.4f} after {ROUNDS} rounds")


rounds(federated_algorithm, federated_train_data)

# Exercise 1: the server goes half of the way to the clients' mean ---------------------------------------------------------------


@tf.function
def midpoint_update(model, mean_client_weights, server_weights):
    model_weights = model.trainable_variables
    tf.nest.map_structure(lambda x, y, z: x.assign((y + z) / 2.0), model_weights, mean_client_weights, server_weights)
    return model_weights


@tff.tf_computation(model_weights_type, model_weights_type)
def midpoint_update_fn(mean_client_weights, server_weights):
    return midpoint_update(model_fn(), mean_client_weights, server_weights)


@tff.federated_computation(federated_server_type, federated_dataset_type)
def midpoint_next_fn(server_weights, federated_dataset):
    server_weights_at_client = tff.federated_broadcast(server_weights)
    client_weights = tff.federated_map(client_update_fn, (federated_dataset, server_weights_at_client))
    return tff.federated_map(midpoint_update_fn, (tff.federated_mean(client_weights), server_weights))


print("exercise 1, midpoint")
rounds(tff.templates.IterativeProcess(initialize_fn, midpoint_next_fn), federated_train_data)

# Exercise 2: clients clip their gradients ---------------------------------------------------------------------------------------


@tf.function
def clipped_update(model, dataset, server_weights, client_optimizer):
    client_weights = model.trainable_variables
    tf.nest.map_structure(lambda x, y: x.assign(y), client_weights, server_weights)
    for batch in dataset:
        with tf.GradientTape() as tape:
            outputs = model.forward_pass(batch)
        grads, _ = tf.clip_by_global_norm(tape.gradient(outputs.loss, client_weights), 1.0)
        client_optimizer.apply_gradients(zip(grads, client_weights, strict=True))
    return client_weights


@tff.tf_computation(tf_dataset_type, model_weights_type)
def clipped_update_fn(tf_dataset, server_weights):
    return clipped_update(model_fn(), tf_dataset, server_weights, tf.keras.optimizers.SGD(learning_rate=0.01))


@tff.federated_computation(federated_server_type, federated_dataset_type)
def clipped_next_fn(server_weights, federated_dataset):
    client_weights = tff.federated_map(clipped_update_fn, (federated_dataset, tff.federated_broadcast(server_weights)))
    return tff.federated_map(server_update_fn, tff.federated_mean(client_weights))


print("exercise 2, clipped gradients")
rounds(tff.templates.IterativeProcess(initialize_fn, clipped_next_fn), federated_train_data)

# Exercise 3: the clients' step size decays; the server's state carries it, so the types change ----------------------------------


@tff.tf_computation
def decay_init():
    return {"weights": model_fn().trainable_variables, "learning_rate": tf.constant(0.05)}


state_type = decay_init.type_signature.result


@tff.federated_computation
def decay_initialize_fn():
    return tff.federated_value(decay_init(), tff.SERVER)


@tff.tf_computation(tf_dataset_type, state_type)
def decaying_update_fn(tf_dataset, state):
    optimizer = tf.keras.optimizers.SGD()
    optimizer.learning_rate.assign(state["learning_rate"])
    return client_update(model_fn(), tf_dataset, state["weights"], optimizer)


@tff.tf_computation(model_weights_type, tf.float32)
def decayed_state(weights, learning_rate):
    return {"weights": weights, "learning_rate": 0.9 * learning_rate}


@tff.federated_computation(tff.FederatedType(state_type, tff.SERVER), federated_dataset_type)
def decay_next_fn(state, federated_dataset):
    client_weights = tff.federated_map(decaying_update_fn, (federated_dataset, tff.federated_broadcast(state)))
    return tff.federated_map(decayed_state, (tff.federated_mean(client_weights), state["learning_rate"]))


decaying_algorithm = tff.templates.IterativeProcess(decay_initialize_fn, decay_next_fn)
print("exercise 3, decaying step size")
print(decaying_algorithm.next.type_signature)
rounds(decaying_algorithm, federated_train_data, weights=lambda state: state["weights"])
