"""Local computations in torch: types from fake tensors, tensors in, arrays out."""

from typing import Any

import ml_dtypes
import numpy as np
import pytest
import torch

import hansa as hs
from hansa.adapters.torch import backend
from hansa.core.computation import Computation
from hansa.core.protocols import Federation, LocalBackend
from hansa.core.run import run
from hansa.errors import TraceError

f32, i32 = np.float32, np.int32
BACKEND: LocalBackend = backend
WEIGHTS = hs.to_type([(torch.float32, [784, 10]), (torch.float32, [10])])
DATA = hs.SequenceType([(f32, [None, 784]), (i32, [None])])


@hs.local_computation(backend="torch")
def server_init() -> Any:
    layer = torch.nn.Linear(784, 10)
    return [layer.weight.T, layer.bias]


@hs.local_computation(server_init.type_signature.result, DATA, backend="torch")
def client_update(weights: Any, batches: Any) -> Any:
    weights = [torch.nn.Parameter(w) for w in weights]
    optimizer = torch.optim.SGD(weights, lr=0.1)
    for x, y in batches:
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(x @ weights[0] + weights[1], y.long()).backward()  # type: ignore[no-untyped-call]  # torch's
        optimizer.step()
    return weights


def torched(*types: object, **options: Any) -> Any:
    return hs.local_computation(*types, backend="torch", **options)


def test_the_tutorials_functions_have_the_tutorials_types() -> None:
    assert str(server_init.type_signature) == "( -> <float32[784,10],float32[10]>)"
    assert str(client_update.type_signature) == (
        "(<weights=<float32[784,10],float32[10]>,batches=<float32[?,784],int32[?]>*> -> <float32[784,10],float32[10]>)"
    )


def test_a_client_trains_as_by_hand_and_what_it_was_given_stays() -> None:
    rng = np.random.default_rng(0)
    batches = [(rng.normal(size=(n, 784)).astype(f32), rng.integers(0, 10, n).astype(i32)) for n in (20, 20, 7)]
    start = [np.zeros((784, 10), f32), np.zeros(10, f32)]
    got = client_update(start, batches)
    want = [torch.zeros(784, 10, requires_grad=True), torch.zeros(10, requires_grad=True)]
    for x, y in batches:
        loss = torch.nn.functional.cross_entropy(torch.from_numpy(x) @ want[0] + want[1], torch.from_numpy(y).long())
        for w, g in zip(want, torch.autograd.grad(loss, want), strict=True):
            w.data.add_(g, alpha=-0.1)
    for mine, theirs in zip(got, want, strict=True):
        assert type(mine) is np.ndarray
        assert (mine == theirs.detach().numpy()).all()
    assert not start[0].any()


FOUND: list[tuple[Any, str]] = [
    (torched(f32)(lambda x: x + 0.5), "(float32 -> float32)"),
    (torched((f32, [None, 3]))(lambda x: {"a": x.T, "n": x.sum(0)}), "(float32[?,3] -> <a=float32[3,?],n=float32[3]>)"),
    (torched((ml_dtypes.bfloat16, [2]))(lambda x: x.sum()), "(bfloat16[2] -> bfloat16)"),
    (torched(torch.int64)(lambda n: n.double()), "(int64 -> float64)"),
    (torched((torch.float32, [None]))(lambda x: (x > 0, x.to(torch.complex64))), "(float32[?] -> <bool[?],complex64[?]>)"),
    (torched(torch.zeros(2, 3))(lambda x: x.half()), "(float32[2,3] -> float16[2,3])"),
]


@pytest.mark.parametrize(("made", "signature"), FOUND, ids=[text for _, text in FOUND])
def test_types_are_found_from_fake_tensors(made: Any, signature: str) -> None:
    assert str(made.type_signature) == signature


def test_results_keep_dtypes_and_containers() -> None:
    @hs.local_computation((torch.bfloat16, [None]), backend="torch")
    def split(x: Any) -> Any:
        return {"half": x / 2, "sum": x.sum(), "rows": [x.numel(), (x.bool(),)]}

    got = split(np.array([2, 4], ml_dtypes.bfloat16))
    assert got["half"].dtype == ml_dtypes.bfloat16
    assert (got["sum"], type(got["sum"])) == (6, ml_dtypes.bfloat16)
    assert got["half"].tolist() == [1, 2]
    assert got["rows"][1][0].tolist() == [True, True]


def test_a_captured_module_is_used_and_not_changed_by_what_comes_back() -> None:
    layer = torch.nn.Linear(2, 1)
    layer.load_state_dict({"weight": torch.tensor([[0.5, 0.25]]), "bias": torch.zeros(1)})

    @hs.local_computation((f32, [None, 2]), backend="torch")
    def applied(x: Any) -> Any:
        return layer(x), layer.weight

    assert str(applied.type_signature) == "(float32[?,2] -> <float32[?,1],float32[1,2]>)"
    _, weight = applied(np.ones((3, 2), f32))
    weight += 1
    assert applied(np.ones((3, 2), f32))[1].tolist() == [[0.5, 0.25]]


def test_what_needs_data_or_has_no_tensor_is_told() -> None:
    with pytest.raises(TraceError, match=r"does not run on stand-ins.*returns=.*\[test_torch_backend.py:\d+\]"):
        torched(f32)(lambda x: x.item())
    assert torched(f32, returns=f32)(lambda x: x.item())(2.0) == 2.0
    with pytest.raises(TraceError, match="torch has no tensors of this type; got str"):
        torched(str)(lambda x: x)


class OneRound:
    """A workflow of one round from zeros."""

    def __init__(self, computation: Computation) -> None:
        self.computations = (computation,)

    def __call__(self, federation: Federation) -> Any:
        return run(self.computations[0], federation, [np.zeros((784, 10), f32), np.zeros(10, f32)]).result


class Sites:
    sites = ("a", "b", "c")

    def load(self, slot: int) -> Any:
        rng = np.random.default_rng(slot)
        return [(rng.normal(size=(n, 784)).astype(f32), rng.integers(0, 10, n).astype(i32)) for n in (20, 7)]


def test_a_round_in_torch_has_the_same_bits_called_and_simulated() -> None:
    weights = server_init.type_signature.result

    @hs.federated_computation(hs.FederatedType(weights, hs.SERVER), hs.FederatedType(DATA, hs.CLIENTS))
    def next_round(model: Any, data: Any) -> Any:
        return hs.federated_mean(hs.federated_map(client_update, (hs.federated_broadcast(model), data)))

    called = next_round([np.zeros((784, 10), f32), np.zeros(10, f32)], [Sites().load(slot) for slot in range(3)])
    simulated = hs.simulate(hs.Job("round", OneRound(next_round), data="rows"), {"rows": Sites()}, seed=0).value
    assert all((a == b).all() and a.dtype == b.dtype for a, b in zip(called, simulated, strict=True))
    assert called[0].any()
