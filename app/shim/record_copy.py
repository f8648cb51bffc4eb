"""Runs in the shim and the understudy: the run's last record in memory that both share, and that needs no disk."""

import errno
import os
import struct

from app.runs.record import RunRecord, decode_record, encode_record

_PLACE = struct.Struct("@QQ")


class RecordCopy:
    """Hold a record in a file without a name (memfd_create(2)), whole at every instant, whenever its writer is killed.

    The file begins with offset and length of the last version, which never overwrites the one before. A kill can't cut
    these in two: write(2) looks for it only between pages (generic_perform_write(), mm/filemap.c).
    """

    def __init__(self) -> None:
        self._fd = os.memfd_create("llm-shell-record")

    def write(self, record: RunRecord) -> None:
        """Replace the record. Raises `OSError`."""
        data = encode_record(record)
        offset, length = self._place()
        fits_before = _PLACE.size + len(data) <= offset
        place = _PLACE.size if fits_before or not length else offset + length
        if os.pwrite(self._fd, data, place) < len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        os.pwrite(self._fd, _PLACE.pack(place, len(data)), 0)

    def read(self) -> RunRecord | None:
        """Return the record, None before it was first written. Raises `OSError`."""
        offset, length = self._place()
        return decode_record(os.pread(self._fd, length, offset)) if length else None

    def _place(self) -> tuple[int, int]:
        raw = os.pread(self._fd, _PLACE.size, 0)
        return _PLACE.unpack(raw) if raw else (0, 0)
