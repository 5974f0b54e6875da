"""A blob that comes in pieces, as a file that grows from the front."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Protocol

from blake3 import blake3

from hansa.errors import InputError
from hansa.files import Buffer
from hansa.runtime.store.blob import DigestError, OffsetError
from hansa.runtime.store.disk import pwrite, storage

_BLOCK = 1024 * 1024  # bytes read at once when a prefix is hashed again


class Shelf(Protocol):
    """What an upload needs of the store that it is for."""

    def require_room(self, wanted: int) -> None: ...
    def publish(self, part: Path, digest: str) -> None: ...
    def forget(self, upload: FileUpload) -> None: ...


class FileUpload:
    """A growing file and the hash of what it holds. What is on the disk already is hashed once, when it is first needed."""

    def __init__(self, store: Shelf, path: Path, digest: str, size: int, *, whole: bool = False) -> None:
        self.path = path
        self._store, self._digest, self._size = store, digest, size
        self._lock = threading.Lock()
        self._hasher = blake3()
        self._offset = size if whole else -1  # -1: not looked at yet
        self._whole, self._gone = whole, False

    @property
    def digest(self) -> str:
        """What the bytes must hash to."""
        return self._digest

    @property
    def size(self) -> int:
        """How many bytes there will be."""
        return self._size

    @property
    def offset(self) -> int:
        """How many bytes have come."""
        with self._lock, storage(self.path):
            return self._resume()

    def append(self, offset: int, chunk: Buffer) -> int:
        """Add the bytes that belong at `offset`; returns where the next ones belong.

        Raises:
            OffsetError: bytes are missing before, or came already; `expected` says where to go on. InputError: more bytes than were
            announced. StorageError: the disk is full, or nearly; what had come still stands.
        """
        view = memoryview(chunk).cast("B")
        with self._lock, storage(self.path):
            if offset != self._resume():
                raise OffsetError("the chunk does not continue the upload", path=self._digest, got=offset, expected=self._offset)
            if offset + view.nbytes > self._size:
                got = f"{offset + view.nbytes:,} bytes"
                raise InputError("more bytes than were announced", path=self._digest, got=got, expected=f"{self._size:,} bytes")
            if view.nbytes:
                self._store.require_room(view.nbytes)
                handle = os.open(self.path, os.O_WRONLY)
                try:
                    pwrite(handle, view, offset)
                finally:
                    os.close(handle)
                self._hasher.update(view)
                self._offset += view.nbytes
            return self._offset

    def finish(self) -> None:
        """Return when the blob stands under its digest, durable.

        Raises:
            OffsetError: bytes are missing. DigestError: they are others than the digest says; they are thrown away.
        """
        with self._lock, storage(self.path):
            if self._resume() != self._size:
                raise OffsetError("the upload is not whole", path=self._digest, got=self._size, expected=self._offset)
            if self._whole:
                return
            got = self._hasher.hexdigest()
            if got != self._digest:
                self._throw_away()
                hint = "the bytes were changed on their way, or the sender's file was; send them again from the start"
                raise DigestError("these are not the bytes of this digest", got=got, expected=self._digest, hint=hint)
            try:
                handle = os.open(self.path, os.O_RDONLY)
                try:
                    os.fsync(handle)
                finally:
                    os.close(handle)
                self._store.publish(self.path, self._digest)
            except OSError:
                self._throw_away()  # after a failed fsync nobody knows which of the bytes are on the disk
                raise
            self._whole = True
            self._store.forget(self)

    def discard(self) -> None:
        """Forget what has come; a blob that stands already stays."""
        with self._lock, storage(self.path):
            if not (self._whole or self._gone):
                self._throw_away()

    def _resume(self) -> int:
        """Where to go on; after a restart, hash what the disk holds."""
        if self._gone:
            raise OffsetError("the upload was given up", path=self._digest, expected=0, hint="begin a new one")
        if self._offset < 0:
            handle = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600)
            try:
                if os.fstat(handle).st_size > self._size:
                    os.ftruncate(handle, 0)
                self._offset = 0
                while block := os.pread(handle, _BLOCK, self._offset):
                    self._hasher.update(block)
                    self._offset += len(block)
            finally:
                os.close(handle)
        return self._offset

    def _throw_away(self) -> None:
        self.path.unlink(missing_ok=True)
        self._offset, self._gone = 0, True
        self._store.forget(self)
