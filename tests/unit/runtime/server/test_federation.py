"""A run's side of the link, with the server's lines given by hand: the engine on committed events, and on the same again."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hansa import codec
from hansa.aggregation.filters import HalfPrecision
from hansa.aggregation.mean import Mean
from hansa.core import half, trees
from hansa.core.computation import federated_computation
from hansa.core.intrinsics import (
    federated_aggregate,
    federated_broadcast,
    federated_map,
    federated_secure_sum,
    federated_sum,
)
from hansa.core.round import Policy
from hansa.core.run import run
from hansa.core.task import Aborted, Expect, Failure, Reply, Shareable, Task
from hansa.core.trees import Spec, Tree, leaves
from hansa.core.types import CLIENTS, SERVER, Clients, FederatedType
from hansa.core.types import Server as Placed
from hansa.errors import QuorumError, RefusedError, ReplayError, RunError
from hansa.runtime.jobs import link
from hansa.runtime.jobs.link import Came, Link, ServerGone, Start, Step
from hansa.runtime.server.federation import DeployedFederation, RunBlobs
from hansa.runtime.store.blobs import FileBlobs
from hansa.sequences import federated_secure_select

LIKE = {"w": np.zeros(2, np.float32)}
TASK = Task("train", Shareable(LIKE), 1, expect=(Expect("u", Spec.of(LIKE)),))


def count_of(rows: Any) -> np.int32:
    return np.int32(len(rows))


class Server:
    """The other end: what it is asked, and lines to answer with."""

    def __init__(self, folder: Path) -> None:
        ours, theirs = socket.socketpair()
        self.socket, self.blobs, self.reports = ours, FileBlobs(folder, reserve_bytes=0), list[dict[str, Any]]()
        start = Start(
            run="r", reference="", source="", folder="", blobs=str(folder), room="", handed="",
            sites=["a", "b", "c"], seed=7, submitted=0.0
        )  # fmt: skip
        self.federation = DeployedFederation(start, Link(theirs), RunBlobs(folder, self.blobs), self.report, lambda *_: None)

    def report(self, record: dict[str, Any]) -> dict[str, Any]:
        self.reports.append(record)
        return record

    def say(self, *lines: link.Line) -> None:
        self.socket.sendall(b"".join(map(link.encode, lines)))

    def heard(self) -> list[link.FromRun]:
        return [link.from_run(line) for line in self.socket.recv(1 << 20).splitlines()]

    def step(self, *came: Came, **more: Any) -> Step:
        now = time.time()
        return Step(seq=1, opened_at=now, now=now, last=1, came=list(came), **more)

    def came(self, slot: int, value: float = 1.0, *, attempt: int = 1, at: float = 0.0, **more: Any) -> Came:
        blob = self.blobs.put(codec.encode_parts(Shareable({"u": {"w": np.full(2, value, np.float32)}})))
        return Came(seq=1, slot=slot, attempt=attempt, at=at or time.time(), blob=blob.digest, blob_bytes=blob.size, **more)

    def ask(self, policy: Policy | None = None) -> list[Reply]:
        self.replies = self.federation.task(TASK, [0, 1, 2], policy or Policy())
        return list(self.replies)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    made = Server(tmp_path / "blobs")
    yield made
    made.socket.close()
    made.federation.link._socket.close()


def values(replies: list[Reply]) -> list[tuple[str, float]]:
    return [(reply.site, float(dict(leaves(reply.shareable.body))["u/w"][0])) for reply in replies]


def test_replies_come_in_slot_order_whatever_the_order_of_their_commits(server: Server) -> None:
    server.say(server.step(), server.came(2, 3.0), server.came(0, 1.0), server.came(1, 2.0))
    assert values(server.ask()) == [("a", 1.0), ("b", 2.0), ("c", 3.0)]
    opened, closed = server.heard()
    assert isinstance(opened, link.Open)
    assert codec.decode(server.blobs.path(opened.body).read_bytes()).body.keys() == {"w"}
    assert isinstance(closed, link.Close)
    assert [verdict.slot for verdict in closed.admitted] == [0, 1, 2]
    assert (closed.bytes_up, closed.bytes_down) == (24, 24)


def test_a_reply_that_the_gate_refuses_and_a_site_that_is_lost_are_named_and_left_out(server: Server) -> None:
    lost = Came(seq=1, slot=2, attempt=1, at=time.time(), lost=True)
    server.say(server.step(), server.came(0, float("nan")), lost, server.came(1, 2.0))
    assert values(server.ask()) == [("b", 2.0)]
    assert [(r.site, r.failure.code, r.failure.path) for r in server.replies.refused if r.failure] == [("a", "not_finite", "u/w")]
    assert [r.site for r in server.replies.lost] == ["c"]


def test_a_blob_that_is_no_message_is_refused(server: Server) -> None:
    blob = server.blobs.put([b"\x80\x04pickle"])
    server.say(
        server.step(),
        server.came(0),
        server.came(1),
        Came(seq=1, slot=2, attempt=1, at=time.time(), blob=blob.digest, blob_bytes=8),
    )
    assert len(server.ask()) == 2
    assert [(r.site, r.failure.code) for r in server.replies.refused if r.failure] == [("c", "spec")]


def test_at_the_deadline_the_round_closes_with_its_quorum_and_the_rest_is_late(server: Server) -> None:
    server.say(server.step(), server.came(1, 5.0))
    began = time.monotonic()
    assert values(server.ask(Policy(deadline_s=0.2))) == [("b", 5.0)]
    assert 0.1 < time.monotonic() - began < 5
    assert [(r.site, r.failure.code) for r in server.replies.lost if r.failure] == [("a", "late"), ("c", "late")]


def test_a_result_committed_after_the_deadline_is_late_also_when_the_run_was_down_meanwhile(server: Server) -> None:
    opened = time.time() - 100.0
    came = [server.came(0, at=opened + 1.0), server.came(1, at=opened + 9.0), server.came(2, at=opened + 2.0)]
    server.say(Step(seq=1, opened_at=opened, now=opened + 100.0, last=1, came=came))
    assert values(server.ask(Policy(deadline_s=5.0))) == [("a", 1.0)]
    assert [r.site for r in server.replies.lost] == ["b", "c"]


def test_a_site_is_asked_again_where_the_policy_says_so_and_only_its_new_attempt_counts(server: Server) -> None:
    failed = Came(seq=1, slot=0, attempt=1, at=time.time(), failure=Failure("client", "boom"))
    server.say(server.step(), failed, server.came(0, 9.0), server.came(1), server.came(2), server.came(0, 2.0, attempt=2))
    assert values(server.ask(Policy(attempts=2))) == [("a", 2.0), ("b", 1.0), ("c", 1.0)]
    assert [line.again for line in server.heard() if isinstance(line, link.Assign)] == [[(0, 2)]]


def test_without_a_quorum_the_round_fails_naming_the_first_reason_and_fails_again_when_recalled(server: Server) -> None:
    refused = [Came(seq=1, slot=slot, attempt=1, at=time.time(), failure=Failure("refused", f"no {slot}")) for slot in (0, 1)]
    server.say(server.step(*refused))
    with pytest.raises(QuorumError, match="no 0"):
        server.ask(Policy(quorum=2))
    closed = server.heard()[-1]
    assert isinstance(closed, link.Close)
    server.federation.seq = 0
    server.say(server.step(*refused, closed=closed))
    with pytest.raises(QuorumError, match="no 0"):
        server.ask(Policy(quorum=2))


def test_a_step_that_has_closed_is_recalled_with_what_it_gave(server: Server) -> None:
    came = [server.came(2, 3.0), server.came(0, float("inf")), server.came(1, 2.0)]
    server.say(server.step(), *came)
    first = values(server.ask())
    closed = server.heard()[-1]
    assert isinstance(closed, link.Close)
    server.federation.seq = 0
    server.say(came[0], server.step(*came, closed=closed))  # a line of before the question is passed over
    assert values(server.ask()) == first == [("b", 2.0), ("c", 3.0)]
    assert [r.site for r in server.replies.refused] == ["a"]
    assert len(server.heard()) == 1


def test_a_workflow_that_asks_for_something_else_stops_and_is_told_what_differs(server: Server) -> None:
    server.say(server.step(differs="task 'evaluate' of round 1"))
    with pytest.raises(ReplayError, match="differs at step 1") as caught:
        server.ask()
    assert caught.value.expected == "task 'evaluate' of round 1"
    server.federation.seq, server.federation.last = 1, 4
    with pytest.raises(ReplayError, match="the workflow's end"):
        server.federation.end()


def test_a_stop_and_the_servers_end_are_told_apart(server: Server) -> None:
    server.say(link.Stop(reason="abort by lea"))
    with pytest.raises(Aborted, match="abort by lea"):
        server.ask()
    server.socket.close()
    with pytest.raises(ServerGone):
        list(server.federation.task(TASK, [0], Policy()))


def test_replies_are_taken_once(server: Server) -> None:
    server.say(server.step(), server.came(0), server.came(1), server.came(2))
    server.ask()
    with pytest.raises(RunError, match="taken once"):
        list(server.replies)


def moved(model: Tree, x: float) -> Tree:
    return trees.map(lambda leaf: leaf + x, model)


@federated_computation
def mean_of(model: Placed[Tree], x: Clients[float]) -> Placed[Tree]:
    return federated_aggregate(federated_map(moved, (federated_broadcast(model), x)), Mean(), like=model)


@pytest.mark.parametrize("fold_bytes", [0, 1 << 20])
def test_large_updates_are_folded_from_their_blobs_and_give_the_bits_of_the_running_sum(server: Server, fold_bytes: int) -> None:
    server.federation.fold_bytes = fold_bytes
    values = [0.1, float("nan"), 3e7]
    blobs = [server.blobs.put(codec.encode_parts(Shareable({"moved": {"w": np.full(9_000, v, np.float32)}}))) for v in values]
    came = [
        Came(seq=1, slot=slot, attempt=1, at=time.time(), blob=blob.digest, blob_bytes=blob.size) for slot, blob in enumerate(blobs)
    ]
    server.say(server.step(*came))
    done = run(mean_of, server.federation, {"w": np.zeros(9_000, np.float32)})
    expected = np.float32((np.float64(np.float32(0.1)) + np.float64(np.float32(3e7))) / 2)
    assert done.result["w"].tobytes() == np.full(9_000, expected).tobytes()
    assert [(r.site, r.failure.code) for r in done.refused if r.failure] == [("b", "not_finite")]


@pytest.mark.parametrize("fold_bytes", [0, 1 << 20])
def test_updates_in_half_precision_are_folded_as_they_came_and_give_a_mean_in_full(server: Server, fold_bytes: int) -> None:
    server.federation.fold_bytes, server.federation.outgoing = fold_bytes, HalfPrecision().on_task
    values = [np.float32(0.1), np.float32(1 / 3)]
    replies = [half.narrowed(Shareable({"moved": {"w": np.full(9_000, v)}}), "float16") for v in values]
    blobs = [server.blobs.put(codec.encode_parts(reply)) for reply in replies]
    came = [Came(seq=1, slot=k, attempt=1, at=time.time(), blob=b.digest, blob_bytes=b.size) for k, b in enumerate(blobs)]
    server.say(server.step(*came))
    done = run(mean_of, server.federation, {"w": np.full(9_000, 0.1, np.float32)}, slots=[0, 1])
    thin = np.float64(np.float16(values[0])) + np.float64(np.float16(values[1]))
    assert done.result["w"].tobytes() == np.full(9_000, thin / 2).astype(np.float32).tobytes()
    opened = server.heard()[0]
    assert isinstance(opened, link.Open)
    body = codec.decode(server.blobs.path(opened.body).read_bytes())
    assert {leaf.dtype.name for _, leaf in leaves(body.body)} == {"float16"}
    assert server.federation.traffic["bytes_down"] == 2 * 2 * 9_000


def test_memory_that_reading_replies_took_is_given_back(server: Server) -> None:
    server.federation.fold_bytes = 0
    size = 4_000_000
    task = Task("train", Shareable(), 1, expect=(Expect("u", Spec.of({"w": np.zeros(size, np.float32)})),))
    blob = server.blobs.put(codec.encode_parts(Shareable({"u": {"w": np.ones(size, np.float32)}})))
    server.say(server.step(Came(seq=1, slot=0, attempt=1, at=time.time(), blob=blob.digest, blob_bytes=blob.size)))
    replies = server.federation.task(task, [0], Policy())
    (reply,) = replies
    assert replies.release is not None  # type: ignore[attr-defined]
    before = resident_file_mb()
    assert float(dict(leaves(reply.shareable.body))["u/w"].sum()) == size
    assert resident_file_mb() - before > 12
    replies.release()  # type: ignore[attr-defined]
    assert resident_file_mb() - before < 4


def resident_file_mb() -> float:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 / 1e6 for line in lines if line.startswith("RssFile:"))


def test_a_plan_that_promises_a_secure_protocol_is_refused_by_name_before_any_site_is_asked(server: Server) -> None:
    keys = FederatedType((np.int32, [2]), CLIENTS)

    @federated_computation(FederatedType(np.int32, CLIENTS))
    def counted(n: Any) -> Any:
        plain = federated_sum(n)
        return plain, federated_secure_sum(n, plain)  # in the second stage: the first is not asked either

    @federated_computation(keys, FederatedType(np.int32, SERVER))
    def rows_of(k: Any, most: Any) -> Any:
        return federated_sum(federated_map(count_of, federated_secure_select(k, most, most, lambda rows, key: key)))

    for computation, state, name in ((counted, (), "federated_secure_sum"), (rows_of, (3,), "federated_secure_select")):
        with pytest.raises(RefusedError, match=f"no secure protocol for {name}"):
            run(computation, server.federation, *state)
    server.socket.setblocking(False)
    with pytest.raises(BlockingIOError):
        server.heard()
