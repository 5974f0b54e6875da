"""The folder of blobs keeps the contract of blobs."""

from pathlib import Path

from hansa.runtime.store.blobs import Blobs, FileBlobs
from hansa.testing.store_contracts import BlobsContract


class TestFileBlobs(BlobsContract):
    def blobs(self, place: Path) -> Blobs:
        return FileBlobs(place)
