"""What TensorFlow Federated's tutorials print, as far as it does not hang on their data, under their own spelling."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

import hansa.compat.tff as tff

FLOATS = tff.FederatedType(tf.float32, tff.CLIENTS)

# Custom federated algorithms, part 1 ---------------------------------------------------------------------------------------------


def test_part_1_local_computations() -> None:
    @tff.federated_computation
    def hello_world() -> Any:
        return "Hello, World!"

    @tff.tf_computation(tf.float32)
    def add_half(x: Any) -> Any:
        return tf.add(x, 0.5)

    @tff.federated_computation(FLOATS)
    def add_half_on_clients(x: Any) -> Any:
        return tff.federated_map(add_half, x)

    @tff.tf_computation(tf.float32)
    def add_ten(x: Any) -> Any:
        for _ in range(20):
            x = add_half(x)
        return x

    assert hello_world() == "Hello, World!"
    assert str(add_half.type_signature) == "(float32 -> float32)"
    assert str(add_half_on_clients.type_signature) == "({float32}@CLIENTS -> {float32}@CLIENTS)"
    assert [float(x) for x in add_half_on_clients([1.0, 3.0, 2.0])] == [1.5, 3.5, 2.5]
    assert float(add_ten(5.0)) == 15.0


def test_part_1_sequences() -> None:
    @tff.tf_computation(tff.SequenceType(tf.float32))
    def get_local_temperature_average(local_temperatures: Any) -> Any:
        sum_and_count = local_temperatures.reduce((0.0, 0), lambda x, y: (x[0] + y, x[1] + 1))
        return sum_and_count[0] / tf.cast(sum_and_count[1], tf.float32)

    @tff.tf_computation(tff.SequenceType(tf.int32))
    def total(x: Any) -> Any:
        return x.reduce(np.int32(0), lambda x, y: x + y)

    @tff.tf_computation(tff.SequenceType(OrderedDict([("A", tf.int32), ("B", tf.int32)])))
    def dot(ds: Any) -> Any:
        return ds.reduce(np.int32(0), lambda total, x: total + x["A"] * x["B"])

    @tff.federated_computation(tff.FederatedType(tff.SequenceType(tf.float32), tff.CLIENTS))
    def get_global_temperature_average(sensor_readings: Any) -> Any:
        return tff.federated_mean(tff.federated_map(get_local_temperature_average, sensor_readings))

    assert str(get_local_temperature_average.type_signature) == "(float32* -> float32)"
    assert float(get_local_temperature_average([68.5, 70.3, 69.8])) == pytest.approx(69.53333, rel=1e-6)
    assert int(total([1, 2, 3])) == 6
    assert str(dot.type_signature) == "(<A=int32,B=int32>* -> int32)"
    assert int(dot([{"A": 2, "B": 3}, {"A": 4, "B": 5}])) == 26
    assert str(get_global_temperature_average.type_signature) == "({float32*}@CLIENTS -> float32@SERVER)"
    assert float(get_global_temperature_average([[68.0, 70.0], [71.0], [68.0, 72.0, 70.0]])) == 70.0


# Custom federated algorithms, part 2: softmax regression, batch by batch, in a sequence_reduce ------------------------------------

BATCH_TYPE = tff.to_type(OrderedDict(x=tf.TensorSpec([None, 784], tf.float32), y=tf.TensorSpec([None], tf.int32)))
MODEL_TYPE = tff.to_type(OrderedDict(weights=tf.TensorSpec([784, 10], tf.float32), bias=tf.TensorSpec([10], tf.float32)))
LOCAL_DATA_TYPE = tff.SequenceType(BATCH_TYPE)


def forward_pass(model: Any, batch: Any) -> Any:
    predicted_y = tf.nn.softmax(tf.matmul(batch["x"], model["weights"]) + model["bias"])
    return -tf.reduce_mean(tf.reduce_sum(tf.one_hot(batch["y"], 10) * tf.math.log(predicted_y), axis=[1]))


@tff.tf_computation(MODEL_TYPE, BATCH_TYPE)
def batch_loss(model: Any, batch: Any) -> Any:
    return forward_pass(model, batch)


@tff.tf_computation(MODEL_TYPE, BATCH_TYPE, tf.float32)
def batch_train(initial_model: Any, batch: Any, learning_rate: Any) -> Any:
    model_vars = OrderedDict([(name, tf.Variable(name=name, initial_value=value)) for name, value in initial_model.items()])
    optimizer = tf.keras.optimizers.SGD()
    optimizer.learning_rate.assign(learning_rate)
    with tf.GradientTape() as tape:
        loss = forward_pass(model_vars, batch)
    grads = tape.gradient(loss, model_vars)
    optimizer.apply_gradients(zip(tf.nest.flatten(grads), tf.nest.flatten(model_vars), strict=True))
    return model_vars


@tff.federated_computation(MODEL_TYPE, tf.float32, LOCAL_DATA_TYPE)
def local_train(initial_model: Any, learning_rate: Any, all_batches: Any) -> Any:
    @tff.tf_computation(LOCAL_DATA_TYPE, tf.float32)
    def insert_learning_rate_to_sequence(dataset: Any, learning_rate: Any) -> Any:
        return dataset.map(lambda x: (x, learning_rate))

    batches_with_learning_rate = insert_learning_rate_to_sequence(all_batches, learning_rate)

    @tff.federated_computation(MODEL_TYPE, batches_with_learning_rate.type_signature.element)
    def batch_fn(model: Any, batch_with_lr: Any) -> Any:
        batch, lr = batch_with_lr
        return batch_train(model, batch, lr)

    return tff.sequence_reduce(batches_with_learning_rate, initial_model, batch_fn)


@tff.federated_computation(MODEL_TYPE, LOCAL_DATA_TYPE)
def local_eval(model: Any, all_batches: Any) -> Any:
    @tff.tf_computation(MODEL_TYPE, LOCAL_DATA_TYPE)
    def insert_model_to_sequence(model: Any, dataset: Any) -> Any:
        return dataset.map(lambda x: (model, x))

    @tff.tf_computation(MODEL_TYPE, BATCH_TYPE)
    def tff_batch_loss(model: Any, batch: Any) -> Any:
        return batch_loss(model, batch)

    return tff.sequence_sum(tff.sequence_map(tff_batch_loss, insert_model_to_sequence(model, all_batches)))


@tff.federated_computation(tff.FederatedType(MODEL_TYPE, tff.SERVER), tff.FederatedType(LOCAL_DATA_TYPE, tff.CLIENTS))
def federated_eval(model: Any, data: Any) -> Any:
    return tff.federated_mean(tff.federated_map(local_eval, [tff.federated_broadcast(model), data]))


SERVER_FLOAT_TYPE = tff.FederatedType(tf.float32, tff.SERVER)


@tff.federated_computation(
    tff.FederatedType(MODEL_TYPE, tff.SERVER), SERVER_FLOAT_TYPE, tff.FederatedType(LOCAL_DATA_TYPE, tff.CLIENTS)
)
def federated_train(model: Any, learning_rate: Any, data: Any) -> Any:
    inputs = [tff.federated_broadcast(model), tff.federated_broadcast(learning_rate), data]
    return tff.federated_mean(tff.federated_map(local_train, inputs))


def digits(count: int, batches: int, seed: int) -> list[dict[str, Any]]:
    rng = np.random.default_rng(seed)
    return [{"x": rng.random((count, 784), np.float32), "y": rng.integers(0, 10, count).astype(np.int32)} for _ in range(batches)]


def test_part_2_types() -> None:
    batch, model = "<x=float32[?,784],y=int32[?]>", "<weights=float32[784,10],bias=float32[10]>"
    assert [str(BATCH_TYPE), str(MODEL_TYPE)] == [batch, model]
    assert str(batch_loss.type_signature) == f"(<model={model},batch={batch}> -> float32)"
    assert str(batch_train.type_signature) == f"(<initial_model={model},batch={batch},learning_rate=float32> -> {model})"
    assert str(local_train.type_signature) == f"(<initial_model={model},learning_rate=float32,all_batches={batch}*> -> {model})"
    assert str(local_eval.type_signature) == f"(<model={model},all_batches={batch}*> -> float32)"


def test_part_2_losses_of_the_first_model_and_a_few_steps() -> None:
    zeros = OrderedDict(weights=np.zeros((784, 10), np.float32), bias=np.zeros(10, np.float32))
    clients = [digits(12, 10, seed) for seed in range(3)]
    assert float(batch_loss(zeros, clients[0][0])) == pytest.approx(2.3025851, rel=1e-6)
    assert float(local_eval(zeros, clients[0])) == pytest.approx(23.025854, rel=1e-6)
    assert float(federated_eval(zeros, clients)) == pytest.approx(23.025852, rel=1e-6)
    stepped, losses = zeros, []
    for _ in range(5):
        stepped = batch_train(stepped, clients[0][0], 0.01)
        losses.append(float(batch_loss(stepped, clients[0][0])))
    assert losses == sorted(losses, reverse=True)
    assert losses[0] < 2.3025851
    trained = federated_train(zeros, 0.01, clients)
    apart = [local_train(zeros, 0.01, client) for client in clients]
    np.testing.assert_allclose(trained["bias"], np.mean([each["bias"] for each in apart], axis=0), rtol=1e-5, atol=1e-7)


# Custom aggregators --------------------------------------------------------------------------------------------------------------


class ExampleTaskFactory(tff.aggregators.UnweightedAggregationFactory):
    """Doubles values, sums them by an inner process, and adds up what it has summed."""

    def __init__(self, inner_factory: Any = None) -> None:
        self._inner = inner_factory or tff.aggregators.SumFactory()

    def create(self, value_type: Any) -> Any:
        inner_process = self._inner.create(value_type)

        @tff.federated_computation
        def initialize_fn() -> Any:
            return tff.federated_zip((inner_process.initialize(), tff.federated_value(0.0, tff.SERVER)))

        @tff.tf_computation
        def scale(value: Any) -> Any:
            return tf.nest.map_structure(lambda x: x * 2.0, value)

        @tff.tf_computation
        def add_one(scaled_value: Any, so_far: Any) -> Any:
            return so_far + scaled_value

        state_type: tff.Type = initialize_fn.type_signature.result

        @tff.federated_computation(state_type, tff.type_at_clients(value_type))
        def next_fn(state: Any, value: Any) -> Any:
            inner_state, total = state
            inner_output = inner_process.next(inner_state, tff.federated_map(scale, value))
            new_total = tff.federated_map(add_one, (inner_output.result, total))
            measurements = OrderedDict(scaled_value=new_total, example_task=inner_output.measurements)
            return tff.templates.MeasuredProcessOutput(
                state=tff.federated_zip((inner_output.state, new_total)),
                result=inner_output.result,
                measurements=tff.federated_zip(measurements),
            )

        return tff.templates.AggregationProcess(initialize_fn, next_fn)


def test_aggregators_of_ones_own_without_and_with_a_state() -> None:
    @tff.federated_computation()
    def nothing() -> Any:
        return tff.federated_value((), tff.SERVER)

    @tff.federated_computation(nothing.type_signature.result, FLOATS)
    def stateless(state: Any, value: Any) -> Any:
        summed = tff.federated_sum(tff.federated_map(tff.tf_computation(lambda x: x), value))
        doubled = tff.federated_map(tff.tf_computation(lambda x: 2.0 * x), summed)
        return tff.templates.MeasuredProcessOutput(state, doubled, tff.federated_value((), tff.SERVER))

    @tff.federated_computation
    def zero() -> Any:
        return tff.federated_value(0.0, tff.SERVER)

    add = tff.tf_computation(lambda x, y: x + y)

    @tff.federated_computation(tff.type_at_server(tf.float32), FLOATS)
    def counting(state: Any, value: Any) -> Any:
        summed = tff.federated_sum(value)
        total = tff.federated_map(add, (state, summed))
        return tff.templates.MeasuredProcessOutput(total, summed, total)

    first = tff.templates.AggregationProcess(nothing, stateless)
    assert str(first.initialize.type_signature) == "( -> <>@SERVER)"
    output = "<state=<>@SERVER,result=float32@SERVER,measurements=<>@SERVER>"
    assert str(first.next.type_signature) == f"(<state=<>@SERVER,value={{float32}}@CLIENTS> -> {output})"
    assert float(first.next((), [0.5, 1.0, 2.5]).result) == 8.0

    second = tff.templates.AggregationProcess(zero, counting)
    output = "<state=float32@SERVER,result=float32@SERVER,measurements=float32@SERVER>"
    assert str(second.next.type_signature) == f"(<state=float32@SERVER,value={{float32}}@CLIENTS> -> {output})"
    state, told = second.initialize(), []
    for _ in range(3):
        made = second.next(state, [1.0, 2.0, 5.0])
        state = made.state
        told.append((float(made.result), float(made.measurements)))
    assert told == [(8.0, 8.0), (8.0, 16.0), (8.0, 24.0)]


def test_an_aggregator_of_structures_with_polymorphic_functions() -> None:
    value_type = tff.to_type([(tf.float32, (2,)), (tf.float32, (3,))])
    scale = tff.tf_computation(lambda value: tf.nest.map_structure(lambda x: x / 1.0, value))

    @tff.federated_computation(tff.type_at_clients(value_type))
    def total(value: Any) -> Any:
        return tff.federated_sum(tff.federated_map(scale, value))

    assert str(total.type_signature) == "({<float32[2],float32[3]>}@CLIENTS -> <float32[2],float32[3]>@SERVER)"
    made = total([[[1.0, 2.0], [3.0, 4.0, 5.0]], [[1.0, 1.0], [3.0, 0.0, -5.0]]])
    assert [each.tolist() for each in made] == [[2.0, 3.0], [6.0, 4.0, 0.0]]


def test_aggregators_within_each_other() -> None:
    inner = ExampleTaskFactory().create(tff.to_type(tf.float32))
    state, told = inner.initialize(), []
    for _ in range(2):
        output = inner.next(state, [0.5, 1.0, 2.5])
        state = output.state
        told.append((float(output.result), float(output.measurements["scaled_value"]), output.measurements["example_task"]))
    assert told == [(8.0, 8.0, ()), (8.0, 16.0, ())]

    nested = ExampleTaskFactory(ExampleTaskFactory()).create(tff.to_type(tf.float32))
    output = nested.next(nested.initialize(), [1.0, 2.0, 5.0])
    assert float(output.result) == 32.0
    assert output.measurements == OrderedDict(scaled_value=32.0, example_task=OrderedDict(scaled_value=32.0, example_task=()))


# Federated select, and random noise -----------------------------------------------------------------------------------------------


def test_each_client_selects_what_its_keys_name() -> None:
    keys_type = tff.FederatedType((tf.int32, [2]), tff.CLIENTS)

    @tff.tf_computation((tf.string, [3]), tf.int32)
    def get_item(server_val: Any, key: Any) -> Any:
        return tf.gather(server_val, key)

    @tff.tf_computation(tff.SequenceType(tf.string))
    def concatenated(items: Any) -> Any:
        return items.reduce("", lambda acc, item: tf.cond(acc == "", lambda: item, lambda: tf.strings.join([acc, item], ",")))

    @tff.federated_computation(keys_type, tff.type_at_server((tf.string, [3])))
    def broadcast_select(client_keys: Any, server_val: Any) -> Any:
        max_key = tff.federated_value(3, tff.SERVER)
        return tff.federated_map(concatenated, tff.federated_select(client_keys, max_key, server_val, get_item))

    assert broadcast_select([[0, 1], [1, 2], [2, 0]], ["a", "b", "c"]) == ["a,b", "b,c", "c,a"]


def test_noise_of_a_seed_is_the_same_everywhere_and_other_noise_nowhere() -> None:
    @tff.tf_computation((tf.int64, [2]))
    def from_seed(seed: Any) -> Any:
        return tf.random.stateless_normal((), seed=seed)

    @tff.federated_computation(tff.type_at_server((tf.int64, [2])))
    def same(seed: Any) -> Any:
        noise = tff.federated_map(from_seed, tff.federated_broadcast(seed))
        return tff.federated_min(noise), tff.federated_max(noise), tff.federated_mean(noise)

    @tff.tf_computation
    def any_noise() -> Any:
        return tf.random.normal(())

    @tff.federated_computation
    def other() -> Any:
        noise = tff.federated_eval(any_noise, tff.CLIENTS)
        return tff.federated_min(noise), tff.federated_max(noise)

    ones, twos = same.over(10)([1, 1]), same.over(10)([2, 2])
    assert ones[0] == ones[1]
    assert ones[0] != twos[0]
    (low, high), (again, _) = other.over(10)(), other.over(10)()
    assert low < high
    assert low != again
    assert any_noise() != any_noise()


# Working with client data ---------------------------------------------------------------------------------------------------------


def test_client_ids_travel_and_the_data_is_made_at_the_client() -> None:
    data = tff.simulation.datasets.TestClientData(
        {
            name: OrderedDict(label=np.arange(n, dtype=np.int32), pixels=np.ones((n, 28, 28), np.float32))
            for name, n in (("b", 3), ("a", 1))
        }
    )
    flat = data.preprocess(
        lambda ds: ds.batch(2).map(lambda e: {"x": tf.reshape(e["pixels"], [-1, 784]), "y": e["label"][:, None]})
    )
    assert data.client_ids == ["b", "a"]
    assert str(data.dataset_computation.type_signature) == "(str -> <label=int32,pixels=float32[28,28]>*)"
    assert str(flat.dataset_computation.type_signature) == "(str -> <x=float32[?,784],y=int32[?,1]>*)"
    assert sum(1 for _ in data.create_tf_dataset_from_all_clients()) == 4
    assert sum(1 for _ in flat.create_tf_dataset_from_all_clients()) == 3
    labels = data.preprocess(lambda ds: ds.filter(lambda e: e["label"] > 0)).create_tf_dataset_from_all_clients()
    assert sorted(int(each["label"]) for each in labels) == [1, 2]  # how many there are is not known beforehand; of "a" none
    with pytest.raises(KeyError, match="no client is called 'c'"):
        data.create_tf_dataset_for_client("c")
    train, test = tff.simulation.datasets.ClientData.train_test_client_split(data, 1)
    assert sorted(train.client_ids + test.client_ids) == ["a", "b"]

    @tff.tf_computation(tff.SequenceType(flat.element_type_structure))
    def rows(dataset: Any) -> Any:
        return dataset.reduce(0, lambda total, batch: total + tf.shape(batch["x"])[0])

    @tff.federated_computation(tff.type_at_server(tf.int32), tff.type_at_clients(tff.SequenceType(flat.element_type_structure)))
    def count_more(state: Any, client_data: Any) -> Any:
        add = tff.tf_computation(lambda x, y: x + y, tf.int32, tf.int32)
        return tff.federated_map(add, (state, tff.federated_sum(tff.federated_map(rows, client_data))))

    @tff.federated_computation
    def zero() -> Any:
        return tff.federated_value(0, tff.SERVER)

    process = tff.templates.IterativeProcess(zero, count_more)
    by_id = tff.simulation.compose_dataset_computation_with_iterative_process(flat.dataset_computation, process)
    assert str(by_id.next.type_signature) == "(<state=int32@SERVER,client_data={str}@CLIENTS> -> int32@SERVER)"
    assert int(by_id.next(by_id.initialize(), ["a", "b", "b"])) == 7
