"""Blobs as files: who may read them, what a full disk and a second process do to them."""

import contextlib
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from blake3 import blake3

from hansa.errors import StorageError
from hansa.runtime.store.blobs import DigestError, FileBlobs


def digest_of(data: bytes) -> str:
    return blake3(data).hexdigest()


@pytest.fixture
def blobs(tmp_path: Path) -> Iterator[FileBlobs]:
    with contextlib.closing(FileBlobs(tmp_path / "blobs")) as opened:
        yield opened


@contextlib.contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Within the block no file of this process can grow beyond `size` bytes: a write beyond it fails as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_only_the_owner_can_read_the_folder_and_its_files(blobs: FileBlobs) -> None:
    put = blobs.put([b"hansa"]).digest
    upload = blobs.upload(digest_of(b"sent"), 4)
    upload.append(0, b"sent")
    upload.finish()
    assert blobs.root.stat().st_mode & 0o777 == 0o700
    assert {blobs.path(each).stat().st_mode & 0o777 for each in (put, upload.digest)} == {0o600}


@pytest.mark.parametrize("reserve", [{"reserve_bytes": 2**62}, {"low_water": 1.0}])
def test_a_disk_that_is_nearly_full_is_named_with_the_bytes_and_nothing_is_written(tmp_path: Path, reserve: dict[str, Any]) -> None:
    with contextlib.closing(FileBlobs(tmp_path / "blobs", **reserve)) as blobs:
        assert blobs.free_bytes == 0
        for call in (lambda: blobs.put([b"hansa"]), lambda: blobs.upload(digest_of(b"hansa"), 5)):
            with pytest.raises(StorageError, match="nearly full") as caught:
                call()
            assert caught.value.path == str(tmp_path / "blobs")
            assert caught.value.expected == "room for 5 bytes"
        assert not list(tmp_path.rglob("*.p*t"))


def test_a_full_disk_refuses_a_chunk_and_the_upload_goes_on_when_there_is_room(blobs: FileBlobs) -> None:
    data = bytes(range(250)) * 1_000
    upload = blobs.upload(digest_of(data), len(data))
    upload.append(0, data[:100_000])
    with largest_file(150_000), pytest.raises(StorageError, match="the disk is full"):
        upload.append(100_000, data[100_000:])
    assert upload.offset == 100_000
    upload.append(100_000, data[100_000:])
    upload.finish()
    assert blobs.read(upload.digest, 0, len(data)) == data


def test_a_put_on_a_full_disk_leaves_nothing(blobs: FileBlobs) -> None:
    with largest_file(1_000), pytest.raises(StorageError, match="the disk is full"):
        blobs.put([b"x" * 900, b"y" * 900])
    assert [path for path in blobs.root.rglob("*") if path.is_file()] == []


def test_bytes_that_changed_on_the_disk_between_two_starts_are_found(blobs: FileBlobs) -> None:
    upload = blobs.upload(digest_of(b"hansa"), 5)
    upload.append(0, b"han")
    (part,) = (blobs.root / "incoming").glob("*.part")
    part.write_bytes(b"hen")
    blobs.close()
    again = FileBlobs(blobs.root)
    upload = again.upload(digest_of(b"hansa"), 5)
    upload.append(3, b"sa")
    with contextlib.closing(again), pytest.raises(DigestError):
        upload.finish()


def test_a_part_that_is_longer_than_the_blob_is_begun_anew(blobs: FileBlobs) -> None:
    blobs.upload(digest_of(b"hansa"), 5).append(0, b"han")
    (part,) = (blobs.root / "incoming").glob("*.part")
    part.write_bytes(b"hansa and more")
    blobs.close()
    with contextlib.closing(FileBlobs(blobs.root)) as again:
        assert again.upload(digest_of(b"hansa"), 5).offset == 0


def test_one_process_uploads_and_others_put_and_read(blobs: FileBlobs) -> None:
    blobs.upload(digest_of(b"hansa"), 5)
    with contextlib.closing(FileBlobs(blobs.root)) as other:
        digest = other.put([b"body"]).digest
        assert blobs.read(digest, 0, 4) == b"body"
        with pytest.raises(StorageError, match=f"got process {os.getpid()}"):
            other.upload(digest_of(b"x"), 1)
        blobs.close()
        other.upload(digest_of(b"x"), 1)


def test_what_is_put_again_is_young_again(blobs: FileBlobs) -> None:
    digest = blobs.put([b"hansa"]).digest
    os.utime(blobs.path(digest), (0, 0))
    blobs.put([b"hansa"])
    assert blobs.sweep([], older_than_s=0, now=1e9) == []
    os.utime(blobs.path(digest), (0, 0))
    blobs.upload(digest, 5)
    assert blobs.sweep([], older_than_s=0, now=1e9) == []
    os.utime(blobs.path(digest), (0, 0))
    assert blobs.sweep([], older_than_s=0, now=1e9) == [digest]


def test_a_sweep_touches_nothing_else_in_the_folder(blobs: FileBlobs) -> None:
    (blobs.root / "README").write_text("not a blob")
    os.utime(blobs.root / "README", (0, 0))
    assert blobs.sweep([], older_than_s=0, now=1e9) == []
    assert (blobs.root / "README").exists()


def test_a_file_is_made_a_blob_without_a_copy_unless_another_name_leads_to_it(blobs: FileBlobs, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"content")
    handle = os.open(path, os.O_RDONLY)
    os.link(path, tmp_path / "other")
    assert blobs.adopt(handle, path, 7) is None
    assert path.read_bytes() == b"content"
    (tmp_path / "other").unlink()
    blob = blobs.adopt(handle, path, 7)
    os.close(handle)
    assert (blob, path.exists()) == ((digest_of(b"content"), 7), False)
    assert blobs.path(digest_of(b"content")).read_bytes() == b"content"
    blobs.drop([digest_of(b"content"), digest_of(b"never there")])
    assert blobs.size(digest_of(b"content")) is None


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="file"):
        FileBlobs(tmp_path / "file" / "blobs")


def test_at_whatever_system_call_a_process_is_killed_no_half_blob_is_seen(tmp_path: Path) -> None:
    script = Path(__file__).with_name("kill_points.py")
    done = subprocess.run([sys.executable, script, tmp_path], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    points = int(done.stdout)
    assert points >= 20
