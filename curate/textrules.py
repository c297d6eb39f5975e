"""What the published document rules count, from one C scan of each text; and verdicts that are thresholds on columns.

Words: runs without white space, a character of an unspaced script alone. Lines end at a line feed, paragraphs at a line
that holds only white space. Lengths are characters (native/textrules.h).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from curate import _native, ngrams

#: The kernel's columns, in its order.
COLUMNS = (
    "chars", "newlines", "words", "unspaced", "proper", "spaced", "spaced_chars", "alpha", "hashes", "ellipses", "stops", "lines", "bullets",
    "trailing", "filled", "punctuated", "short", "dup_lines", "dup_line_chars", "paragraphs", "dup_paragraphs", "dup_paragraph_chars",
    "top_2", "top_3", "top_4", "dup_5", "dup_6", "dup_7", "dup_8", "dup_9", "dup_10",
)  # fmt: skip
WORDS, LINES, REPEATS = 1, 2, 4
Counts = dict[str, NDArray[np.int64]]


def count(text: pa.Array, wanted: int, short_chars: int = 30) -> Counts:
    """int64[n] by name; `wanted` is a sum of WORDS, LINES, REPEATS; zeros for what was not asked and for null texts."""
    found = np.empty((len(COLUMNS), len(text)), np.int64)
    with ngrams.Blame(0):
        text.validate()
        _native.text_rules(text, wanted, short_chars, found)
    return dict(zip(COLUMNS, found, strict=True))


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
    """keep bool[n], reason string[n]: the first rule that a row breaks. Bounds are inclusive; columns by place."""
    reason = pa.nulls(batch.num_rows, pa.string())
    for column, rule in zip(batch.columns, rules, strict=True):
        for bound, broken_by in ((rule.least, pc.less), (rule.most, pc.greater)):
            if bound is not None:
                broken = pc.fill_null(broken_by(column, bound), False)
                reason = pc.if_else(pc.and_(broken, pc.is_null(reason)), rule.reason, reason)
    return pc.is_null(reason), reason
