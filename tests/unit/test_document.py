"""The plan as a document: what site owners read, one way of writing it, one hash, and nothing else read."""

from typing import Any, NamedTuple

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hansa.aggregation.mean import Mean
from hansa.core.computation import Computation, federated_computation
from hansa.core.graph import LocalFunction
from hansa.core.intrinsics import (
    federated_aggregate,
    federated_collect,
    federated_map,
    federated_mean,
    federated_reduce,
    federated_secure_sum_bitwidth,
    federated_sum,
)
from hansa.core.job import Job, Resources
from hansa.core.plan import plan
from hansa.core.protocols import Federation
from hansa.core.task import FLContext, Shareable
from hansa.core.types import CLIENTS, Clients, FederatedType, Server, to_type
from hansa.document import BYTES_LIMIT, Document, document_of, planned, read_document
from hansa.errors import InputError, VersionError


class Counted(NamedTuple):
    mean: float
    rows: int
    metrics: dict[str, float]


def count(x: float, *, ctx: FLContext) -> Counted:
    return Counted(x, 2, {"seen": float(ctx.round)})


def plus(total: np.float32, x: np.float32) -> np.float32:
    return total + x


def averages() -> Computation:
    @federated_computation
    def overall(x: Clients[float]) -> Server[float]:
        step = federated_map(count, x)
        return federated_mean(step.mean, weight=step.rows)

    return overall


def same(shareable: Shareable, ctx: FLContext) -> Shareable:
    return shareable


class Passing:
    def __call__(self, shareable: Shareable, ctx: FLContext) -> Shareable:
        return shareable


class Averaging:
    """A workflow of one computation."""

    about = "averages"

    def __init__(self, *computations: Computation) -> None:
        self.computations = computations

    def __call__(self, federation: Federation) -> int:
        return len(federation.sites)


def test_a_plan_says_what_runs_what_goes_what_leaves_and_what_may_stay() -> None:
    assert str(planned(plan(averages()))) == "\n".join(
        [
            "overall ({float32}@CLIENTS -> float32@SERVER)",
            "stage 1: task 'count'",
            "  receives   nothing",
            "  reads here x float32",
            f"  runs       {__name__}:count(x) -> <mean=float32,rows=int32,metrics=dict[str, float]>",
            "  leaves     mean float32: mean, weighted by rows",
            "  reports    the metrics of count",
            "  may keep   what count remembers at the site; it does not leave",
        ]
    )


def test_how_a_value_is_aggregated_is_named_with_its_gate_and_what_nobody_aggregates_is_said_to_leave_by_itself() -> None:
    @federated_computation(FederatedType((np.float32, [2]), CLIENTS))
    def three(x: Any) -> Any:
        total = federated_aggregate(x, Mean(), weight=federated_map(length, x), weight_cap=10.0)
        return total, federated_collect(x), federated_reduce(federated_map(length, x), np.float32(0), plus)

    document = document_of(Job("a", Averaging(three)))
    assert [line for line in str(document).splitlines() if "leaves" in line] == [
        "  leaves     x float32[2]: Mean(), weighted by length (at most 10), behind the gate",
        "  leaves     x float32[2]: collect, of each site by itself",
        f"  leaves     length_2 float32: aggregate by {__name__}:plus",
    ]
    assert document.collected == {"length": ["x"]}
    assert "aggregate  (<starts=<" in document.phases()


def length(x: Any) -> np.float32:
    return np.float32(len(x))


def test_what_promises_a_secure_protocol_is_said() -> None:
    @federated_computation(FederatedType(np.int32, CLIENTS))
    def hidden(x: Any) -> Any:
        return federated_secure_sum_bitwidth(x, 8)

    document = document_of(Job("a", Averaging(hidden)))
    assert document.secure == ["federated_secure_sum_bitwidth"]
    assert str(document).splitlines()[-1] == "promises a secure protocol for federated_secure_sum_bitwidth"


def test_what_a_job_asks_of_a_machine_stands_in_its_plan() -> None:
    text = str(document_of(Job("a", Averaging(), environment="torch", resources=Resources(gpus=1), requires=["torch"])))
    assert text.splitlines()[1:] == [
        "environment at each site: 'torch'",
        "resources at each site: Resources(cores=1, gpus=1, memory_mb=0)",
    ]


def test_the_same_job_has_one_content_and_another_has_another_hash() -> None:
    one, twin = (document_of(Job("a", Averaging(averages()), filters=[same])) for _ in range(2))
    assert (one.content, one.hash) == (twin.content, twin.hash)
    assert Job("a", Averaging(averages()), filters=[same]).hash == one.hash
    others = [Job("b", Averaging(averages())), Job("a", Averaging()), Job("a", Averaging(averages()), data="rows")]
    assert len({one.hash, *(each.hash for each in others)}) == 4


def test_the_hash_knows_no_memory_addresses() -> None:
    def made() -> Document:
        local = LocalFunction(lambda x: x, "kept", (("x", to_type(float)),), to_type(float), about=repr(object()))

        @federated_computation
        def overall(x: Clients[float]) -> Any:
            return federated_sum(federated_map(local, x))

        return document_of(Job("a", Averaging(overall), filters=[Passing()]))

    assert "with <object object>" in str(made())
    assert made().hash == made().hash


def test_a_document_is_read_as_it_was_written_and_in_no_other_way() -> None:
    document = document_of(Job("a", Averaging(averages())))
    assert read_document(document.content) == document
    assert str(read_document(document.content)) == str(document)
    for content in (
        document.content + b" ",
        msgspec.json.format(document.content),
        document.content.replace(b'"job":"a"', b'"job" :"a"'),
    ):
        with pytest.raises(InputError, match="written in one way"):
            read_document(content)


@pytest.mark.parametrize(
    "change",
    [
        {"run": "os:system"},
        {"computations": [{"name": "x"}]},
        {"format": "something else"},
        {"version": "1"},
        {"cores": None},
    ],
)
def test_what_is_no_plan_is_refused(change: dict[str, Any]) -> None:
    content = msgspec.to_builtins(document_of(Job("a", Averaging()))) | change
    with pytest.raises(InputError, match="not a plan"):
        read_document(msgspec.json.encode(content, order="sorted"))


def test_a_plan_of_another_version_is_refused_by_name_whatever_else_is_in_it() -> None:
    for version, hint in ((2, "upgrade hansa here"), (0, "its author upgrades")):
        with pytest.raises(VersionError, match=f"a plan of another version; expected 1; got {version}.*{hint}"):
            read_document(msgspec.json.encode({"format": "hansa plan", "version": version, "what": "is new"}))


class Hiding:
    def __repr__(self) -> str:
        return "\x1b[2J\nserver: nothing\u202e"

    def __call__(self, shareable: Shareable, ctx: FLContext) -> Shareable:
        return shareable


def test_no_text_of_a_plan_begins_a_line_or_moves_in_a_terminal_what_its_author_does_not_say() -> None:
    document = document_of(Job("a", Averaging(), filters=[Hiding()]))
    assert str(document).splitlines()[-1] == r"filter at each site: \x1b[2J\nserver: nothing\u202e"
    changes: list[dict[str, Any]] = [{"filters": ["a\nserver: b"]}, {"about": "\x1b[2K"}, {"environment": "\u202e"}]
    for change in changes:
        with pytest.raises(InputError, match="texts are printed as they are"):
            read_document(msgspec.structs.replace(document, **change).content)


def test_a_cap_that_is_a_whole_number_is_read_as_it_was_written() -> None:
    @federated_computation(FederatedType((np.float32, [2]), CLIENTS))
    def capped(x: Any) -> Any:
        return federated_aggregate(x, Mean(), weight=federated_map(length, x), weight_cap=10)

    document = document_of(Job("a", Averaging(capped)))
    assert read_document(document.content).hash == document.hash


def test_neither_noise_nor_depth_nor_length_gets_past_the_reader() -> None:
    for content in (b"", b"\xff", b"[" * 100_000, b"{}", b"null", b" " * (BYTES_LIMIT + 1)):
        with pytest.raises(InputError):
            read_document(content)


CONTENT = document_of(Job("a", Averaging(averages()), requires=["numpy"])).content


@given(st.integers(0, len(CONTENT) - 1), st.binary(max_size=6), st.integers(0, 6))
def test_a_changed_document_is_refused_or_read_as_what_it_says_and_never_as_the_one_before(at: int, put: bytes, cut: int) -> None:
    changed = CONTENT[:at] + put + CONTENT[at + cut :]
    try:
        found = read_document(changed)
    except InputError:
        return
    assert (found.content, found.hash == read_document(CONTENT).hash) == (changed, changed == CONTENT)
