"""Boilerplate: lines that stand in many documents are cut out of all of them; what was cut stays visible as spans.

Menus, cookie notices and footers repeat across the documents of a site. A line is cut where at least
`min_documents` documents of the pool hold it, itself or a line that is the same after `normalize`. CCNet (Wenzek et
al. 2020) de-duplicates paragraphs by hash in the same way, but leaves the first occurrence, which depends on the
order of the input; here none stays.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from curate import spans
from curate.errors import ConfigError
from curate.registry import register
from curate.stage import TEXT, Context

_DIGITS = re.compile(r"\d")
_SPACE = re.compile(r"\s+")
#: A unit with the line break after it; a paragraph ends at a line that holds only white space.
_UNITS = {"line": re.compile(r"[^\n]*\n|[^\n]+"), "paragraph": re.compile(r"(?:[^\n]*\S[^\n]*(?:\n|\Z))+(?:[^\S\n]*\n)*(?:[^\S\n]+\Z)?|\s+")}


class RepeatedLinesParams(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`min_bytes` is of a unit after `normalize`, in UTF-8; shorter ones are left alone."""

    unit: Literal["line", "paragraph"] = "line"
    min_documents: int = 10
    min_bytes: int = 10
    normalize: tuple[Literal["case", "space", "digits"], ...] = ("case", "space", "digits")

    def __post_init__(self) -> None:
        if self.min_documents < 2:
            raise ConfigError(f"expected min_documents of at least 2, for a line that one document holds repeats nothing, got {self.min_documents}")


@register("repeated_lines")
class RepeatedLines:
    """Counts in how many documents each line stands, then cuts the lines that stand in many; changes text."""

    version = 1
    Params = RepeatedLinesParams

    def __init__(self, params: RepeatedLinesParams, context: Context) -> None:
        self.params = params
        self._unit = _UNITS[params.unit]
        self._ready: tuple[Any, frozenset[int]] | None = None

    # -- fit ------------------------------------------------------------------------------------------------------

    def fit_reads(self) -> list[str]:
        return [TEXT]

    def fit_part(self, batches: Iterator[pa.RecordBatch]) -> pa.Table:
        """hash: uint64 of the normalised unit; documents: int64, how many documents of the part hold it."""
        chunks: list[np.ndarray] = []
        waiting = 0
        counted = _EMPTY
        for batch in batches:
            for text in batch.column(0).to_pylist():
                found = {h for _, _, h in self._hashed(text) if h is not None}
                chunks.append(np.fromiter(found, np.uint64, len(found)))
                waiting += len(found)
            if waiting > _HELD:
                counted, chunks, waiting = _added(counted, chunks), [], 0
        return _added(counted, chunks)

    def merge(self, partials: Sequence[pa.Table]) -> pa.Table:
        return _summed(pa.concat_tables(partials))

    def close(self, merged: pa.Table, targets: Mapping[str, pa.ChunkedArray]) -> pa.Table:
        """The hashes of the units to cut, with their counts."""
        return merged.filter(pc.greater_equal(merged["documents"], self.params.min_documents))

    # -- apply ----------------------------------------------------------------------------------------------------

    def reads(self) -> list[str]:
        return [TEXT]

    def fields(self) -> pa.Schema:
        """spans; cut: units cut from the document; cut_bytes: their bytes of UTF-8."""
        return pa.schema([(spans.FIELD, spans.SPANS), ("cut", pa.int64()), ("cut_bytes", pa.int64())])

    def apply(self, state: pa.Table, batch: pa.RecordBatch) -> pa.RecordBatch:
        if self._ready is None or self._ready[0] is not state:
            self._ready = (state, frozenset(state["hash"].to_pylist()))
        repeated = self._ready[1]
        rows = [self._cut(text, repeated) if text else [] for text in batch.column(0).to_pylist()]
        lengths = [sum(s["stop"] - s["start"] for s in row) for row in rows]
        counts = [sum(s.pop("units") for s in row) for row in rows]
        return pa.record_batch([pa.array(rows, spans.SPANS), pa.array(counts, pa.int64()), pa.array(lengths, pa.int64())], schema=self.fields())

    def _cut(self, text: str, repeated: frozenset[int]) -> list[dict[str, Any]]:
        row: list[dict[str, Any]] = []
        for start, stop, value in self._hashed(text):
            if value is None or value not in repeated:
                continue
            if row and row[-1]["stop"] == start:
                row[-1]["stop"] = stop
                row[-1]["units"] += 1
            else:
                row.append({"start": start, "stop": stop, "text": "", "units": 1})
        return row

    def _hashed(self, text: str) -> Iterator[tuple[int, int, int | None]]:
        """(start, stop, hash) of each unit, in bytes; the hash is None where the unit is too short to count."""
        at = 0
        steps, least = self.params.normalize, self.params.min_bytes
        for unit in self._unit.findall(text):
            stop = at + (len(unit) if unit.isascii() else len(unit.encode()))
            normal = unit.strip()
            if "case" in steps:
                normal = normal.lower()
            if "space" in steps:
                normal = _SPACE.sub(" ", normal)
            if "digits" in steps:
                normal = _DIGITS.sub("0", normal)
            encoded = normal.encode()
            yield at, stop, xxhash.xxh3_64_intdigest(encoded) if len(encoded) >= least and encoded else None
            at = stop


#: Hashes of units that a part's pass holds before it counts them.
_HELD = 4_000_000
_EMPTY = pa.table({"hash": pa.array([], pa.uint64()), "documents": pa.array([], pa.int64())})


def _added(counted: pa.Table, chunks: list[np.ndarray]) -> pa.Table:
    """The counts with some documents' different hashes added."""
    values, times = np.unique(np.concatenate([np.empty(0, np.uint64), *chunks]), return_counts=True)
    return _summed(pa.concat_tables([counted, pa.table({"hash": values, "documents": times.astype(np.int64)})]))


def _summed(table: pa.Table) -> pa.Table:
    """One row a hash, in order of the hash."""
    table = table.combine_chunks()
    order = np.argsort(table["hash"].to_numpy(), kind="stable")
    hashes, counts = table["hash"].to_numpy()[order], table["documents"].to_numpy()[order]
    starts = np.flatnonzero(np.r_[True, hashes[1:] != hashes[:-1]]) if len(hashes) else np.empty(0, np.int64)
    sums = np.add.reduceat(counts, starts) if len(starts) else np.empty(0, np.int64)
    return pa.table({"hash": hashes[starts], "documents": sums})
