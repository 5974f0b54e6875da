"""What every store of blobs and of events must do: inherit a suite, say how yours is opened, run pytest."""

# ruff: noqa: S101  assertions are what a suite is made of

from __future__ import annotations

import contextlib
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path

from blake3 import blake3

from hansa.errors import InputError
from hansa.files import Buffer
from hansa.runtime.audit.chain import Verified, verify
from hansa.runtime.store.blob import Blobs, DigestError, MissingBlobError, OffsetError
from hansa.runtime.store.event import DATA_LIMIT, GENESIS, Commit, Entry, Events
from hansa.testing.contracts import raises

FAR = 4e9  # seconds since the epoch: long after any test


def digest_of(data: bytes) -> str:
    """The BLAKE3 of the data in hex."""
    return blake3(data).hexdigest()


class BlobsContract(ABC):
    """What every store of blobs must do. `blobs(place)` opens the one that is kept at a place: the same place, the same blobs.

    `place` is an empty folder of the test's own; a store elsewhere takes its name as a prefix.
    """

    @abstractmethod
    def blobs(self, place: Path) -> Blobs:
        """The store at the place, opened, as it would be after a restart."""

    @contextlib.contextmanager
    def opened(self, place: Path) -> Iterator[Blobs]:
        """The store, closed at the end."""
        with contextlib.closing(self.blobs(place)) as blobs:
            yield blobs

    def test_a_blob_is_named_by_its_content_and_read_back(self, tmp_path: Path) -> None:
        with self.opened(tmp_path) as blobs:
            blob = blobs.put([b"han", bytearray(b"s"), memoryview(b"a")])
            assert blob == (digest_of(b"hansa"), 5)
            assert (blobs.size(blob.digest), blobs.path(blob.digest).read_bytes()) == (5, b"hansa")
            with blobs.open(blob.digest) as file:
                assert file.read() == b"hansa"
            assert blobs.put([b"hansa"]) == blob

    def test_a_blob_outlives_its_store(self, tmp_path: Path) -> None:
        with self.opened(tmp_path) as blobs:
            blob = blobs.put([b"x" * 3_000_000])
        with self.opened(tmp_path) as blobs:
            assert blobs.read(blob.digest, 0, blob.size) == b"x" * 3_000_000

    def test_a_range_is_read_and_is_short_only_at_the_end(self, tmp_path: Path) -> None:
        with self.opened(tmp_path) as blobs:
            digest = blobs.put([b"0123456789"]).digest
            assert [blobs.read(digest, *r) for r in ((0, 3), (3, 4), (8, 2**60), (10, 1), (99, 1))] == [
                b"012",
                b"3456",
                b"89",
                b"",
                b"",
            ]
            for offset, length in ((-1, 2), (0, -1)):
                with raises(InputError):
                    blobs.read(digest, offset, length)

    def test_nothing_that_is_no_digest_becomes_a_path(self, tmp_path: Path) -> None:
        good = digest_of(b"")
        with self.opened(tmp_path) as blobs:
            for bad in ("", "../" + good[3:], good.upper(), good[1:], good + "0", good + "\n", "/" + good[1:], good[:-1] + "\0"):
                for call in (blobs.size, blobs.path, blobs.open, blobs.remove, blobs.received):
                    with raises(InputError, match="not a digest"):
                        call(bad)
                with raises(InputError, match="not a digest"):
                    blobs.upload(bad, 3)
                with raises(InputError, match="not a digest"):
                    blobs.read(bad, 0, 1)
            for owner in ("..", "a/b", "a\n", ".hidden", "x" * 64):
                with raises(InputError, match="owner"):
                    blobs.upload(good, 3, owner=owner)

    def test_a_blob_that_is_not_there_is_missing(self, tmp_path: Path) -> None:
        digest = digest_of(b"nowhere")
        with self.opened(tmp_path) as blobs:
            assert (blobs.size(digest), blobs.received(digest), blobs.remove(digest)) == (None, 0, False)
            with raises(MissingBlobError):
                blobs.open(digest)
            with raises(MissingBlobError):
                blobs.read(digest, 0, 1)

    def test_a_removed_blob_is_gone_and_stays_readable_where_it_is_open(self, tmp_path: Path) -> None:
        with self.opened(tmp_path) as blobs:
            digest = blobs.put([b"hansa"]).digest
            with blobs.open(digest) as file:
                assert blobs.remove(digest)
                assert file.read() == b"hansa"
            assert blobs.size(digest) is None

    def test_a_put_that_fails_leaves_nothing(self, tmp_path: Path) -> None:
        def parts() -> Iterator[Buffer]:
            yield b"han"
            raise ValueError("the source broke")

        with self.opened(tmp_path) as blobs:
            with raises(ValueError, match="broke"):
                blobs.put(parts())
            assert blobs.size(digest_of(b"han")) is None
            assert not [path for path in tmp_path.rglob("*") if path.is_file() and path.stat().st_size]

    def test_an_upload_is_seen_only_when_it_is_whole(self, tmp_path: Path) -> None:
        digest = digest_of(b"hansa")
        with self.opened(tmp_path) as blobs:
            upload = blobs.upload(digest, 5)
            assert (upload.digest, upload.size, upload.offset) == (digest, 5, 0)
            assert (upload.append(0, b"han"), upload.append(3, bytearray(b"sa"))) == (3, 5)
            assert (blobs.size(digest), blobs.received(digest)) == (None, 5)
            upload.finish()
            upload.finish()
            assert (blobs.size(digest), blobs.received(digest), blobs.read(digest, 0, 5)) == (5, 5, b"hansa")

    def test_an_upload_goes_on_after_a_restart(self, tmp_path: Path) -> None:
        data = bytes(range(256)) * 8_192
        digest, cut = digest_of(data), 1_500_000
        with self.opened(tmp_path) as blobs:
            blobs.upload(digest, len(data), owner="north").append(0, data[:cut])
        with self.opened(tmp_path) as blobs:
            assert blobs.received(digest, owner="north") == cut
            upload = blobs.upload(digest, len(data), owner="north")
            assert upload.offset == cut
            upload.append(cut, data[cut:])
            upload.finish()
            assert blobs.read(digest, 0, len(data)) == data

    def test_a_chunk_at_another_place_is_refused_and_told_where_to_go_on(self, tmp_path: Path) -> None:
        with self.opened(tmp_path) as blobs:
            upload = blobs.upload(digest_of(b"hansa"), 5)
            upload.append(0, b"han")
            for offset in (0, 2, 4, 5, -1):
                with raises(OffsetError, match="expected 3"):
                    upload.append(offset, b"s")
            upload.append(3, b"sa")
            upload.finish()

    def test_more_bytes_than_announced_are_refused_and_what_had_come_stands(self, tmp_path: Path) -> None:
        with self.opened(tmp_path) as blobs:
            upload = blobs.upload(digest_of(b"hansa"), 5)
            upload.append(0, b"hans")
            with raises(InputError, match="announced"):
                upload.append(4, b"as")
            upload.append(4, b"a")
            upload.finish()
            with raises(InputError):
                blobs.upload(digest_of(b""), -1)

    def test_an_upload_that_is_not_whole_cannot_be_finished(self, tmp_path: Path) -> None:
        with self.opened(tmp_path) as blobs:
            upload = blobs.upload(digest_of(b"hansa"), 5)
            upload.append(0, b"hans")
            with raises(OffsetError, match="not whole"):
                upload.finish()
            assert upload.append(4, b"a") == 5

    def test_wrong_bytes_are_named_and_thrown_away_and_the_right_ones_can_be_sent(self, tmp_path: Path) -> None:
        digest = digest_of(b"hansa")
        with self.opened(tmp_path) as blobs:
            upload = blobs.upload(digest, 5)
            upload.append(0, b"hanse")
            with raises(DigestError, match=digest):
                upload.finish()
            assert (blobs.size(digest), blobs.received(digest)) == (None, 0)
            with raises(OffsetError, match="given up"):
                upload.finish()
            again = blobs.upload(digest, 5)
            again.append(0, b"hansa")
            again.finish()
            assert blobs.read(digest, 0, 5) == b"hansa"

    def test_one_senders_wrong_bytes_do_not_spoil_anothers_upload(self, tmp_path: Path) -> None:
        digest = digest_of(b"hansa")
        with self.opened(tmp_path) as blobs:
            good, bad = blobs.upload(digest, 5, owner="north"), blobs.upload(digest, 5, owner="south")
            bad.append(0, b"wrong")
            good.append(0, b"han")
            with raises(DigestError):
                bad.finish()
            good.append(3, b"sa")
            good.finish()
            assert blobs.read(digest, 0, 5) == b"hansa"

    def test_two_senders_of_one_blob_both_end_well(self, tmp_path: Path) -> None:
        digest = digest_of(b"hansa")
        with self.opened(tmp_path) as blobs:
            first, second = blobs.upload(digest, 5, owner="north"), blobs.upload(digest, 5, owner="south")
            for upload in (first, second):
                upload.append(0, b"hansa")
            first.finish()
            second.finish()
            assert blobs.read(digest, 0, 5) == b"hansa"

    def test_one_sender_on_two_connections_adds_each_byte_once(self, tmp_path: Path) -> None:
        data = bytes(range(256)) * 64
        digest, refused = digest_of(data), []
        with self.opened(tmp_path) as blobs:

            def send() -> None:
                upload = blobs.upload(digest, len(data))
                while (offset := upload.offset) < len(data):
                    try:
                        upload.append(offset, data[offset : offset + 100])
                    except OffsetError as error:
                        refused.append(error)

            threads = [threading.Thread(target=send) for _ in range(3)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            blobs.upload(digest, len(data)).finish()
            assert blobs.read(digest, 0, len(data)) == data

    def test_a_blob_that_is_there_need_not_be_sent(self, tmp_path: Path) -> None:
        with self.opened(tmp_path) as blobs:
            digest = blobs.put([b"hansa"]).digest
            upload = blobs.upload(digest, 5)
            assert upload.offset == 5
            upload.finish()
            upload.discard()
            assert blobs.size(digest) == 5
            with raises(InputError, match="another size"):
                blobs.upload(digest, 6)

    def test_an_announced_size_cannot_be_changed_while_the_upload_is_under_way(self, tmp_path: Path) -> None:
        with self.opened(tmp_path) as blobs:
            blobs.upload(digest_of(b"hansa"), 5).append(0, b"ha")
            with raises(InputError, match="another size"):
                blobs.upload(digest_of(b"hansa"), 6)

    def test_a_discarded_upload_is_forgotten_and_begun_anew(self, tmp_path: Path) -> None:
        digest = digest_of(b"hansa")
        with self.opened(tmp_path) as blobs:
            upload = blobs.upload(digest, 5)
            upload.append(0, b"han")
            upload.discard()
            upload.discard()
            with raises(OffsetError, match="given up"):
                upload.append(3, b"sa")
            assert (blobs.received(digest), blobs.upload(digest, 5).offset) == (0, 0)

    def test_an_empty_blob_is_a_blob(self, tmp_path: Path) -> None:
        with self.opened(tmp_path) as blobs:
            upload = blobs.upload(digest_of(b""), 0)
            upload.finish()
            assert blobs.size(digest_of(b"")) == 0
            assert blobs.put([]) == (digest_of(b""), 0)

    def test_a_sweep_removes_what_is_old_and_not_kept(self, tmp_path: Path) -> None:
        with self.opened(tmp_path) as blobs:
            keep, drop = blobs.put([b"keep"]).digest, blobs.put([b"drop"]).digest
            half = blobs.upload(digest_of(b"hansa"), 5)
            half.append(0, b"ha")
            assert blobs.sweep([keep], older_than_s=FAR, now=FAR) == []
            assert (blobs.size(drop), half.offset) == (4, 2)
            assert blobs.sweep([keep], older_than_s=60, now=FAR) == [drop]
            assert (blobs.size(keep), blobs.size(drop), blobs.received(digest_of(b"hansa"))) == (4, None, 0)
            again = blobs.upload(digest_of(b"hansa"), 5)
            again.append(0, b"hansa")
            again.finish()

    def test_it_says_how_much_room_there_is(self, tmp_path: Path) -> None:
        with self.opened(tmp_path) as blobs:
            assert blobs.free_bytes > 0


class EventsContract(ABC):
    """What every store of events must do. `events(place)` opens the one that is kept at a place: same place, same events."""

    @abstractmethod
    def events(self, place: Path) -> Events:
        """The store at the place, opened, as it would be after a restart."""

    @contextlib.contextmanager
    def opened(self, place: Path) -> Iterator[Events]:
        """The store, closed at the end."""
        with contextlib.closing(self.events(place)) as events:
            yield events

    def test_events_are_numbered_and_chained_in_their_stream(self, tmp_path: Path) -> None:
        with self.opened(tmp_path) as events:
            first, second = events.append("run-1", [Entry("opened", {"round": 1}), Entry("closed", {})], at=7.25)
            assert (first.stream, first.seq, first.kind, first.at, first.data) == ("run-1", 1, "opened", 7.25, {"round": 1})
            assert (first.prev, second.seq, second.prev) == (GENESIS, 2, first.hash)
            assert list(events.read("run-1")) == [first, second]
            assert events.heads() == {"run-1": second.head}

    def test_a_commit_to_several_streams_stands_whole(self, tmp_path: Path) -> None:
        with self.opened(tmp_path) as events:
            done = events.commit({"run-1": [Entry("a", {}), Entry("b", {})], "project": [Entry("c", {})]}, at=1.0)
            assert {stream: [event.kind for event in each] for stream, each in done.items()} == {
                "run-1": ["a", "b"],
                "project": ["c"],
            }
            assert [event.kind for event in events.all()] == ["a", "b", "c"]
            with raises(InputError, match="plain JSON"):
                events.commit({"run-1": [Entry("d", {})], "project": [Entry("e", {"x": float("nan")})]}, at=2.0)
            assert [head.seq for _, head in sorted(events.heads().items())] == [1, 2]

    def test_several_commits_share_a_transaction_and_each_gets_its_own(self, tmp_path: Path) -> None:
        with self.opened(tmp_path) as events:
            commits = [
                Commit({"s": [Entry("a", {})]}, 1.0),
                Commit({}, 2.0),
                Commit({"s": [Entry("b", {})], "t": [Entry("c", {})]}, 3.0),
            ]
            one, none, two = events.transact(commits)
            assert ([e.seq for e in one["s"]], none, [e.seq for e in two["s"]], two["t"][0].at) == ([1], {}, [2], 3.0)
            assert isinstance(verify(events.all()), Verified)
            assert (events.transact([]), events.append("s", [], at=1.0)) == ([], [])

    def test_a_reader_goes_on_after_what_it_knows(self, tmp_path: Path) -> None:
        with self.opened(tmp_path) as events:
            for number in range(6):
                events.append("even" if number % 2 == 0 else "odd", [Entry("n", {"number": number})], at=float(number))
            assert [event.data["number"] for event in events.read("odd", after=1)] == [3, 5]
            known = list(events.all())[3].id
            assert [event.data["number"] for event in events.all(after=known)] == [4, 5]
            assert (list(events.read("nothing")), list(events.read("odd", after=3))) == ([], [])

    def test_events_outlive_their_store_and_the_chain_goes_on(self, tmp_path: Path) -> None:
        with self.opened(tmp_path) as events:
            events.append("run-1", [Entry("a", {"text": "Größe\r\n\x1b[2J\ud83d\udea2", "x": [1, 0.1, None, True, 2**80]})], at=1.5)
            before = list(events.all())
        with self.opened(tmp_path) as events:
            assert list(events.all()) == before
            (after,) = events.append("run-1", [Entry("b", {})], at=2.5)
            assert (after.seq, after.prev) == (2, before[0].hash)
            assert isinstance(verify(events.all(), events.heads().values()), Verified)

    def test_many_events_are_read_in_order(self, tmp_path: Path) -> None:
        with self.opened(tmp_path) as events:
            events.append("s", [Entry("n", {"number": number}) for number in range(2_500)], at=0.0)
            assert [event.data["number"] for event in events.all()] == list(range(2_500))
            assert [event.seq for event in events.read("s", after=10)] == list(range(11, 2_501))

    def test_data_belong_to_the_store_once_they_are_recorded(self, tmp_path: Path) -> None:
        with self.opened(tmp_path) as events:
            data = {"sites": ["north"]}
            (event,) = events.append("s", [Entry("a", data)], at=0.0)
            data["sites"].append("south")
            assert event.data == next(events.read("s")).data == {"sites": ["north"]}

    def test_what_cannot_be_recorded_is_refused_and_nothing_is_written(self, tmp_path: Path) -> None:
        deep: dict[str, object] = {}
        for _ in range(100_000):
            deep = {"x": deep}
        bad: list[tuple[str, Entry, float]] = [
            ("", Entry("a", {}), 0.0),
            ("a b", Entry("a", {}), 0.0),
            ("s" * 129, Entry("a", {}), 0.0),
            ("s\n", Entry("a", {}), 0.0),
            ("s", Entry("a\x1b", {}), 0.0),
            ("s", Entry("", {}), 0.0),
            ("s", Entry("a", {"x": float("inf")}), 0.0),
            ("s", Entry("a", {"x": b"bytes"}), 0.0),
            ("s", Entry("a", {1: "x", "1": "y"}), 0.0),  # type: ignore[dict-item]  # what a caller without types may do
            ("s", Entry("a", deep), 0.0),
            ("s", Entry("a", {"x": "y" * DATA_LIMIT}), 0.0),
            ("s", Entry("a", {}), float("nan")),
        ]
        with self.opened(tmp_path) as events:
            for stream, entry, at in bad:
                with raises(InputError):
                    events.append(stream, [Entry("fine", {}), entry], at=at)
            assert (list(events.all()), events.heads()) == ([], {})

    def test_threads_that_append_at_once_leave_whole_chains(self, tmp_path: Path) -> None:
        with self.opened(tmp_path) as events:

            def work(name: str) -> None:
                for number in range(10):
                    events.commit({name: [Entry("n", {"number": number})], "shared": [Entry("n", {"by": name})]}, at=0.0)

            threads = [threading.Thread(target=work, args=(f"t{i}",)) for i in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            verdict = verify(events.all(), events.heads().values())
            assert isinstance(verdict, Verified)
            assert (verdict.events, verdict.heads["shared"].seq) == (80, 40)
