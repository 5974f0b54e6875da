"""Blobs as files of one folder; what is still coming stands in `incoming` beneath it. The protocol is in `blob`."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import secrets
import threading
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from blake3 import blake3

from hansa.errors import InputError, StorageError
from hansa.files import Buffer, storage_error, sync_folder
from hansa.runtime.store.blob import Blob, Blobs, DigestError, MissingBlobError, OffsetError, Upload, is_digest, require_digest
from hansa.runtime.store.disk import Claim, file_size, pread, pwrite, storage
from hansa.runtime.store.upload import FileUpload

__all__ = ["Blob", "Blobs", "DigestError", "FileBlobs", "MissingBlobError", "OffsetError", "Upload", "is_digest", "require_digest"]

RESERVE = 256 * 1024 * 1024  # bytes left free on the disk: the events that name a blob must still find room
_BLOCK = 1 << 20  # bytes read at once
_OWNER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}|")


class FileBlobs:
    """The blobs in a folder, which is made if need be and is for its owner's eyes alone.

    reserve_bytes, low_water: how much of the disk stays free, in bytes and as a part of it (the larger holds); what would go below
    is refused before anything is written. durable: whether what is put outlives a power cut; without, it is somebody else's who
    takes it over.

    Raises:
        StorageError: the folder cannot be made or read.
    """

    def __init__(self, root: str | Path, *, reserve_bytes: int = RESERVE, low_water: float = 0.0, durable: bool = True) -> None:
        self._durable, self._low_water = durable, low_water
        self.root, self._incoming, self._reserve = Path(root), Path(root) / "incoming", reserve_bytes
        self._mutex = threading.Lock()
        self._live: dict[Path, FileUpload] = {}
        self._claim: Claim | None = None
        with storage(self.root):
            self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._incoming.mkdir(mode=0o700, exist_ok=True)
            if durable:
                sync_folder(self.root.parent)
                sync_folder(self.root)

    def size(self, digest: str) -> int | None:
        """How many bytes the blob has; None if there is none."""
        try:
            return self.path(digest).stat().st_size
        except FileNotFoundError:
            return None
        except OSError as error:
            raise storage_error(error, self.path(digest)) from error

    def path(self, digest: str) -> Path:
        """The file of the blob, whether there is one or not."""
        return self.root / require_digest(digest)

    def open(self, digest: str) -> BinaryIO:
        """The blob, opened for reading; it stays readable when it is removed meanwhile.

        Raises:
            MissingBlobError: there is none.
        """
        path = self.path(digest)
        try:
            return path.open("rb")
        except FileNotFoundError as error:
            raise MissingBlobError("there is no such blob", path=str(path)) from error
        except OSError as error:
            raise storage_error(error, path) from error

    def read(self, digest: str, offset: int, length: int) -> bytes:
        """The bytes from `offset`: `length` of them, or as many as there are.

        Raises:
            MissingBlobError: there is no such blob. InputError: a negative offset or length.
        """
        if offset < 0 or length < 0:
            raise InputError("a range begins at 0 or later", got=f"{length} bytes from {offset}")
        with self.open(digest) as file, storage(self.path(digest)):
            # the size first: pread allocates what it is asked for
            return pread(file.fileno(), offset, min(length, max(0, os.fstat(file.fileno()).st_size - offset)))

    def put(self, parts: Iterable[Buffer]) -> Blob:
        """Keep the parts, one after the other, as one blob: durable on return. The same content again is the same blob.

        Raises:
            StorageError: the disk is full, or nearly; nothing is left behind.
        """
        hasher, size = blake3(), 0
        path = self._incoming / f"{secrets.token_hex(8)}.put"
        try:
            with storage(path):
                handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
                try:
                    for part in parts:
                        view = memoryview(part).cast("B")
                        self.require_room(view.nbytes)
                        pwrite(handle, view, size)
                        hasher.update(view)
                        size += view.nbytes
                    if self._durable:
                        os.fsync(handle)
                finally:
                    os.close(handle)
                self.publish(path, hasher.hexdigest())
        finally:
            path.unlink(missing_ok=True)
        return Blob(hasher.hexdigest(), size)

    def adopt(self, handle: int, path: Path, size: int) -> Blob | None:
        """Make a file a blob without copying it; None if it stays, since somebody could still change it, or on another disk.

        handle: the file, opened for reading. size: what it has, and no more. On return the file is gone from `path`, durable here.

        Raises:
            StorageError: it cannot be read, or has changed meanwhile.
        """
        own = self._incoming / f"{secrets.token_hex(8)}.put"
        try:
            path.rename(own)  # where no other user, and no sandbox, can open it
            fcntl.fcntl(handle, fcntl.F_SETLEASE, fcntl.F_RDLCK)  # is given while nobody has the file open for writing
            fcntl.fcntl(handle, fcntl.F_SETLEASE, fcntl.F_UNLCK)
            if not _sole(handle, own):
                raise OSError("another name leads to the file")
        except OSError:
            with contextlib.suppress(OSError):
                own.rename(path)
            return None
        hasher, buffer, done = blake3(), memoryview(bytearray(_BLOCK)), 0
        try:
            with storage(own):
                own.chmod(0o600)
                while count := os.preadv(handle, [buffer], done):
                    hasher.update(buffer[:count])
                    done += count
                if done != size:
                    raise StorageError("a file changed while it was read", path=str(path), got=done, expected=size)
                os.fsync(handle)
                self.publish(own, hasher.hexdigest())
        finally:
            own.unlink(missing_ok=True)
        return Blob(hasher.hexdigest(), size)

    def upload(self, digest: str, size: int, *, owner: str = "") -> FileUpload:
        """What `owner` sends under a digest, at the place where it had stopped; at its end if the blob is there already.

        Raises:
            InputError: a size below 0, or another than the blob has or was announced with; an owner that cannot be a file's name.
            StorageError: another process uploads here; there is no room.
        """
        path, stored = self._part(digest, owner), self.size(digest)
        _require_size(digest, size, 0 if size < 0 else stored)
        if stored is not None and self._renew(digest):
            return FileUpload(self, path, digest, size, whole=True)
        with self._mutex:
            self._claim = self._claim or Claim(self._incoming / "lock")
            live = self._live.get(path)
            if live is None:
                self.require_room(size - (file_size(path) or 0))
                live = self._live[path] = FileUpload(self, path, digest, size)
            _require_size(digest, size, live.size)
            return live

    def received(self, digest: str, *, owner: str = "") -> int:
        """How many bytes of the blob are here: all of them, or what `owner` has sent so far."""
        stored = self.size(digest)
        if stored is not None:
            return stored
        part = self._part(digest, owner)
        with self._mutex:
            live = self._live.get(part)
        return live.offset if live else file_size(part) or 0

    def remove(self, digest: str) -> bool:
        """Remove a blob; whether there was one."""
        path = self.path(digest)
        with storage(path), self._excluding(fcntl.LOCK_EX):
            if not path.exists():
                return False
            path.unlink()
            sync_folder(self.root)
            return True

    def drop(self, digests: Iterable[str]) -> None:
        """Remove blobs that nobody needs. It need not be durable: one that comes back after a power cut is swept."""
        with storage(self.root), self._excluding(fcntl.LOCK_EX):
            for digest in digests:
                self.path(digest).unlink(missing_ok=True)

    def sweep(self, keep: Collection[str], older_than_s: float, now: float) -> list[str]:
        """Remove the blobs that are not in `keep` and were put longer than `older_than_s` ago, and unfinished ones as old.

        now: seconds since the epoch, as files' times are. A blob is put before the event that names it is committed: the age must
        be longer than that takes. Returns the digests removed.
        """
        kept, limit = frozenset(keep), now - older_than_s
        with storage(self.root):
            names = sorted(entry.name for entry in os.scandir(self.root) if is_digest(entry.name) and entry.name not in kept)
            removed = [name for name in names if self._expire(self.root / name, limit)]  # one that comes back is swept again
            for path in sorted(self._incoming.iterdir()):
                with self._mutex:
                    live = self._live.get(path)
                if path.name != "lock" and self._older(path, limit):
                    live.discard() if live else path.unlink(missing_ok=True)
        return removed

    @property
    def free_bytes(self) -> int:
        """Bytes that may still be written, the reserve left out."""
        with storage(self.root):
            disk = os.statvfs(self.root)
        reserve = max(self._reserve, int(disk.f_blocks * disk.f_frsize * self._low_water))
        return max(0, disk.f_bavail * disk.f_frsize - reserve)

    def close(self) -> None:
        """Let another process upload; what has come stays."""
        with self._mutex:
            self._live.clear()
            if self._claim is not None:
                self._claim.close()
                self._claim = None

    def require_room(self, wanted: int) -> None:
        """Return if there is room for so many bytes.

        Raises:
            StorageError: there is not; names the folder and the bytes.
        """
        if wanted > 0 and (free := self.free_bytes) < wanted:
            raise StorageError(
                "the disk is nearly full",
                path=str(self.root),
                got=f"{free:,} bytes above what is to stay free",
                expected=f"room for {wanted:,} bytes",
                hint="free some space; nothing that stood was changed",
            )

    def publish(self, part: Path, digest: str) -> None:
        """Give a file that is whole and synced its name."""
        with self._excluding(fcntl.LOCK_SH):  # a sweep that has seen the old file of this name must not remove the new one
            part.replace(self.path(digest))
            if self._durable:
                sync_folder(self.root)

    def forget(self, upload: FileUpload) -> None:
        """An upload has ended."""
        with self._mutex:
            if self._live.get(upload.path) is upload:
                del self._live[upload.path]

    def _part(self, digest: str, owner: str) -> Path:
        if not _OWNER.fullmatch(owner):
            raise InputError("not an owner's name", got=repr(owner)[:80], expected="letters, digits, . _ - (at most 63)")
        return self._incoming / f"{require_digest(digest)}.{owner}.part"

    def _renew(self, digest: str) -> bool:
        """Make an old blob young again, since someone has just been told that it is here; whether it still was."""
        with storage(self.path(digest)), self._excluding(fcntl.LOCK_SH), contextlib.suppress(FileNotFoundError):
            os.utime(self.path(digest))
            return True
        return False

    def _expire(self, path: Path, limit: float) -> bool:
        with self._excluding(fcntl.LOCK_EX):
            old = self._older(path, limit)
            if old:
                path.unlink()
        return old

    @staticmethod
    def _older(path: Path, limit: float) -> bool:
        try:
            return path.stat().st_mtime < limit
        except FileNotFoundError:
            return False

    @contextlib.contextmanager
    def _excluding(self, kind: int) -> Iterator[None]:
        """Keep sweeps (LOCK_EX) and publications (LOCK_SH) of all processes apart for a moment."""
        handle = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(handle, kind)
            yield
        finally:
            os.close(handle)


def _sole(handle: int, path: Path) -> bool:
    """Whether the path is the open file's only name."""
    found, named = os.fstat(handle), path.stat(follow_symlinks=False)
    return found.st_nlink == 1 and (found.st_dev, found.st_ino) == (named.st_dev, named.st_ino)


def _require_size(digest: str, size: int, known: int | None) -> None:
    if known is not None and size != known:
        raise InputError("a blob of this digest has another size", path=digest, got=size, expected=known)
