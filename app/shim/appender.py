"""Runs in the shim: append whole records to a log that may be full, capped, truncated or gone; faults are counted."""

import os
from contextlib import suppress
from errno import EINVAL
from stat import S_ISREG

from app.log.snapshot import older_segment

# A symbolic link at the log's path is not followed: the service may be root's, and the command another user's.
_FLAGS = os.O_RDWR | os.O_APPEND | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW
_MOST_BLOCKS = os.sysconf("SC_IOV_MAX")  # buffers that one writev(2) takes


class Appender:
    """Keep one log file open and append to it, O_APPEND, so that a truncation by another program leaves no hole.

    `max_bytes` caps the log: it then has two segments of half that size, of which the older is replaced; 0 is no cap.
    Never raises OSError; `failed_writes` counts the appends that lost records.
    """

    def __init__(self, path: str, *, mode: int, max_bytes: int) -> None:
        self.failed_writes = 0
        self._path = path
        self._mode = mode
        self._segment_bytes = max_bytes // 2
        self._fd = -1
        self._torn = False

    def append(self, blocks: list[bytes]) -> int:
        """Append blocks of records, each with its newline; return how many records, counted from the end, were lost."""
        if len(blocks) == 1 and self._append_whole(blocks[0]):
            return 0
        left = blocks
        while left:
            try:
                size = self._writable_size()
                fitting, rest = self._split(left, size)
                if not fitting and self._rotate():
                    continue
            except OSError:
                break
            if not fitting:  # the rotation failed: append beyond the cap
                fitting, rest = left, []
            unwritten = self._write(fitting, size)
            left = unwritten + rest
            if unwritten:
                break
        self.failed_writes += bool(left)
        return sum(block.count(b"\n") for block in left)

    def _append_whole(self, block: bytes) -> bool:
        """Append a block where nothing is in the way; else return False, with nothing written."""
        if self._fd < 0 or self._torn:
            return False
        try:
            status = os.fstat(self._fd)
            if not status.st_nlink or 0 < self._segment_bytes < status.st_size + len(block):
                return False
            written = os.write(self._fd, block)
        except OSError:
            return False
        if written < len(block):
            self._cut_back(status.st_size)
        return written == len(block)

    def close(self) -> None:
        """Close the file; a later append opens it again."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _writable_size(self) -> int:
        """Return the file's size, after reopening a file that was removed and ending a torn record."""
        if self._fd < 0:
            self._open()
        status = os.fstat(self._fd)
        if not status.st_nlink:
            self._open()
            status = os.fstat(self._fd)
        if not self._torn:
            return status.st_size
        os.write(self._fd, b"\n")
        self._torn = False
        return status.st_size + 1

    def _open(self) -> None:
        try:
            fd = os.open(self._path, _FLAGS)
        except FileNotFoundError:
            directory_mode = 0o750 if self._mode & 0o040 else 0o700
            os.makedirs(os.path.dirname(self._path), directory_mode, exist_ok=True)
            fd = self._create(self._path)
        found = os.fstat(fd)
        if not S_ISREG(found.st_mode):  # a FIFO would block the shim once it is full
            os.close(fd)
            raise OSError(EINVAL, os.strerror(EINVAL))
        self.close()
        self._fd = fd
        size = found.st_size
        self._torn = size > 0 and os.pread(fd, 1, size - 1) != b"\n"

    def _create(self, path: str) -> int:
        fd = os.open(path, _FLAGS | os.O_CREAT | os.O_EXCL, self._mode)
        os.fchmod(fd, self._mode)  # whatever the umask
        return fd

    def _write(self, blocks: list[bytes], size: int) -> list[bytes]:
        """Append to a file of `size` bytes; return the records that were not written."""
        done, total = 0, sum(map(len, blocks))
        try:
            done = os.writev(self._fd, blocks[:_MOST_BLOCKS])
            while done < total:
                done += os.write(self._fd, b"".join(blocks)[done:])
        except OSError:
            records = b"".join(blocks)
            done = records.rfind(b"\n", 0, done) + 1
            self._cut_back(size + done)
            return [records[done:]]
        return []

    def _cut_back(self, size: int) -> None:
        try:
            os.ftruncate(self._fd, size)
        except OSError:
            self._torn = True

    def _split(self, blocks: list[bytes], size: int) -> tuple[list[bytes], list[bytes]]:
        """Return the records that fit into the segment, none when it must be rotated, and the rest."""
        room = self._segment_bytes - size
        if not self._segment_bytes or sum(map(len, blocks)) <= room:
            return blocks, []
        records = b"".join(blocks)
        end = records.rfind(b"\n", 0, room) + 1 if room > 0 else 0
        if not end and not size:
            end = records.index(b"\n") + 1  # one record larger than a segment has one to itself
        if not end:
            return [], [records]
        return [records[:end]], [records[end:]] if end < len(records) else []

    def _rotate(self) -> bool:
        """Make the file the older segment and put a fresh one in its place; False when that failed.

        The log's name exists at every instant.
        """
        fresh = f"{self._path}.new"
        try:
            _remove(fresh)
            fd = self._create(fresh)
        except OSError:
            return False
        try:
            self._give_second_name(older_segment(self._path))
            os.rename(fresh, self._path)
        except OSError:
            os.close(fd)
            with suppress(OSError):
                _remove(fresh)
            return False
        self.close()
        self._fd = fd
        return True

    def _give_second_name(self, name: str) -> None:
        """Make `name` a second link to the log, instead of a link to an older file.

        Where it is one already (a rotation was cut short), rename(2) leaves the spare name, which is removed.
        """
        spare = f"{self._path}.old"
        _remove(spare)
        os.link(self._path, spare)
        try:
            os.rename(spare, name)
        finally:
            _remove(spare)


def _remove(path: str) -> None:
    with suppress(FileNotFoundError):
        os.unlink(path)
