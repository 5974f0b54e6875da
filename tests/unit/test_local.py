"""Local computations: types found without data, in the framework's own arrays, checked where they run."""

import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import cloudpickle
import ml_dtypes
import numpy as np
import pytest

import hansa as hs
from hansa.core.plan import plan
from hansa.core.types import infer_type
from hansa.document import planned
from hansa.errors import ConfigError, HansaError, TraceError

f32, i32 = np.float32, np.int32
WEIGHTS = hs.to_type([(f32, [784, 10]), (f32, [10])])
DATA = hs.SequenceType([(f32, [None, 784]), (i32, [None])])


class Counted(NamedTuple):
    mean: np.float32
    rows: np.int32


@hs.local_computation(f32, backend="numpy")
def add_half(x: Any) -> Any:
    return x + f32(0.5)


@hs.federated_computation(hs.FederatedType(f32, hs.CLIENTS))
def halves(x: Any) -> Any:
    return hs.federated_map(add_half, x)


@hs.federated_computation
def twice(x: Any) -> Any:
    return x, x


def numpy(*types: object, **options: Any) -> Any:
    return hs.local_computation(*types, backend="numpy", **options)


FOUND: list[tuple[Any, str]] = [
    (numpy(f32)(lambda x: x + f32(0.5)), "(float32 -> float32)"),
    (numpy(f32)(lambda x: np.float64(x)), "(float32 -> float64)"),
    (numpy()(lambda: [np.zeros((784, 10), f32), np.zeros(10, f32)]), "( -> <float32[784,10],float32[10]>)"),
    (numpy((f32, [None, 784]))(lambda x: x @ np.zeros((784, 10), f32)), "(float32[?,784] -> float32[?,10])"),
    (numpy((f32, [None, 3]))(lambda x: x.mean(axis=0)), "(float32[?,3] -> float32[3])"),
    (numpy((f32, [None]))(lambda x: x.reshape(-1, 20)), "(float32[?] -> float32[?,20])"),
    (numpy((f32, [None, None]))(lambda x: x.ravel()), "(float32[?,?] -> float32[?])"),
    (numpy(hs.SequenceType((f32, [None])))(lambda s: np.concatenate(list(s))), "(float32[?]* -> float32[?])"),
    (numpy(hs.SequenceType((f32, [2])))(lambda s: [x.sum() for x in s]), "(float32[2]* -> float32*)"),
    (numpy(hs.SequenceType(f32))(lambda s: Counted(f32(sum(s)), i32(len(s)))), "(float32* -> <mean=float32,rows=int32>)"),
    (numpy((ml_dtypes.bfloat16, [2]))(lambda x: {"a": x * 2}), "(bfloat16[2] -> <a=bfloat16[2]>)"),
    (numpy(f32, i32)(lambda x, n: x), "(<x=float32,n=int32> -> float32)"),
    (numpy(f32, returns=f32)(lambda x: float(x)), "(float32 -> float32)"),
    (numpy(DATA, WEIGHTS)(lambda data, weights: weights), f"(<data={DATA},weights={WEIGHTS}> -> {WEIGHTS})"),
]


@pytest.mark.parametrize(("made", "signature"), FOUND, ids=[text for _, text in FOUND])
def test_the_type_of_a_result_is_found_without_data(made: Any, signature: str) -> None:
    assert str(made.type_signature) == signature


def test_a_function_that_cannot_be_run_on_stand_ins_says_so_at_the_users_line() -> None:
    with pytest.raises(TraceError, match=r"picked does not run on stand-ins.*IndexError.*returns=.*\[test_local.py:\d+\]"):

        @hs.local_computation((f32, [1]), backend="numpy")
        def picked(x: Any) -> Any:
            return x[7]

    with pytest.raises(TraceError, match="another structure for other sizes"):
        numpy((f32, [None]))(lambda x: tuple(x))
    with pytest.raises(TraceError, match=r"unknown rank.*'float32'\(shape=None\)"):
        numpy((f32, None))(lambda x: x)
    with pytest.raises(ConfigError, match=r"no local_backend is called 'nunpy'.*'numpy'"):
        hs.local_computation(f32, backend="nunpy")(lambda x: x)


def test_what_runs_gives_what_its_type_says_and_else_the_way_to_it_is_told() -> None:
    @hs.local_computation(f32, backend="numpy", returns={"a": (f32, [2])})
    def wrong(x: Any) -> Any:
        return {"a": np.zeros(2 if x < 3 else 3, f32)}

    @hs.federated_computation(hs.FederatedType(f32, hs.CLIENTS))
    def everywhere(x: Any) -> Any:
        return hs.federated_sum(hs.federated_map(wrong, x))

    assert everywhere([1.0, 2.0])["a"].tolist() == [0.0, 0.0]
    with pytest.raises(TraceError, match=r"client 1 -> result of wrong/a; expected float32\[2\]; got float32\[3\]"):
        everywhere([1.0, 3.0])


def test_arrays_come_in_read_only_and_go_out_as_the_callers_own() -> None:
    @hs.local_computation((f32, [2]), backend="numpy")
    def same(x: Any) -> Any:
        return x

    @hs.local_computation((f32, [2]), backend="numpy", returns=(f32, [2]))
    def spoiled(x: Any) -> Any:
        x += 1
        return x

    given = np.ones(2, f32)
    with pytest.raises(ValueError, match="read-only"):
        spoiled(given)
    taken = same(given)
    taken += 1
    assert given.tolist() == [1.0, 1.0]


def test_a_sequence_is_gone_through_as_often_as_one_likes_and_has_a_length() -> None:
    @hs.local_computation(hs.SequenceType((f32, [None])), backend="numpy")
    def both_ways(batches: Any) -> Any:
        return np.float32(sum(float(x.sum()) for x in batches) + sum(len(x) for x in batches[1:]) + len(batches))

    assert both_ways([[1.0, 2.0], [3.0]]) == 6 + 1 + 2


def test_opaque_python_has_the_type_of_its_first_run_and_none_in_a_plan() -> None:
    @hs.local_computation(f32)
    def opaque(x: Any) -> Any:
        return {"a": x}

    @hs.federated_computation(hs.FederatedType(f32, hs.CLIENTS))
    def everywhere(x: Any) -> Any:
        return hs.federated_collect(hs.federated_map(opaque, x))

    assert str(opaque.type_signature) == "(float32 -> ?)"
    assert str(everywhere.type_signature) == "({float32}@CLIENTS -> ?*@SERVER)"
    assert opaque(1.0) == {"a": 1.0}
    assert str(opaque.type_signature) == "(float32 -> <a=float32>)"
    assert "opaque(x) -> ?" in str(planned(plan(everywhere)))


def test_a_plan_names_the_framework_of_what_runs() -> None:
    @hs.federated_computation(hs.FederatedType(f32, hs.CLIENTS))
    def total(x: Any) -> Any:
        return hs.federated_sum(hs.federated_map(add_half, x))

    assert f"runs       {__name__}:add_half(x) -> float32 in numpy" in str(planned(plan(total)))


def test_without_types_it_is_made_for_each_type_it_meets() -> None:
    @hs.local_computation(backend="numpy")
    def scale(value: Any, factor: Any) -> Any:
        return {name: item * factor for name, item in value.items()}

    kind = {"a": (f32, [2]), "b": (f32, [3])}

    @hs.federated_computation(hs.FederatedType(kind, hs.CLIENTS), hs.FederatedType(f32, hs.SERVER))
    def scaled(value: Any, factor: Any) -> Any:
        return hs.federated_sum(hs.federated_map(scale, (value, hs.federated_broadcast(factor))))

    assert str(scale.type_signature) == "(<value=?,factor=?> -> ?)"
    assert str(scaled.type_signature.result) == "<a=float32[2],b=float32[3]>@SERVER"
    assert scaled([{"a": [1, 2], "b": [3, 4, 5]}] * 2, 2.0)["a"].tolist() == [4.0, 8.0]
    assert scale({"a": f32(2)}, f32(3)) == {"a": 6.0}
    assert scale.of(*map(infer_type, ({"a": f32(2)}, f32(3)))).local.backend == "numpy"


def test_within_a_computation_a_call_is_part_of_it() -> None:
    calls: list[int] = []

    @hs.local_computation(returns=i32)
    def counted() -> Any:
        calls.append(1)
        return len(calls)

    @hs.federated_computation
    def initial() -> Any:
        return hs.federated_value(counted(), hs.SERVER)

    @hs.federated_computation
    def evaluated() -> Any:
        return hs.federated_eval(counted, hs.SERVER)

    assert str(initial.type_signature) == str(evaluated.type_signature) == "( -> int32@SERVER)"
    assert (initial(), initial(), evaluated()) == (1, 2, 3)


def test_one_of_a_framework_calls_others_of_it_as_functions() -> None:
    @hs.local_computation((f32, [2]), backend="numpy", returns=(f32, [None]))
    def inner(x: Any) -> Any:
        return x + 1

    @hs.local_computation((f32, [None]), backend="numpy")
    def outer(x: Any) -> Any:
        assert not x.flags.writeable
        return inner(x) * 2

    assert outer([1.0, 2.0]).tolist() == [4.0, 6.0]


TWO = np.float32(2)


def test_parameters_with_defaults_that_no_type_is_given_for_are_left_alone() -> None:
    def scaled(x: Any, by: float = 2.0, *, power: int = 1) -> Any:
        return (x * f32(by)) ** power

    one, two = numpy(f32)(scaled), numpy(f32, f32)(scaled)
    assert [str(each.type_signature) for each in (one, two)] == ["(float32 -> float32)", "(<x=float32,by=float32> -> float32)"]
    assert (one(3), two(3, 4)) == (6, 12)
    norm = hs.local_computation(np.linalg.norm, (f32, [2]), backend="numpy")
    both = hs.local_computation(np.add, f32, f32, backend="numpy")
    joined = hs.local_computation(np.concatenate, [(f32, [2]), (f32, [1])], backend="numpy")
    assert [str(each.type_signature.result) for each in (norm, both, joined)] == ["float32", "float32", "float32[3]"]
    assert (norm([3, 4]), both(1, 2), joined(([1, 2], [3])).tolist()) == (5, 3, [1, 2, 3])
    length = hs.federated_computation(lambda x: hs.federated_map(norm, x), hs.FederatedType((f32, [2]), hs.CLIENTS))
    assert length([[3, 4], [6, 8]]) == [5, 10]

    def doubled(x: np.float32, by: np.float32 = TWO) -> np.float32:
        return x * by

    of_each = hs.federated_computation(lambda x: hs.federated_map(doubled, x), hs.FederatedType(f32, hs.CLIENTS))
    assert of_each([3, 4]) == [6, 8]  # a plain function's default is left to it as well
    with pytest.raises(TraceError, match=r"scaled needs by.*types of the first parameters alone"):
        numpy()(scaled)(f32(3))


def test_types_are_taken_from_a_signature() -> None:
    again = numpy(add_half.type_signature.result)(lambda y: y)
    assert str(again.type_signature) == "(float32 -> float32)"


def test_those_of_a_module_are_pickled_by_name_and_others_with_what_they_hold() -> None:
    for made in (add_half, halves, twice):
        assert pickle.loads(pickle.dumps(made)) is made
        assert cloudpickle.loads(cloudpickle.dumps(made)) is made

    offset = 2.0

    @hs.local_computation(f32, backend="numpy")
    def shifted(x: Any) -> Any:
        return x + f32(offset)

    @hs.federated_computation(hs.FederatedType(f32, hs.CLIENTS))
    def total(x: Any) -> Any:
        return hs.federated_sum(hs.federated_map(shifted, x))

    assert total([1.0, 2.0]) == 7.0
    twin = cloudpickle.loads(cloudpickle.dumps(total))
    assert twin is not total
    assert twin([1.0, 2.0]) == 7.0
    assert str(planned(plan(twin))) == str(planned(plan(total)))


def test_a_pickled_computation_runs_in_another_process(tmp_path: Path) -> None:
    @hs.federated_computation(hs.FederatedType(f32, hs.CLIENTS))
    def total(x: Any) -> Any:
        return hs.federated_sum(hs.federated_map(lambda v: v * 2, hs.federated_map(numpy(f32)(lambda v: v + f32(1)), x)))

    (tmp_path / "total.pickle").write_bytes(cloudpickle.dumps(total))
    (tmp_path / "averages.py").write_text(
        "import hansa as hs, numpy as np\n"
        "@hs.federated_computation(hs.FederatedType(np.float32, hs.CLIENTS))\n"
        "def average(x):\n    return hs.federated_mean(x)\n"
    )
    make = "import pickle, averages; open('average.pickle', 'wb').write(pickle.dumps(averages.average))"
    use = "import pickle; print(pickle.load(open('average.pickle', 'rb'))([1, 2]), pickle.load(open('total.pickle', 'rb'))([1, 2]))"
    for code in (make, use):
        done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["1.5", "10.0"]


def test_a_result_that_is_not_declared_well_is_refused() -> None:
    with pytest.raises(HansaError, match="not a type"):
        hs.local_computation(f32, returns=3)(lambda x: x)
