"""The folder of blobs against a model: whatever is put, sent, stopped, restarted, discarded and swept, in whatever order."""

import shutil
import tempfile
from pathlib import Path

import pytest
from blake3 import blake3
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from hansa.errors import InputError
from hansa.runtime.store.blobs import DigestError, FileBlobs, OffsetError

CONTENTS = [b"", b"a", b"hansa", bytes(range(256)) * 5]
NAMES = {blake3(content).hexdigest(): content for content in CONTENTS}
contents, owners = st.sampled_from(CONTENTS), st.sampled_from(["", "north", "south"])
digests = st.sampled_from(sorted(NAMES))


class BlobsAgainstModel(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.root = Path(tempfile.mkdtemp())
        self.blobs = FileBlobs(self.root)
        self.whole: set[str] = set()
        self.parts: dict[tuple[str, str], bytes] = {}  # by digest and owner

    def teardown(self) -> None:
        self.blobs.close()
        shutil.rmtree(self.root)

    @rule(content=contents, cut=st.integers(0, 3))
    def put(self, content: bytes, cut: int) -> None:
        self.whole.add(self.blobs.put([content[:cut], content[cut:]]).digest)

    @rule(digest=digests, owner=owners, length=st.integers(0, 2_000), right=st.booleans(), shift=st.sampled_from([0, 0, 0, -1, 1]))
    def send(self, digest: str, owner: str, length: int, right: bool, shift: int) -> None:
        want = NAMES[digest]
        upload = self.blobs.upload(digest, len(want), owner=owner)
        have = want if digest in self.whole else self.parts.setdefault((digest, owner), b"")
        assert upload.offset == len(have)
        chunk = want[len(have) : len(have) + length] if right else b"?" * length
        if shift:
            with pytest.raises(OffsetError):
                upload.append(len(have) + shift, chunk)
        elif len(have) + len(chunk) > len(want):
            with pytest.raises(InputError, match="announced"):
                upload.append(len(have), chunk)
        else:
            assert upload.append(len(have), chunk) == len(have) + len(chunk)
            if digest not in self.whole:
                self.parts[digest, owner] = have + chunk

    @rule(digest=digests, owner=owners)
    def finish(self, digest: str, owner: str) -> None:
        want = NAMES[digest]
        upload = self.blobs.upload(digest, len(want), owner=owner)
        have = want if digest in self.whole else self.parts.pop((digest, owner), b"")
        if len(have) < len(want):
            self.parts[digest, owner] = have
            with pytest.raises(OffsetError):
                upload.finish()
        elif have != want:
            with pytest.raises(DigestError):
                upload.finish()
        else:
            upload.finish()
            self.whole.add(digest)

    @rule(digest=digests, owner=owners)
    def discard(self, digest: str, owner: str) -> None:
        self.blobs.upload(digest, len(NAMES[digest]), owner=owner).discard()
        if digest not in self.whole:
            self.parts.pop((digest, owner), None)

    @rule()
    def restart(self) -> None:
        self.blobs.close()
        self.blobs = FileBlobs(self.root)

    @rule(digest=digests)
    def remove(self, digest: str) -> None:
        assert self.blobs.remove(digest) == (digest in self.whole)
        self.whole.discard(digest)

    @rule(keep=st.sets(digests))
    def sweep(self, keep: set[str]) -> None:
        assert self.blobs.sweep(keep, older_than_s=0, now=4e9) == sorted(self.whole - keep)
        self.whole &= keep
        self.parts.clear()

    @invariant()
    def what_is_seen_is_whole(self) -> None:
        for digest, content in NAMES.items():
            assert self.blobs.size(digest) == (len(content) if digest in self.whole else None)
            if digest in self.whole:
                assert self.blobs.read(digest, 0, 10_000) == content


TestBlobsAgainstModel = BlobsAgainstModel.TestCase
TestBlobsAgainstModel.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)
