import mmap
import os
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from hansa import codec
from hansa.core import trees
from hansa.core.task import Failure, FLContext, Shareable
from hansa.errors import ConfigError, InputError, SpecError
from hansa.runtime.client import leaving
from hansa.runtime.client.channel import Done
from hansa.runtime.client.leaving import LeavingError
from hansa.runtime.config import SitePolicy
from hansa.runtime.store.blobs import FileBlobs

POLICY = SitePolicy(authors="any", code="any", max_upload_mb=1)
CTX = FLContext(site="north")
REPLY = Shareable({"w": np.arange(3.0)}, {"loss": 0.5})


@pytest.fixture
def blobs(tmp_path: Path) -> FileBlobs:
    return FileBlobs(tmp_path / "blobs", reserve_bytes=0)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    path = tmp_path / "reply"
    path.write_bytes(codec.encode(REPLY))
    return path


def test_a_reply_leaves_as_it_was_written_and_its_file_is_gone(blobs: FileBlobs, out: Path) -> None:
    blob = leaving.take(out, blobs, POLICY, CTX)
    assert blobs.path(blob.digest).read_bytes() == codec.encode(REPLY)
    assert not out.exists()


def test_a_reply_is_taken_over_without_a_copy(blobs: FileBlobs, out: Path) -> None:
    written = out.stat().st_ino
    blob = leaving.take(out, blobs, POLICY, CTX)
    assert blobs.path(blob.digest).stat().st_ino == written


@pytest.mark.parametrize("held", ["open", "mapped"])
def test_a_reply_that_its_worker_could_still_change_is_copied(blobs: FileBlobs, out: Path, held: str) -> None:
    with out.open("r+b") as file:
        mapped = mmap.mmap(file.fileno(), 0) if held == "mapped" else None
        if held == "mapped":
            file.close()
        blob = leaving.take(out, blobs, POLICY, CTX)
        (mapped or file).write(b"changed!")
        (mapped or file).flush()
    assert blobs.path(blob.digest).read_bytes() == codec.encode(REPLY)
    assert not out.exists()
    assert list((blobs.root / "incoming").iterdir()) == []


def test_metrics_that_may_not_leave_are_left_out(blobs: FileBlobs, out: Path) -> None:
    blob = leaving.take(out, blobs, msgspec.structs.replace(POLICY, kinds=("arrays",)), CTX)
    left = codec.decode(blobs.path(blob.digest).read_bytes())
    assert (left.metrics, np.asarray(left.body["w"]).tolist()) == ({}, [0.0, 1.0, 2.0])


def test_arrays_that_may_not_leave_are_refused(blobs: FileBlobs, out: Path) -> None:
    with pytest.raises(LeavingError, match="arrays do not leave this site"):
        leaving.take(out, blobs, msgspec.structs.replace(POLICY, kinds=("metrics",)), CTX)


def test_what_is_no_message_does_not_leave(blobs: FileBlobs, out: Path) -> None:
    out.write_bytes(b"patient,age\nann,44\n")
    with pytest.raises(SpecError):
        leaving.take(out, blobs, POLICY, CTX)


def test_more_than_the_policy_permits_does_not_leave(blobs: FileBlobs, out: Path) -> None:
    out.write_bytes(codec.encode(Shareable({"w": np.zeros(200_000)})))
    with pytest.raises(InputError, match="not taken over"):
        leaving.take(out, blobs, POLICY, CTX)


@pytest.mark.parametrize("how", ["symbolic", "hard", "folder", "fifo", "nothing"])
def test_what_is_no_file_of_the_workers_own_does_not_leave(blobs: FileBlobs, tmp_path: Path, how: str) -> None:
    secret, out = tmp_path / "key.pem", tmp_path / "reply-1-1"
    secret.write_bytes(codec.encode(REPLY))
    match how:
        case "symbolic":
            out.symlink_to(secret)
        case "hard":
            os.link(secret, out)
        case "folder":
            out.mkdir()
        case "fifo":
            os.mkfifo(out)
    with pytest.raises(InputError):
        leaving.take(out, blobs, POLICY, CTX)


RAISED = Done(seq=1, attempt=1, code="client", message="KeyError: 'patient 4711'", trace="Traceback ... 4711")


def test_without_leave_the_author_sees_only_the_kind_of_what_their_code_raised() -> None:
    assert leaving.told(RAISED, POLICY) == Failure("client", "the job's code raised KeyError")
    odd = msgspec.structs.replace(RAISED, message="patient 4711 said: no")
    assert leaving.told(odd, POLICY) == Failure("client", "the job's code raised an error")


def test_with_leave_the_author_sees_all_of_it() -> None:
    shown = leaving.told(RAISED, msgspec.structs.replace(POLICY, traceback=True))
    assert shown == Failure("client", RAISED.message, None, RAISED.trace)


@pytest.mark.parametrize("name", ["delta", "moved", "anything"])
def test_a_filter_that_the_site_demands_bounds_what_leaves_whatever_the_job_calls_it(
    blobs: FileBlobs, out: Path, name: str
) -> None:
    out.write_bytes(codec.encode(Shareable({name: {"w": np.array([3.0, 4.0])}})))
    blob = leaving.take(out, blobs, msgspec.structs.replace(POLICY, filters=({"kind": "clip", "norm": 1.0},)), CTX)
    left = codec.decode(blobs.path(blob.digest).read_bytes())
    assert trees.norm(left.body) == pytest.approx(1.0)


def test_leaves_that_the_site_excludes_leave_as_zeros_and_the_others_as_they_are(blobs: FileBlobs, out: Path) -> None:
    out.write_bytes(codec.encode(Shareable({"delta": {"head": {"b": np.ones(2)}, "w": np.ones(2)}})))
    blob = leaving.take(out, blobs, msgspec.structs.replace(POLICY, filters=({"kind": "exclude", "paths": ["*/head/*"]},)), CTX)
    left = trees.flatten(codec.decode(blobs.path(blob.digest).read_bytes()).body)
    assert {path: np.asarray(leaf).tolist() for path, leaf in left.items()} == {"delta/head/b": [0, 0], "delta/w": [1, 1]}


def test_a_reply_that_the_sites_filter_does_not_take_stays(blobs: FileBlobs, out: Path) -> None:
    out.write_bytes(codec.encode(Shareable({"w": np.array([np.nan])})))
    with pytest.raises(LeavingError, match="this site's filter"):
        leaving.take(out, blobs, msgspec.structs.replace(POLICY, filters=({"kind": "clip", "norm": 1.0},)), CTX)


@pytest.mark.parametrize("table", [{"kind": "clap"}, {"kind": "clip"}, {"kind": "clip", "norm": -1.0}, {"norm": 1.0}])
def test_a_demand_that_cannot_be_met_is_an_error_and_not_a_reply_without_it(blobs: FileBlobs, out: Path, table: Any) -> None:
    with pytest.raises(ConfigError):
        leaving.take(out, blobs, msgspec.structs.replace(POLICY, filters=(table,)), CTX)
