"""What opening a file finds out, what reading it yields, and the checks that both need."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import pyarrow as pa
import xxhash

from curate.decompress import SoundText
from curate.errors import DataError, OutOfMemoryError, machine_error, system_number
from curate.filenames import Compression, compression_of

Places: TypeAlias = np.ndarray[Any, np.dtype[np.int64]]

# One read of a file: large enough that calls cost nothing, small enough that buffers are not seen.
BLOCK_BYTES = 4 << 20
# More memory than a process can address: only a damaged length asks for it.
ADDRESSABLE_BYTES = 1 << 47


class Range(NamedTuple):
    """A stretch of one file that becomes a part; the meaning of start and stop is the format's."""

    start: int
    stop: int
    first_row: int
    rows: int
    bytes: int


class Chunk(NamedTuple):
    """Some rows of a part.

    `rows` are their numbers within the part, ascending. `columns` and `inputs` (what the text is made of)
    are arrays of that length in the file's own types; a column that the file lacks is left out. `bad` has
    the reasons of rows that could not be parsed, or is None.
    """

    rows: Places
    columns: dict[str, pa.Array]
    inputs: dict[str, pa.Array]
    bad: pa.Array | None


def hash_file(path: str) -> str:
    """Return the xxh3-128 of a file's bytes as 32 hex digits."""
    hasher = xxhash.xxh3_128()
    buffer = memoryview(bytearray(BLOCK_BYTES))
    with reading(path), open(path, "rb", buffering=0) as file:
        while size := file.readinto(buffer):
            hasher.update(buffer[:size])
    return str(hasher.hexdigest())


@contextmanager
def reading(path: str, what: str = "file") -> Iterator[None]:
    """Turn what the libraries raise about a file's bytes into a DataError that names the file."""
    try:
        yield
    except (OSError, EOFError, UnicodeDecodeError, pa.ArrowException) as error:
        found = machine_error(error, f"could not read {path}")
        if found and ((isinstance(found, OutOfMemoryError) and not _absurd(error)) or system_number(error) in (errno.EMFILE, errno.ENFILE)):
            raise found from error
        if isinstance(error, FileNotFoundError):
            reason = "no such file (a broken link, or removed since it was listed)"
        else:
            reason = (getattr(error, "strerror", None) or str(error) or type(error).__name__).strip()
        denied = isinstance(error, OSError) and system_number(error) in (errno.EACCES, errno.EPERM)
        remedy = "give this user the right to read it" if denied else "it may be truncated or damaged: fetch or write it again"
        raise DataError(
            f"expected a readable {what}, got: {reason}; file {path}; {remedy}, or leave it out of `paths`"
        ) from error


def _absurd(error: Exception) -> bool:
    """Whether an allocation failed that no machine can make."""
    asked = re.search(r"of size (\d+) failed", str(error))
    return asked is not None and int(asked.group(1)) > ADDRESSABLE_BYTES


@contextmanager
def open_bytes(
    path: str, start: int = 0, compression: Compression | None = None, sound: int | None = None
) -> Iterator[Any]:
    """Open a text file for reading from a byte on, decompressed where it is compressed.

    A compressed file that ends early raises when its end is read; one of no bytes has lost even its header.
    With `sound` only that many bytes of its text are read, which is how a damaged one is.
    """
    compression = compression or compression_of(path)
    if compression is not None and sound is not None:
        text = SoundText(path, compression, sound)
        try:
            yield text
        finally:
            text.close()
        return
    if compression is None:
        with pa.OSFile(path, "rb") as file:
            file.seek(start)
            yield file
        return
    if os.path.getsize(path) == 0:
        raise EOFError(f"no bytes at all, where a {compression} header belongs")
    with pa.OSFile(path, "rb") as file, pa.CompressedInputStream(file, compression) as stream:
        yield stream


def chosen(start: int, stop: int, rows: Places | None) -> Places:
    """Return which of the part's rows start..stop are wanted: all, or those in the sorted `rows`."""
    if rows is None:
        return np.arange(start, stop, dtype=np.int64)
    return rows[np.searchsorted(rows, start) : np.searchsorted(rows, stop)]
