"""Vectors of documents in a file of their own, row behind row, for whoever compares all of them.

A `finish` whose stage names `vector_columns` finds in its frame's table a number for each document (`VectorFile.slot`, null
where there is no vector) and the vectors in `frame.vectors`, one file for each: so they are neither copied through the database nor held all at
once. A column of vectors is a list, of fixed size or not, of float16, float32 or float64; float16 stays what it is in the
file, and the others are float32 there.
"""

from __future__ import annotations

import mmap
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from curate.errors import ConfigError, DataError

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]

#: The column that stands in a frame's table for the first column of vectors: the row in its file.
SLOT = "__slot"
#: Bytes of the file that may stay mapped in before they are let go (they stay in the system's cache of files).
_HELD = 128_000_000
#: Pairs whose cosine is computed at once.
_PAIRS = 4096


def is_vectors(kind: pa.DataType) -> bool:
    """Whether a column of this type can be vectors."""
    listed = pa.types.is_fixed_size_list(kind) or pa.types.is_list(kind) or pa.types.is_large_list(kind)
    return bool(listed and pa.types.is_floating(kind.value_type))


class VectorFile:
    """Vectors as they come in, then by slot. `name` is the column's, for messages.

    With `directions` a vector of zeros counts as none, for it has no cosine; one with an item that is no number always does.
    """

    def __init__(self, path: Path, kind: pa.DataType, name: str, *, slot: str = SLOT, directions: bool = True) -> None:
        if not is_vectors(kind):
            raise ConfigError(f"expected vectors in the column {name!r} (a list of float16, float32 or float64), got {kind}; `embed` makes such a column")
        self.name, self.slot, self.path, self.count = name, slot, path, 0
        self._directions = directions
        self.dim: int = kind.list_size if pa.types.is_fixed_size_list(kind) else 0
        self.dtype = np.dtype(np.float16 if pa.types.is_float16(kind.value_type) else np.float32)
        self._file = path.open("wb")
        self._mapped: npt.NDArray[np.floating] | None = None
        self._touched = 0
        #: vectors that have no direction: all zero, or with an item that is no number
        self.without_direction = 0

    def add(self, column: pa.Array) -> pa.Array:
        """Append a batch's vectors; their slots, int64, null for a null vector or one without a direction."""
        valid = column.is_valid().to_numpy(zero_copy_only=False)
        there = column.filter(pa.array(valid)) if not valid.all() else column
        rows = self._matrix(there)
        finite = np.isfinite(rows).all(axis=1)
        if self._directions:
            finite &= (rows != 0).any(axis=1)
        self.without_direction += int((~finite).sum())
        rows[finite].tofile(self._file)
        slots = np.full(len(column), -1, np.int64)
        at = np.flatnonzero(valid)[finite]
        slots[at] = self.count + np.arange(len(at))
        self.count += len(at)
        return pa.array(slots, mask=slots < 0)

    def _matrix(self, column: pa.Array) -> npt.NDArray[np.floating]:
        """[n, dim] of a column without nulls."""
        if not len(column):
            return np.empty((0, max(self.dim, 1)), self.dtype)
        if not pa.types.is_fixed_size_list(column.type):
            sizes = pc.list_value_length(column).to_numpy()
            self.dim = self.dim or int(sizes[0])
            if (sizes != self.dim).any():
                raise DataError(f"expected vectors of one length in the column {self.name!r}, got {self.dim} and {int(sizes[sizes != self.dim][0])} coordinates")
        if not self.dim:
            raise DataError(f"expected vectors in the column {self.name!r}, got lists without a coordinate")
        flat = column.flatten()
        if flat.null_count:
            raise DataError(f"expected numbers in the vectors of the column {self.name!r}, got null")
        items: npt.NDArray[np.floating] = flat.to_numpy(zero_copy_only=False)
        return items.astype(self.dtype, copy=False).reshape(-1, self.dim)

    def take(self, slots: Int64) -> Float32:
        """The vectors as they are stored, float32[n, dim]."""
        if self._mapped is None:
            self._file.close()
            none = np.empty((0, max(self.dim, 1)), self.dtype)
            self._mapped = np.memmap(self.path, self.dtype, "r", shape=(self.count, self.dim)) if self.count else none
        found = self._mapped[slots].astype(np.float32)
        self._touched += len(slots) * max(4096, found.shape[1] * self.dtype.itemsize)
        if self._touched > _HELD and isinstance(self._mapped, np.memmap):
            self._mapped._mmap.madvise(mmap.MADV_DONTNEED)  # type: ignore[attr-defined]
            self._touched = 0
        return found

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()
        self._mapped = None

    def spooled(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """A batch with the slot in the place of the vector."""
        at = batch.schema.get_field_index(self.name)
        return batch.set_column(at, pa.field(self.slot, pa.int64()), self.add(batch.column(at)))

    def spooled_schema(self, schema: pa.Schema) -> pa.Schema:
        """The schema after `spooled`."""
        return schema.set(schema.get_field_index(self.name), pa.field(self.slot, pa.int64()))


def unit(rows: Float32) -> Float32:
    """Each row divided by its length, for products whose last bits decide nothing."""
    length = np.sqrt(np.einsum("ij,ij->i", rows, rows, dtype=np.float64))
    found: Float32 = (rows / length[:, None]).astype(np.float32)
    return found


def cosines(left: Float32, right: Float32) -> Float64:
    """The cosine of each pair of rows, float64[n] from -1 to 1, the same bits on every machine.

    The product of two float32 is exact in float64, and coordinates are added from the first to the last. Rows that are
    equal have the cosine 1.
    """
    out = np.empty(len(left))
    for start in range(0, len(left), _PAIRS):
        a = np.ascontiguousarray(left[start : start + _PAIRS].T, np.float64)
        b = np.ascontiguousarray(right[start : start + _PAIRS].T, np.float64)
        dot, aa, bb = np.zeros(a.shape[1]), np.zeros(a.shape[1]), np.zeros(a.shape[1])
        for x, y in zip(a, b, strict=True):
            dot += x * y
            aa += x * x
            bb += y * y
        out[start : start + _PAIRS] = np.clip(dot / np.sqrt(aa * bb), -1.0, 1.0)
    return out
