"""Files that exist or do not: keys, atomic writes, sidecars.

    store/<S>/fit/<part>                 a partial
    store/<S>/state/<parts>              a fitted state
    store/<S>/<state or none>/<part>-<rows>   measures of those rows of the part
    store/<S>/finish/<inputs>/<part>     columns that saw all documents

`<S>` is the hash of the stage's name, version, parameters, seed and of the keys of the columns it reads.
"""

from __future__ import annotations

import errno
import glob
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

from curate.errors import CurateError, DataError, machine_error
from curate.filescan import hash_file

T = TypeVar("T")
COMPUTED = "_computed"
#: Names a sidecar that has values for all rows of its part.
ALL = "all"
#: Raised whenever the meaning or the form of stored files changes; part of every key. 2: pages carry checksums.
FORMAT = 2


class Written(msgspec.Struct, frozen=True):
    """A file as it was written: size in bytes, rows (None where it is no table), xxh3-128 of all bytes.

    Taken before the file has its final name, in the process that wrote it: what happens to it later cannot pass for it.
    """

    path: str
    bytes: int
    rows: int | None
    hash: str


_NOTED: ContextVar[dict[str, Written] | None] = ContextVar("_NOTED", default=None)


@contextmanager
def noting() -> Iterator[dict[str, Written]]:
    """Collect what this thread writes inside the block, by final path; nested blocks collect for themselves."""
    found: dict[str, Written] = {}
    token = _NOTED.set(found)
    try:
        yield found
    finally:
        _NOTED.reset(token)


def noted(written: Written) -> None:
    """Tell whoever collects of a file that stands under its name already."""
    found = _NOTED.get()
    if found is not None:
        found[written.path] = written


def note(file: Path, *, final: Path | None = None, rows: int | None = None) -> Written:
    """Hash a file that has just been written, under the name that it will have, and tell whoever collects."""
    path = str(final or file)
    written = Written(path, file.stat().st_size, rows, hash_file(str(file)))
    noted(written)
    return written


def digest(*parts: Any) -> str:
    """32 hex digits of a BLAKE2b over the parts' canonical JSON: the one way keys are made."""
    return hashlib.blake2b(msgspec.json.encode([FORMAT, *parts], order="deterministic"), digest_size=16).hexdigest()


def sweep_beside(out: Path) -> None:
    """Remove what calls that were killed while writing `out` left beside it."""
    for left in out.parent.glob(f".{glob.escape(out.name)}.*.making"):
        number = left.name.split(".")[-2]
        if number.isdigit() and not _alive(int(number)):
            left.unlink(missing_ok=True)


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def write_atomically(
    path: Path, write: Callable[[Path], None], scratch: Path, *, name: str | None = None, rows: int | None = None
) -> None:
    """Let `write` fill a temporary file in `scratch` (same file system), sync it, and rename it to `path`.

    A lease's staging folder is not made anew: where it is gone, the lease is another's, and nothing may be published.
    """
    temporary = scratch / (name or f"{os.getpid()}-{digest(str(path))}")
    with writing(path):
        if scratch.suffix != ".making":
            scratch.mkdir(parents=True, exist_ok=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            write(temporary)
            sync(temporary)
            if _NOTED.get() is not None:
                note(temporary, final=path, rows=rows)
            os.replace(temporary, path)
        except BaseException:
            with suppress(OSError):  # what fails here hides what failed before, and scratch is emptied anyway
                temporary.unlink(missing_ok=True)
            raise


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Say of the machine's errors that it was `path` that could not be written."""
    try:
        yield
    except CurateError:
        raise
    except Exception as error:
        if found := machine_error(error, f"could not write {path}"):
            raise found from error
        raise


def sync(path: Path) -> None:
    """Force a file's or a folder's contents to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:  # some file systems refuse to sync a folder; the file itself was synced
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(handle)


def write_table(path: Path, table: pa.Table, scratch: Path) -> None:
    """Write a small table as Parquet, atomically."""
    coded = [column.name for column in table.schema if not _all_differ(column)]
    write_atomically(
        path,
        lambda temporary: pq.write_table(
            table, temporary, compression="lz4", use_dictionary=coded, write_statistics=False, write_page_checksum=True
        ),
        scratch,
        rows=table.num_rows,
    )


def _all_differ(column: pa.Field) -> bool:
    """Whether a column's values hardly ever repeat, so that a dictionary would cost and gain nothing."""
    kind = column.type
    return bool(
        pa.types.is_floating(kind) or pa.types.is_fixed_size_binary(kind) or pa.types.is_uint64(kind) or column.name == "curate_identity"
    )


def write_bytes(path: Path, content: bytes, scratch: Path) -> None:
    """Write a small file, atomically."""
    write_atomically(path, lambda temporary: _put(temporary, content), scratch)


def _put(path: Path, content: bytes) -> None:
    path.write_bytes(content)


def read_table(path: Path, columns: list[str] | None = None) -> pa.Table:
    """Read a table of the store or of a run folder, its pages' checksums compared.

    A missing file is a FileNotFoundError; a damaged one a DataError that names it and the remedy.
    """
    return read_from(path, path, columns)


def read_from(path: Path, source: Path | pa.Buffer, columns: list[str] | None = None) -> pa.Table:
    """`read_table` of bytes that were read already; `path` is where they stand."""
    try:
        with pq.ParquetFile(source, pre_buffer=False, page_checksum_verification=True) as file:
            table = file.read(columns=columns, use_threads=False)
            counts = {file.metadata.num_rows, _rows_in_groups(file.metadata), table.num_rows}
    except FileNotFoundError:
        raise
    except (pa.ArrowException, OSError, ValueError) as error:
        if found := machine_error(error, f"could not read {path}"):
            raise found from error
        raise damaged(path, str(error)) from error
    if len(counts) > 1:  # no checksum covers the footer, but the count stands in it twice
        raise damaged(path, f"its rows are counted as {' and '.join(map(str, sorted(counts)))}")
    return _with(path, table, columns)


def _with(path: Path, table: pa.Table, columns: list[str] | None) -> pa.Table:
    missing = [name for name in columns or () if name not in table.schema.names]
    if missing:
        raise damaged(path, f"expected a column {missing[0]!r}, got {table.schema.names}")
    return table


#: Files of a store of at most SMALL_BYTES are read whole and kept for who asks next, KEPT_BYTES of them in a process.
SMALL_BYTES, KEPT_BYTES = 1 << 16, 1 << 25
_KEPT: dict[str, tuple[tuple[int, int, int, int], pa.Table]] = {}
_kept_bytes = 0


def read_stored(path: Path, columns: list[str] | None = None) -> pa.Table:
    """`read_table` of a file that is never written again: with a thousand small parts, one stage after the other asks for
    other columns of the same files, and opening each again would cost more than all else.
    """
    global _kept_bytes
    about = os.stat(path)
    if about.st_size > SMALL_BYTES:
        return read_table(path, columns)
    name, stamp = str(path), (about.st_ino, about.st_size, about.st_mtime_ns, about.st_ctime_ns)
    found = _KEPT.get(name)
    if found is None or found[0] != stamp:
        try:
            content = pa.py_buffer(path.read_bytes())
        except FileNotFoundError:
            raise
        except OSError as error:
            raise machine_error(error, f"could not read {path}") or damaged(path, str(error)) from error
        found = stamp, read_from(path, content)
        if name not in _KEPT:
            _kept_bytes += about.st_size
            while _kept_bytes > KEPT_BYTES and _KEPT:
                oldest = next(iter(_KEPT))
                _kept_bytes -= _KEPT.pop(oldest)[0][1]
        else:
            _kept_bytes += about.st_size - _KEPT[name][0][1]
        _KEPT[name] = found
    table = _with(path, found[1], columns)
    return table if columns is None else table.select([name for name in table.schema.names if name in columns])


def _rows_in_groups(metadata: pq.FileMetaData) -> int:
    return sum(metadata.row_group(number).num_rows for number in range(metadata.num_row_groups))


class _Sealed(msgspec.Struct):
    hash: str
    value: msgspec.Raw


def write_sealed(path: Path, value: Any, scratch: Path) -> None:
    """Write a value as JSON beside the hash of its bytes: a small record in which a flipped digit would pass for another."""
    write_bytes(path, sealed(value), scratch)


def sealed(value: Any) -> bytes:
    """What `write_sealed` writes."""
    body = msgspec.json.encode(value)
    return msgspec.json.encode(_Sealed(xxhash.xxh3_128_hexdigest(body), msgspec.Raw(body)))


def read_sealed(path: Path, kind: type[T]) -> T:
    """Read what `write_sealed` wrote; DataError where it is damaged, FileNotFoundError where it is not there."""
    try:
        found = msgspec.json.decode(path.read_bytes(), type=_Sealed)
        if xxhash.xxh3_128_hexdigest(bytes(found.value)) != found.hash:
            raise damaged(path, "its bytes do not have the hash that stands beside them")
        return msgspec.json.decode(found.value, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise damaged(path, str(error)) from error


def row_count(path: Path) -> int:
    """How many rows a table of ours has by its footer; damaged as `read_table` says."""
    try:
        return int(pq.read_metadata(path).num_rows)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise damaged(path, str(error)) from error


def damaged(path: Path | str, why: str) -> DataError:
    """The error for a file of ours that is not what was written."""
    return DataError(
        f"{path} is damaged ({why}); `curate verify RUN --repair` removes what is damaged, and the next run computes it again"
    )


def _listed(folder: Path) -> list[str]:
    """The names in a folder, sorted; none where it is not there."""
    try:
        return sorted(os.listdir(folder))
    except FileNotFoundError:
        return []


class Sidecars:
    """The measures of one stage in one state: for each part one or more files, each with all rows of the part.

    A file holds values where its column `_computed` is true. When an earlier verdict is loosened, the rows newly
    needed go into a further file beside the first; files never change.
    """

    def __init__(self, folder: Path, schema: pa.Schema) -> None:
        self.folder = folder
        self.schema = schema

    def read(self, part: str, names: list[str] | None = None) -> tuple[pa.Table, np.ndarray] | None:
        """The part's columns and which rows have been computed; None where nothing has been yet."""
        wanted = [n for n in self.schema.names if names is None or n in names]
        whole = self._whole(part, wanted)
        if whole is not None:
            return whole
        files = [self.folder / name for name in _listed(self.folder) if name.startswith(f"{part}-") and name.endswith(".parquet")]
        if not files:
            return None
        first = read_stored(files[0], [*wanted, COMPUTED])
        done = first[COMPUTED].to_numpy().astype(bool)
        table = first.select(wanted)
        for more in files[1:]:
            other = read_stored(more, [*wanted, COMPUTED])
            fresh = other[COMPUTED].to_numpy().astype(bool) & ~done
            table = _coalesce(table, other.select(wanted), fresh)
            done = done | fresh
        return self._typed(table, files[0]), done

    def _whole(self, part: str, wanted: list[str]) -> tuple[pa.Table, np.ndarray] | None:
        """The file that has all of a part's rows, where there is one: found without looking through the folder."""
        file = self.folder / f"{part}-{ALL}.parquet"
        try:
            table = read_stored(file, [*wanted, COMPUTED])
        except FileNotFoundError:
            return None
        return self._typed(table.select(wanted), file), table[COMPUTED].to_numpy().astype(bool)

    def _typed(self, table: pa.Table, file: Path) -> pa.Table:
        """The stage's own types; no checksum covers the footer, in which a flipped bit names another."""
        schema = pa.schema([self.schema.field(name) for name in table.schema.names])
        try:
            return table if table.schema.equals(schema, check_metadata=True) else table.cast(schema)
        except pa.ArrowException as error:
            raise damaged(file, str(error)) from error

    def write(self, part: str, table: pa.Table, computed: np.ndarray, scratch: Path) -> None:
        """Store the rows `computed` of `table` (all rows of the part, null elsewhere)."""
        rows = ALL if computed.all() else hashlib.blake2b(np.packbits(computed).tobytes(), digest_size=8).hexdigest()
        write_table(
            self.folder / f"{part}-{rows}.parquet", table.append_column(COMPUTED, pa.array(computed)), scratch
        )


def _coalesce(first: pa.Table, second: pa.Table, where: np.ndarray) -> pa.Table:
    """Rows of `second` where asked, of `first` elsewhere."""
    if not where.any():
        return first
    n = first.num_rows
    both = pa.concat_tables([first, second]).combine_chunks()
    return both.take(pa.array(np.where(where, np.arange(n) + n, np.arange(n))))


def point(link: Path, to: str, staging: Path) -> None:
    """Make `link` a relative symlink to `to`, switched in one step so that a reader never sees a mix."""
    temporary = staging / f"link-{link.name}"
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(to)
    os.replace(temporary, link)
    sync(link.parent)


@contextmanager
def emptied(folder: Path) -> Iterator[None]:
    """A scratch folder, emptied before and after a block, however it ends."""
    empty(folder)
    try:
        yield
    finally:
        empty(folder)


def empty(folder: Path) -> None:
    """Remove what a killed run left in its scratch folder."""
    shutil.rmtree(folder, ignore_errors=True)
