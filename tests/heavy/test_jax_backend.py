"""Local computations in JAX: types by eval_shape, compiled once, arrays in and out."""

from typing import Any

import numpy as np
import pytest

jax = pytest.importorskip("jax", reason="the jax extra is not installed")

import jax.numpy as jnp  # noqa: E402  after importorskip

import hansa as hs  # noqa: E402
from hansa.adapters.jax import backend  # noqa: E402
from hansa.core.protocols import LocalBackend  # noqa: E402
from hansa.errors import TraceError  # noqa: E402

f32, i32 = np.float32, np.int32
BACKEND: LocalBackend = backend


def jaxed(*types: object, **options: Any) -> Any:
    return hs.local_computation(*types, backend="jax", **options)


FOUND: list[tuple[Any, str]] = [
    (jaxed(f32)(lambda x: x + 0.5), "(float32 -> float32)"),
    (jaxed()(lambda: [jnp.zeros((784, 10)), jnp.zeros(10)]), "( -> <float32[784,10],float32[10]>)"),
    (jaxed((f32, [None, 3]))(lambda x: {"a": x.T, "n": x.sum(0)}), "(float32[?,3] -> <a=float32[3,?],n=float32[3]>)"),
    (jaxed((jnp.bfloat16, [2]))(lambda x: (x.sum(), x > 0)), "(bfloat16[2] -> <bfloat16,bool[2]>)"),
    (jaxed(jax.ShapeDtypeStruct((2, 3), jnp.int8))(lambda x: x), "(int8[2,3] -> int8[2,3])"),
    (jaxed(hs.SequenceType((f32, [None])))(lambda s: jnp.stack([x.sum() for x in s])), "(float32[?]* -> float32[?])"),
]


@pytest.mark.parametrize(("made", "signature"), FOUND, ids=[text for _, text in FOUND])
def test_types_are_found_without_computing(made: Any, signature: str) -> None:
    assert str(made.type_signature) == signature


def test_it_is_compiled_once_for_each_shape() -> None:
    traced: list[tuple[int, ...]] = []

    @hs.local_computation((f32, [None]), backend="jax", returns=f32)
    def total(x: Any) -> Any:
        traced.append(x.shape)
        return x.sum()

    assert [total(np.ones(n, f32)) for n in (2, 3, 2, 3)] == [2, 3, 2, 3]
    assert traced == [(2,), (3,)]
    assert type(total(np.ones(2, f32))) is np.float32


def test_a_client_trains_over_its_batches_as_by_hand() -> None:
    def stepped(weights: Any, x: Any, y: Any) -> Any:
        def loss(w: Any) -> Any:
            scores = x @ w[0] + w[1]
            return -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(scores), y[:, None], axis=1))

        return jax.tree.map(lambda w, g: w - 0.1 * g, weights, jax.grad(loss)(weights))

    step = jax.jit(stepped)
    data = hs.SequenceType([(f32, [None, 4]), (i32, [None])])

    @hs.local_computation([(f32, [4, 3]), (f32, [3])], data, backend="jax")
    def client_update(weights: Any, batches: Any) -> Any:
        for x, y in batches:
            assert isinstance(x, jax.Array)
            weights = step(weights, x, y)
        return weights

    assert str(client_update.type_signature.result) == "<float32[4,3],float32[3]>"
    rng = np.random.default_rng(0)
    batches = [(rng.normal(size=(n, 4)).astype(f32), rng.integers(0, 3, n).astype(i32)) for n in (5, 5, 2)]
    want: Any = [jnp.zeros((4, 3)), jnp.zeros(3)]
    for x, y in batches:
        want = step(want, x, y)
    got = client_update([np.zeros((4, 3), f32), np.zeros(3, f32)], batches)
    assert [type(w) for w in got] == [np.ndarray, np.ndarray]
    assert all((a == np.asarray(b)).all() for a, b in zip(got, want, strict=True))


def test_what_jax_would_narrow_in_silence_is_refused() -> None:
    with pytest.raises(TraceError, match=r"JAX computes in 32 bits.*float64.*jax_enable_x64.*\[test_jax_backend.py:\d+\]"):
        jaxed(np.float64)(lambda x: x)
    with pytest.raises(TraceError, match="JAX has no arrays of this type; got str"):
        jaxed(str)(lambda x: x)


def test_one_calls_another_within_what_is_compiled() -> None:
    @hs.local_computation((f32, [2]), backend="jax", returns=(f32, [None]))
    def inner(x: Any) -> Any:
        return x + 1

    @hs.local_computation((f32, [None]), backend="jax")
    def outer(x: Any) -> Any:
        return inner(x) * 2

    assert outer([1.0, 2.0]).tolist() == [4.0, 6.0]


def test_a_step_is_folded_over_a_sequence_with_the_bits_of_single_calls() -> None:
    calls: list[object] = []

    @hs.local_computation([(f32, [3]), f32], (f32, [None, 3]), backend="jax")
    def step(model: Any, batch: Any) -> Any:
        calls.append(batch.shape)
        return [model[0] * 0.9 + batch.mean(axis=0), model[1] + 1]

    @hs.federated_computation([(f32, [3]), f32], hs.SequenceType((f32, [None, 3])))
    def trained(model: Any, batches: Any) -> Any:
        return hs.sequence_reduce(batches, model, step)

    batches = list(np.random.default_rng(0).normal(size=(4, 5, 3)).astype(f32))
    start = [np.ones(3, f32), f32(0)]
    calls.clear()
    got = trained(start, batches)
    assert len(calls) == 1
    want = start
    for batch in batches:
        want = step(want, batch)
    assert (got[0] == want[0]).all()
    assert got[1] == want[1] == 4
    assert [type(each) for each in got] == [np.ndarray, f32]
    assert trained(start, [])[0].tolist() == [1, 1, 1]


def test_arrays_are_jaxs_own_and_what_asks_for_its_context_runs_as_python() -> None:
    @hs.local_computation((f32, [64]), backend="jax")
    def slotted(x: Any, *, ctx: hs.FLContext) -> Any:
        assert isinstance(x, jax.Array)
        return x.at[0].set(ctx.slot)

    @hs.federated_computation(hs.FederatedType((f32, [64]), hs.CLIENTS))
    def everywhere(x: Any) -> Any:
        return hs.federated_map(slotted, x)

    given = np.zeros(64, f32)
    assert [each[0] for each in everywhere([given, given, given])] == [0, 1, 2]
    assert not given.any()


def test_clients_results_are_waited_for_when_all_are_begun_and_keep_their_bits_order_and_names() -> None:
    begun: list[int] = []

    @hs.local_computation((f32, [3]), backend="jax", returns=(f32, [2]))
    def short(x: Any, *, ctx: hs.FLContext) -> Any:
        begun.append(ctx.slot)
        return jnp.ones(3 if x[0] == 17 else 2) * x[0]

    @hs.federated_computation(hs.FederatedType((f32, [3]), hs.CLIENTS))
    def everywhere(x: Any) -> Any:
        return hs.federated_map(short, x)

    clients = [np.full(3, i, f32) for i in range(20)]
    with pytest.raises(TraceError, match=r"client 17 -> result of short.*expected float32\[2\]; got float32\[3\]"):
        everywhere(clients)
    assert begun == list(range(20))
    got = everywhere([each + 20 for each in clients])
    assert [type(each) for each in got] == [np.ndarray] * 20
    assert [each.tolist() for each in got] == [[i, i] for i in range(20, 40)]

    step = jaxed([(f32, [3])], (f32, [3]))(lambda model, row: [model[0] * 0.9 + row / 3])
    rows = hs.SequenceType((f32, [3]))
    trained = hs.federated_computation(lambda w, data: hs.sequence_reduce(data, w, step), [(f32, [3])], rows)
    types = hs.FederatedType([(f32, [3])], hs.SERVER), hs.FederatedType(rows, hs.CLIENTS)
    each_one = hs.federated_computation(lambda w, d: hs.federated_map(trained, (hs.federated_broadcast(w), d)), *types)
    data = [list(np.random.default_rng(i).normal(size=(4, 3)).astype(f32)) for i in range(18)]
    start = [np.ones(3, f32)]
    assert all((got[0] == trained(start, own)[0]).all() for got, own in zip(each_one(start, data), data, strict=True))
