"""Local computations in TensorFlow: types by tracing, graphs compiled once, data sets and strings, and what may not be captured."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

tf = pytest.importorskip("tensorflow", reason="TensorFlow is not installed")

import keras  # noqa: E402  after importorskip

import hansa as hs  # noqa: E402
from hansa.adapters.tensorflow import backend  # noqa: E402
from hansa.core.protocols import LocalBackend  # noqa: E402
from hansa.core.types import to_type  # noqa: E402
from hansa.errors import TraceError  # noqa: E402

f32, i32 = np.float32, np.int32
BACKEND: LocalBackend = backend
BATCHES = hs.SequenceType(((f32, [None, 4]), (i32, [None, 1])))


def tensorflowed(*types: object, **options: Any) -> Any:
    return hs.local_computation(*types, backend="tensorflow", **options)


@dataclass
class Scored:
    loss: Any
    rows: Any


FOUND: list[tuple[Any, str]] = [
    (tensorflowed(tf.float32)(lambda x: x + 0.5), "(float32 -> float32)"),
    (tensorflowed()(lambda: [tf.zeros((784, 10)), tf.Variable(tf.zeros(10))]), "( -> <float32[784,10],float32[10]>)"),
    (tensorflowed((f32, [None, 3]))(lambda x: {"b": tf.transpose(x), "a": 1}), "(float32[?,3] -> <b=float32[3,?],a=int32>)"),
    (
        tensorflowed(tf.TensorSpec(None, tf.bfloat16))(lambda x: (x > 0, x)),
        "('bfloat16'(shape=None) -> <'bool'(shape=None),'bfloat16'(shape=None)>)",
    ),
    (tensorflowed(tf.string)(lambda s: tf.strings.length(s)), "(str -> int32)"),
    (tensorflowed(hs.SequenceType(f32))(lambda s: s.batch(2)), "(float32* -> float32[?]*)"),
    (tensorflowed(f32)(lambda x: Scored(x, 2**40)), "(float32 -> <loss=float32,rows=int64>)"),
]


@pytest.mark.parametrize(("made", "signature"), FOUND, ids=[text for _, text in FOUND])
def test_types_are_found_without_data(made: Any, signature: str) -> None:
    assert str(made.type_signature) == signature


def test_tensorflows_own_specifications_are_types() -> None:
    data = tf.data.Dataset.from_tensor_slices({"x": tf.zeros((5, 3)), "y": tf.constant(["a"] * 5)}).batch(2)
    assert str(to_type(data)) == str(hs.SequenceType(data.element_spec)) == "<x=float32[?,3],y=str[?]>*"
    assert str(to_type((tf.bool, [None]))) == "bool[?]"
    assert str(to_type(tf.Variable(tf.zeros((2, 3), tf.int8)))) == "int8[2,3]"
    with pytest.raises(TraceError, match=r"a data set's elements must be tensors.*Ragged"):
        to_type(tf.data.Dataset.from_tensors(tf.ragged.constant([[1], [2, 3]])))


def test_values_come_back_as_numpys_own_in_their_containers() -> None:
    scored = tensorflowed(f32)(lambda x: Scored(x, [tf.constant("Grüße"), tf.Variable(x)]))(3)
    assert scored == Scored(3, ["Grüße", 3])
    assert type(scored.loss) is np.float32
    halves = tensorflowed(hs.SequenceType((np.str_, [None])))(lambda s: s.unbatch().batch(2))
    assert [part.tolist() for part in halves([["a", "bc"], ["d"]])] == [["a", "bc"], ["d"]]


def test_python_over_tensors_and_data_sets_becomes_one_graph_that_is_traced_once() -> None:
    traced = []

    @tensorflowed(BATCHES)
    def mean(batches):  # type: ignore[no-untyped-def]  # the same
        traced.append(1)
        total, rows = 0.0, 0
        for x, _ in batches:
            if tf.reduce_sum(x) > 0:
                total += tf.reduce_sum(x)
                rows += tf.shape(x)[0]
        return total / tf.cast(rows, tf.float32)

    assert str(mean.type_signature) == "(<float32[?,4],int32[?,1]>* -> float32)"
    for sizes in ((2, 2, 1), (3,), (1, 3, 2)):  # tables, one batch, and batches of any size
        batches = [(np.ones((n, 4), f32), np.zeros((n, 1), i32)) for n in sizes]
        assert mean([*batches, (-np.ones((2, 4), f32), np.zeros((2, 1), i32))]) == 4
    again = tf.data.Dataset.from_tensor_slices((tf.ones((7, 4)), tf.zeros((7, 1), tf.int32))).batch(3)
    assert mean(again) == 4
    assert len(traced) == 1


def test_a_round_with_a_keras_model_gives_each_client_a_new_model() -> None:
    def built() -> Any:
        return keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, kernel_initializer="zeros")])

    @tensorflowed()
    def server_init():  # type: ignore[no-untyped-def]  # a local computation's types are its decorator's
        return built().trainable_variables

    weights = server_init.type_signature.result

    @tensorflowed(BATCHES, weights)
    def client_update(batches, start):  # type: ignore[no-untyped-def]  # the same
        model, optimizer = built(), keras.optimizers.SGD(0.1)
        for variable, value in zip(model.trainable_variables, start, strict=True):
            variable.assign(value)
        for x, y in batches:
            with tf.GradientTape() as tape:
                loss = keras.losses.sparse_categorical_crossentropy(y, model(x), from_logits=True)
            optimizer.apply_gradients(zip(tape.gradient(loss, model.trainable_variables), model.trainable_variables, strict=True))
        return model.trainable_variables

    @hs.federated_computation(hs.FederatedType(weights, hs.SERVER), hs.FederatedType(BATCHES, hs.CLIENTS))
    def round_(model: Any, data: Any) -> Any:
        return hs.federated_mean(hs.federated_map(client_update, (data, hs.federated_broadcast(model))))

    rng = np.random.default_rng(0)
    client = [(rng.normal(size=(n, 4)).astype(f32), rng.integers(0, 3, (n, 1)).astype(i32)) for n in (5, 5, 2)]
    one, many = (round_(server_init(), [client] * n) for n in (1, 3))
    model = built()
    model.set_weights(one)
    assert all(np.allclose(a, b, atol=1e-6) for a, b in zip(one, many, strict=True))
    assert np.abs(one[0]).sum() > 0


OUTER, TABLE = tf.constant([1.0, 2.0]), tf.constant(np.zeros(500, f32))
COUNT, ROWS = tf.Variable(0.0), tf.data.Dataset.range(3)


def helper(x: Any) -> Any:
    return x + tf.reduce_sum(TABLE)


def test_what_was_made_outside_is_named() -> None:
    for fn, what in (
        (lambda x: x + OUTER, r"OUTER \(eager tensor\)"),
        (lambda x: helper(x), r"TABLE \(eager tensor\)"),
        (lambda x: x + COUNT, r"COUNT \(ResourceVariable\)"),
        (lambda x: (x, ROWS.reduce(np.int64(0), lambda a, b: a + b)), r"ROWS \(data set\)"),
    ):
        with pytest.raises(TraceError, match=rf"captures what was made outside it; .*{what}.*give it as an argument \[test_ten"):
            tensorflowed(f32)(fn)
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    with pytest.raises(TraceError, match=r"model \(Sequential\)"):
        tensorflowed((f32, [None, 1]))(lambda x: model(x))


def test_what_cannot_be_traced_is_told_with_its_reason() -> None:
    with pytest.raises(TraceError, match=r"TensorFlow cannot trace the function.*InvalidArgumentError|ValueError.*\[test_ten"):
        tensorflowed((f32, [2]), (f32, [3]))(lambda a, b: a + b)
    with pytest.raises(TraceError, match=r"what the function gives must be tensors; .*NoneType"):
        tensorflowed(f32)(lambda x: None)
