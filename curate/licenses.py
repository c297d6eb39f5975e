"""Licences: which values of the corpus's `license` column a run may use, and how many documents have each.

Values are compared exactly, but for white space around them and upper and lower case. No value stands for another:
`apache 2.0` is not `Apache-2.0`, and an expression such as `MIT OR GPL-2.0` is a value of its own. A blank one is none.
"""

from __future__ import annotations

from pathlib import Path

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from curate.errors import ConfigError
from curate.registry import register
from curate.stage import BYTES, Context

LICENSE = "license"  # the label of the stage, and what the funnel calls its drops
#: Characters of a value that a reason shows.
SHOWN = 80


class LicenseParams(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The user's column, and the values that may stand in it; None: nothing."""

    column: str
    allowed: list[str | None]


@register(LICENSE)
class License:
    """Drops documents whose license is not on the recipe's list; the reason names the value."""

    version = 1
    internal = True
    Params = LicenseParams

    def __init__(self, params: LicenseParams, context: Context) -> None:
        kind = context.columns.field(params.column).type if params.column in context.columns.names else pa.string()
        if not (pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_null(kind)):
            raise ConfigError(f"expected one license for each document as text in the column {params.column!r}, got {kind}; make one column of it in the data")
        self._column = params.column
        self._allowed = {folded(value) for value in params.allowed}

    def judge_reads(self) -> list[str]:
        return [self._column]

    def judge(self, batch: pa.RecordBatch) -> tuple[pa.Array, pa.Array]:
        coded = batch.column(0).cast(pa.large_string()).dictionary_encode()
        values = [folded(value) for value in coded.dictionary.to_pylist()]
        reasons = pa.array([*(self._reason(value) for value in values), self._reason(None)], pa.string())
        reason = reasons.take(pc.fill_null(coded.indices, len(values)))
        return pc.is_null(reason), reason

    def _reason(self, value: str | None) -> str | None:
        if value in self._allowed:
            return None
        return "no license" if value is None else f"license {value[:SHOWN]!r} is not allowed"


def folded(value: str | None) -> str | None:
    """A value as it is compared: without white space around it, case folded; None where nothing is left."""
    return (value or "").strip().casefold() or None


def counts(folder: Path, column: str, keep: str) -> list[tuple[str | None, int, int, int]]:
    """(license, documents read, documents kept, bytes kept) from the wide table in `folder`, most kept first."""
    found: dict[str | None, list[int]] = {}
    for file in sorted(folder.glob("docs-*.parquet")):
        with pq.ParquetFile(file, pre_buffer=False, page_checksum_verification=True) as source:
            for batch in source.iter_batches(65536, columns=[column, keep, BYTES], use_threads=False):
                _add(found, batch, column, keep)
    rows = [(value, read, kept, size) for value, (read, kept, size) in found.items()]
    return sorted(rows, key=lambda row: (-row[2], -row[1], row[0] is None, row[0] or ""))


def _add(found: dict[str | None, list[int]], batch: pa.RecordBatch, column: str, keep: str) -> None:
    kept = batch.column(keep)
    table = pa.table({"value": batch.column(column), "kept": kept.cast(pa.int64()), "bytes": pc.if_else(kept, pc.fill_null(batch.column(BYTES), 0), 0)})
    summed = table.group_by("value").aggregate([([], "count_all"), ("kept", "sum"), ("bytes", "sum")])
    for row in summed.to_pylist():
        entry = found.setdefault(folded(row["value"]), [0, 0, 0])
        for at, name in enumerate(("count_all", "kept_sum", "bytes_sum")):
            entry[at] += row[name]



