"""What the published document rules count, from one C scan of each text; and verdicts that are thresholds on columns.

Words: runs without white space, a character of an unspaced script alone. Lines end at a line feed, paragraphs at a line
that holds only white space. Lengths are characters (native/textrules.h).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from curate import _native, ngrams

#: The kernel's columns, in its order.
COLUMNS = (
    "chars", "newlines", "words", "unspaced", "proper", "spaced", "spaced_chars", "alpha", "hashes", "ellipses", "stops", "lines", "bullets",
    "trailing", "filled", "punctuated", "quoted", "short", "dup_lines", "dup_line_chars", "paragraphs", "dup_paragraphs", "dup_paragraph_chars",
    "repeated", "top_2", "top_3", "top_4", "dup_5", "dup_6", "dup_7", "dup_8", "dup_9", "dup_10",
)  # fmt: skip
WORDS, LINES, REPEATS = 1, 2, 4
Counts = dict[str, NDArray[np.int64]]
#: The column in which a pass hands `apply` what one scan found for several stages: a struct of COLUMNS.
FOUND = "__rules__"


def count(text: pa.Array, wanted: int, short_chars: int = 30) -> Counts:
    """int64[n] by name; `wanted` is a sum of WORDS, LINES, REPEATS; zeros for what was not asked and for null texts."""
    found = np.empty((len(COLUMNS), len(text)), np.int64)
    with ngrams.Blame(0):
        text.validate()
        _native.text_rules(text, wanted, short_chars, found)
    return dict(zip(COLUMNS, found, strict=True))


class Scan(NamedTuple):
    """What a stage needs counted: a sum of WORDS, LINES, REPEATS; and what a short line is, where it asks for LINES."""

    wanted: int
    short_chars: int | None = None

    def with_(self, other: Scan) -> Scan | None:
        """One scan that serves both; None where they differ in what a short line is."""
        if None not in (self.short_chars, other.short_chars) and self.short_chars != other.short_chars:
            return None
        return Scan(self.wanted | other.wanted, self.short_chars if other.short_chars is None else other.short_chars)


def found(batch: pa.RecordBatch, scan: Scan) -> Counts:
    """The counts of a batch's texts, its first column: those that a shared scan put beside them, or a scan of its own."""
    if FOUND not in batch.schema.names:
        return count(batch.column(0), scan.wanted, 30 if scan.short_chars is None else scan.short_chars)
    column = batch.column(FOUND)
    return {name: column.field(i).to_numpy() for i, name in enumerate(COLUMNS)}


class Shared:
    """One table of counts for a batch of a pass, from which neighbouring stages are served.

    The first stage that asks has its rows scanned for all the stages ahead. A later one finds them there. Rows whose text
    a stage changed are forgotten, and scanned again when one asks.
    """

    def __init__(self, rows: int) -> None:
        self._scan: Scan | None = None
        self._counts = np.zeros((len(COLUMNS), rows), np.int64)
        self._known = np.zeros(rows, bool)

    def of(self, text: pa.Array, need: NDArray[np.bool_], ahead: Sequence[Scan]) -> pa.Array:
        """FOUND for the rows that `need` says; `ahead`: the scans that this stage and those behind it want, its own first."""
        union = ahead[0]
        for scan in ahead[1:]:
            union = union.with_(scan) or union
        if self._scan is None or self._scan.with_(union) != self._scan:
            self._scan = union
            self._known[:] = False
        new = need & ~self._known
        if new.any():
            texts = text if new.all() else text.filter(pa.array(new))
            short_chars = 30 if self._scan.short_chars is None else self._scan.short_chars
            self._counts[:, new] = list(count(texts, union.wanted, short_chars).values())
            self._known |= new
        rows = self._counts[:, need]  # a copy: what a stage makes of it may share its memory, and rows are scanned again
        return pa.StructArray.from_arrays([pa.array(row) for row in rows], names=list(COLUMNS))

    def forget(self, changed: NDArray[np.bool_]) -> None:
        self._known &= ~changed


def ratio(part: NDArray[np.int64], whole: NDArray[np.int64]) -> pa.Array:
    """part / whole as float64[n]; null where whole is 0."""
    none = whole == 0
    return pa.array(part / np.where(none, 1, whole), pa.float64(), mask=none)


class Rule(NamedTuple):
    """A threshold on a column: `least` or `most` may be None (off); a null measure passes."""

    column: str
    reason: str
    least: float | None = None
    most: float | None = None


def verdict(batch: pa.RecordBatch, rules: Sequence[Rule]) -> tuple[pa.Array, pa.Array]:
    """keep bool[n], reason string[n]: the first rule that a row breaks. Bounds are inclusive; columns, of numbers or bool, by place."""
    broken = np.full(batch.num_rows, -1, np.int64)
    for number, (column, rule) in enumerate(zip(batch.columns, rules, strict=True)):
        if rule.least is None and rule.most is None:
            continue
        values = (column.cast(pa.int8()) if pa.types.is_boolean(column.type) else column).to_numpy(zero_copy_only=False)  # null is NaN
        beyond = np.zeros(len(values), bool)
        if rule.least is not None:
            beyond |= values < rule.least
        if rule.most is not None:
            beyond |= values > rule.most
        broken[(broken < 0) & beyond] = number
    kept = broken < 0
    return pa.array(kept), pa.array([rule.reason for rule in rules], pa.string()).take(pa.array(broken, mask=kept))
