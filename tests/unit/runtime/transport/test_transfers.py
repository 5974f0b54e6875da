import asyncio
import gzip
import threading
import tracemalloc
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from blake3 import blake3
from tests.unit.runtime.transport.peers import Behaviour, credentials, make_kits, peer, site_kit

from hansa.errors import IdentityError, InputError, RefusedError, StorageError, UnreachableError
from hansa.runtime.config import load_kit
from hansa.runtime.protocol.messages import CHUNK, INSIDE, JSON_LIMIT, Ack, Problem, Result, encode
from hansa.runtime.store.blobs import FileBlobs
from hansa.runtime.transport.blobs import download, size_of, upload
from hansa.runtime.transport.http import ANSWER_LIMIT, Connection

CONTENT = bytes(range(256)) * (10 * 1024) + b"end"  # 2.5 MiB and a little
DIGEST = blake3(CONTENT).hexdigest()


@pytest.fixture(scope="module")
def kits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_kits(tmp_path_factory.mktemp("office"))


@pytest.fixture
def how() -> Behaviour:
    return Behaviour()


@pytest.fixture
def address(kits: Path, how: Behaviour) -> Iterator[str]:
    with peer(load_kit(kits / "server"), how) as url:
        yield url


@pytest.fixture
def blobs(tmp_path: Path) -> Iterator[FileBlobs]:
    store = FileBlobs(tmp_path / "blobs", reserve_bytes=0)
    yield store
    store.close()


def run(
    kits: Path, address: str, work: Callable[[Connection], Awaitable[None]], *, retry: bool = True, direct: bool = True
) -> Connection:
    async def main() -> Connection:
        async with Connection(credentials(site_kit(kits), address, certificate=direct), retry=retry) as connection:
            async with asyncio.timeout(30):
                await work(connection)
        return connection

    return asyncio.run(main())


def test_a_download_that_is_cut_twice_goes_on_where_it_stopped(kits: Path, address: str, how: Behaviour, blobs: FileBlobs) -> None:
    how.blobs[DIGEST], how.cut = CONTENT, [100_000, 1_000_000]
    moved: list[int] = []
    run(kits, address, lambda c: download(c, DIGEST, len(CONTENT), partial(blobs.upload, DIGEST, len(CONTENT)), moved=moved.append))
    assert blobs.path(DIGEST).read_bytes() == CONTENT
    assert sum(moved) == len(CONTENT)
    ranges = [int(asked.split("bytes=")[1].split("-")[0]) for asked in how.asked if "bytes=" in asked]
    assert ranges[0] == 0
    assert ranges == sorted(ranges)
    assert how.served_bytes == len(CONTENT)  # what has come is not sent again


def test_a_download_goes_on_in_another_process_life(kits: Path, address: str, how: Behaviour, tmp_path: Path) -> None:
    how.blobs[DIGEST], how.cut = CONTENT, [700_000]
    first = FileBlobs(tmp_path / "b", reserve_bytes=0)
    with pytest.raises(UnreachableError):
        run(kits, address, lambda c: download(c, DIGEST, len(CONTENT), partial(first.upload, DIGEST, len(CONTENT))), retry=False)
    first.close()
    second = FileBlobs(tmp_path / "b", reserve_bytes=0)
    had = second.received(DIGEST)
    assert 0 < had <= 700_000
    run(kits, address, lambda c: download(c, DIGEST, len(CONTENT), partial(second.upload, DIGEST, len(CONTENT))))
    assert how.asked[-1].endswith(f"bytes={had}-{len(CONTENT) - 1}")
    assert second.path(DIGEST).read_bytes() == CONTENT
    second.close()


def test_a_changed_byte_is_noticed_and_the_blob_asked_for_again(kits: Path, address: str, how: Behaviour, blobs: FileBlobs) -> None:
    how.blobs[DIGEST], how.corrupt = CONTENT, [True]
    run(kits, address, lambda c: download(c, DIGEST, len(CONTENT), partial(blobs.upload, DIGEST, len(CONTENT))))
    assert blobs.path(DIGEST).read_bytes() == CONTENT
    assert sum("bytes=0-" in asked for asked in how.asked) == 2


def test_a_blob_that_is_always_changed_is_named_and_nothing_of_it_stays(
    kits: Path, address: str, how: Behaviour, blobs: FileBlobs
) -> None:
    how.blobs[DIGEST], how.corrupt = CONTENT, [True] * 9
    with pytest.raises(StorageError, match="arrives changed") as caught:
        run(kits, address, lambda c: download(c, DIGEST, len(CONTENT), partial(blobs.upload, DIGEST, len(CONTENT))))
    assert (caught.value.path, caught.value.exit_code) == (DIGEST, 5)
    assert blobs.size(DIGEST) is None
    assert blobs.received(DIGEST) == 0


@pytest.mark.parametrize("direct", [True, False])
@pytest.mark.parametrize("size", [0, 1, CHUNK, CHUNK + 1, len(CONTENT)])
def test_an_upload_arrives_whole_in_one_piece_or_in_pieces_that_pass_a_proxy(
    kits: Path, how: Behaviour, tmp_path: Path, size: int, direct: bool
) -> None:
    path = tmp_path / "result"
    path.write_bytes(CONTENT[:size])
    digest = blake3(CONTENT[:size]).hexdigest()
    moved: list[int] = []
    with peer(load_kit(kits / "server"), how, direct=direct) as address:
        run(kits, address, lambda c: upload(c, digest, path, moved=moved.append), direct=direct)
    assert how.blobs[digest] == CONTENT[:size]
    assert sum(moved) == size
    assert sum(asked.startswith("PUT") for asked in how.asked) == (1 if direct else max(1, -(-size // CHUNK)))


def test_an_upload_whose_answer_is_lost_sends_nothing_twice(kits: Path, how: Behaviour, tmp_path: Path) -> None:
    path = tmp_path / "result"
    path.write_bytes(CONTENT)
    how.deaf = [False, True]
    with peer(load_kit(kits / "server"), how, direct=False) as address:
        run(kits, address, lambda c: upload(c, DIGEST, path), direct=False)
    assert how.blobs[DIGEST] == CONTENT
    assert how.taken_bytes == len(CONTENT)


def test_an_upload_that_is_cut_goes_on_where_the_server_is(kits: Path, address: str, how: Behaviour, tmp_path: Path) -> None:
    path = tmp_path / "result"
    path.write_bytes(CONTENT)
    how.hang_up = [1_000_000]
    run(kits, address, lambda c: upload(c, DIGEST, path))
    assert how.blobs[DIGEST] == CONTENT
    assert how.taken_bytes == len(CONTENT)


def test_a_transfer_that_is_cancelled_ends_its_thread(kits: Path, address: str, how: Behaviour, blobs: FileBlobs) -> None:
    how.blobs[DIGEST], how.stall = CONTENT, threading.Event()

    async def work(connection: Connection) -> None:
        begun = asyncio.Event()
        loop = asyncio.get_running_loop()
        size = len(CONTENT)
        moving = download(
            connection,
            DIGEST,
            size,
            partial(blobs.upload, DIGEST, size),
            moved=lambda _: loop.call_soon_threadsafe(begun.set),  # type: ignore[arg-type]
        )
        task = asyncio.create_task(moving)
        await begun.wait()
        task.cancel()
        await asyncio.wait([task], timeout=5)
        assert task.cancelled()

    run(kits, address, work)
    how.stall.set()
    assert 0 < blobs.received(DIGEST) < len(CONTENT)


def test_an_upload_that_is_there_already_sends_nothing(kits: Path, address: str, how: Behaviour, tmp_path: Path) -> None:
    path = tmp_path / "result"
    path.write_bytes(CONTENT)
    how.blobs[DIGEST] = CONTENT
    run(kits, address, lambda c: upload(c, DIGEST, path))
    assert how.taken_bytes == 0


def test_a_server_without_room_is_asked_again_until_it_has(kits: Path, address: str, how: Behaviour, tmp_path: Path) -> None:
    path = tmp_path / "result"
    path.write_bytes(CONTENT)
    how.refuse = [("/v1/blobs", Problem(title="the disk is full", status=507, code="storage"))] * 2
    run(kits, address, lambda c: upload(c, DIGEST, path))
    assert how.blobs[DIGEST] == CONTENT


@pytest.mark.parametrize(
    ("status", "code", "kind", "exit_code"),
    [
        (403, "revoked", IdentityError, 3),
        (403, "refused", RefusedError, 3),
        (400, "input", InputError, 2),
        (404, "missing_blob", InputError, 2),
        (413, "too_large", InputError, 2),
    ],
)
def test_a_refusal_is_told_with_its_code_and_not_repeated(
    kits: Path, address: str, how: Behaviour, status: int, code: str, kind: type[Exception], exit_code: int
) -> None:
    how.refuse = [("/v1/blobs", Problem(title="no", status=status, code=code, detail="because", hint="mend it"))] * 2  # HEAD, GET
    with pytest.raises(kind, match=r"no; because \(mend it\)") as caught:
        run(kits, address, lambda c: size_of(c, DIGEST))  # type: ignore[arg-type,return-value]
    assert getattr(caught.value, "code", "") == code
    assert getattr(caught.value, "exit_code", 0) == exit_code


@pytest.mark.parametrize(
    ("says", "why"),
    [((b" " * (ANSWER_LIMIT + 1), "identity"), "too long"), ((gzip.compress(b" " * (64 << 20)), "gzip"), "cannot be read")],
    ids=["long", "unpacks to 64 MB"],
)
def test_an_answer_is_held_only_up_to_its_limit_and_never_unpacked(
    kits: Path, address: str, how: Behaviour, says: tuple[bytes, str], why: str
) -> None:
    how.says = [says]
    tracemalloc.start()
    try:
        with pytest.raises(UnreachableError, match=why):
            run(kits, address, lambda c: c.post("/v1/results", Result("r", 1, 1, 0), Ack), retry=False)  # type: ignore[arg-type,return-value]
        assert tracemalloc.get_traced_memory()[1] < 24 << 20
    finally:
        tracemalloc.stop()


def test_an_answer_that_a_proxy_sends_in_chunks_is_taken_and_held_to_its_limit(kits: Path, address: str, how: Behaviour) -> None:
    how.chunks = True
    own = encode(Ack(outcome="accepted"))
    how.says = [(own, "identity"), (own, "identity"), (b" " * (JSON_LIMIT + INSIDE + 1), "identity")]
    found: list[tuple[Ack, memoryview]] = []

    async def carry(connection: Connection) -> None:
        for _ in range(2):
            found.append(await connection.carry("POST", "/v1/results", Ack, content=lambda: b"{}x", own=2))

    run(kits, address, carry)
    assert [(said.outcome, bytes(rest)) for said, rest in found] == [("accepted", b"")] * 2
    with pytest.raises(UnreachableError):
        run(kits, address, lambda c: c.carry("POST", "/v1/results", Ack), retry=False)  # type: ignore[arg-type,return-value]


def test_a_token_that_the_server_has_forgotten_is_renewed_once(kits: Path, address: str, how: Behaviour) -> None:
    how.refuse = [("/v1/blobs", Problem(title="no", status=401, code="bad_signature"))]
    back: list[bool] = []

    async def work(connection: Connection) -> None:
        connection.on_back = lambda: back.append(True)
        await connection.request("PUT", "/v1/blobs/x", content=b"", headers={"Upload-Offset": "0", "Upload-Length": "9"})
        how.refuse += [("/v1/blobs", Problem(title="no", status=401, code="bad_signature"))]
        await connection.request("PUT", "/v1/blobs/x", content=b"", headers={"Upload-Offset": "0", "Upload-Length": "9"})

    run(kits, address, work)
    assert sum("token" in asked for asked in how.asked) == 3
    assert back == [True]  # a token that had been good is not: the server was started anew


def test_a_token_that_is_never_good_is_an_error(kits: Path, address: str, how: Behaviour) -> None:
    how.refuse = [("/v1/blobs", Problem(title="no", status=401, code="bad_signature"))] * 2
    with pytest.raises(IdentityError) as caught:
        run(kits, address, lambda c: c.request("PUT", "/v1/blobs/x", content=b""))  # type: ignore[arg-type,return-value]
    assert caught.value.code == "bad_signature"


def test_the_skew_of_the_clocks_is_known_after_the_first_token(kits: Path, address: str, how: Behaviour) -> None:
    how.ahead_s = 45.0
    connection = run(kits, address, lambda c: size_of(c, DIGEST))  # type: ignore[arg-type,return-value]
    assert connection.skew_s == pytest.approx(45.0, abs=2.0)
