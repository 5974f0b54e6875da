"""TensorFlow Federated's tutorial on text generation: a recurrent network learns the next character, each speaker is a client.

python tff_text_generation.py            (HANSA_DATA names the folder with tinyshakespeare; without it, a scene of two)
python tff_text_generation.py --small    (fewer rounds, a smaller network)

The tutorial goes on from weights that were trained elsewhere; here the server makes the first ones, on the words of one speaker.
"""

import os
import sys

import tensorflow as tf

import hansa.compat.tff as tff

SMALL = "--small" in sys.argv
NUM_ROUNDS, CLIENTS_PER_ROUND = (2, 2) if SMALL else (10, 10)
SEQ_LENGTH, BATCH_SIZE, BUFFER_SIZE = (20, 4, 100) if SMALL else (80, 8, 1000)
UNITS = 16 if SMALL else 128

tf.keras.utils.set_random_seed(0)
shakespeare = tff.simulation.datasets.shakespeare
if "HANSA_DATA" in os.environ:
    train_data, test_data = shakespeare.load_data()
else:
    train_data = test_data = shakespeare.get_synthetic()
vocab = sorted(set("\n !$&',-.3:;?ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"))

# Characters to numbers, pieces to pairs of what is read and what comes next -----------------------------------------------------

table = tf.lookup.StaticHashTable(
    tf.lookup.KeyValueTensorInitializer(keys=vocab, values=tf.constant(list(range(len(vocab))), dtype=tf.int64)), default_value=0
)


def to_ids(x):
    chars = tf.strings.bytes_split(tf.reshape(x["snippets"], shape=[1])).values
    return table.lookup(chars)


def split_input_target(chunk):
    return tf.map_fn(lambda x: x[:-1], chunk), tf.map_fn(lambda x: x[1:], chunk)


def preprocess(dataset):
    return (
        dataset.map(to_ids)
        .unbatch()
        .batch(SEQ_LENGTH + 1, drop_remainder=True)
        .shuffle(BUFFER_SIZE, seed=0)
        .batch(BATCH_SIZE, drop_remainder=True)
        .map(split_input_target)
    )


class FlattenedCategoricalAccuracy(tf.keras.metrics.SparseCategoricalAccuracy):
    """The share of characters that are guessed right."""

    def __init__(self, name="accuracy", dtype=None):
        super().__init__(name, dtype=dtype)

    def update_state(self, y_true, y_pred, sample_weight=None):
        y_true = tf.reshape(y_true, [-1, 1])
        y_pred = tf.reshape(y_pred, [-1, len(vocab)])
        return super().update_state(y_true, y_pred, sample_weight)


def create_keras_model():
    return tf.keras.Sequential(
        [
            tf.keras.layers.Input(shape=(SEQ_LENGTH,), dtype=tf.int64),
            tf.keras.layers.Embedding(len(vocab), 16),
            tf.keras.layers.GRU(UNITS, return_sequences=True),
            tf.keras.layers.Dense(len(vocab)),
        ]
    )


def loss():
    return tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def generate_text(model, start_string, length=60):
    ids = [vocab.index(c) for c in start_string]
    for _ in range(length):
        logits = model(tf.constant([ids[-SEQ_LENGTH:]]))[0, -1]
        ids.append(int(tf.argmax(logits)))
    return "".join(vocab[i] for i in ids)


# The server's first weights, then rounds over the speakers ----------------------------------------------------------------------

clients = [x for x in train_data.client_ids if any(True for _ in preprocess(train_data.create_tf_dataset_for_client(x)).take(1))]
example_dataset = preprocess(train_data.create_tf_dataset_for_client(clients[0]))
print(example_dataset.element_spec)

keras_model = create_keras_model()
keras_model.compile(optimizer=tf.keras.optimizers.Adam(0.01), loss=loss(), metrics=[FlattenedCategoricalAccuracy()])
for x, y in example_dataset:
    keras_model.train_on_batch(x, y)


def create_tff_model():
    return tff.learning.models.from_keras_model(
        create_keras_model(), input_spec=example_dataset.element_spec, loss=loss(), metrics=[FlattenedCategoricalAccuracy()]
    )


fed_avg = tff.learning.algorithms.build_weighted_fed_avg(create_tff_model, client_optimizer_fn=lambda: tf.keras.optimizers.SGD(1.0))
state = fed_avg.initialize()
state = fed_avg.set_model_weights(
    state,
    tff.learning.models.ModelWeights(
        trainable=[v.numpy() for v in keras_model.trainable_weights],
        non_trainable=[v.numpy() for v in keras_model.non_trainable_weights],
    ),
)

test_dataset = preprocess(test_data.create_tf_dataset_from_all_clients()).take(4 if SMALL else 100)
test_x, test_y = (tf.concat(parts, 0) for parts in zip(*test_dataset, strict=True))


def keras_evaluate(state, round_num):
    fed_avg.get_model_weights(state).assign_weights_to(keras_model)
    value, accuracy = keras_model.evaluate(test_x, test_y, verbose=0)
    print(f"round {round_num:2d}: test loss {value:.3f}, accuracy {accuracy:.3f}", flush=True)


sample = tff.simulation.build_uniform_sampling_fn(clients, random_seed=0)
for round_num in range(NUM_ROUNDS):
    keras_evaluate(state, round_num)
    chosen = [preprocess(train_data.create_tf_dataset_for_client(x)).take(10) for x in sample(round_num, CLIENTS_PER_ROUND)]
    state, metrics = fed_avg.next(state, chosen)
keras_evaluate(state, NUM_ROUNDS)
print(generate_text(keras_model, "What of "))
