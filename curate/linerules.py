"""Rules that judge lines, C4's and RefinedWeb's: what was found in each text, and the spans of what is to be cut.

A line ends at a line feed and is cut with it. A word is a run without white space; a character of an unspaced script is
one (native/linerules.h).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from curate import _native, ngrams, spans

#: The kernels' columns, in their order.
C4 = ("lines", "long_word", "no_end_mark", "few_words", "javascript", "policy", "lorem_ipsum", "curly_bracket", "citations", "sentences")
REFINED = ("lines", "uppercase", "numeric", "counters", "few_words", "edited", "words", "words_cut")
END_MARKS, JAVASCRIPT, POLICY, CITATIONS = 1, 2, 4, 8
Int64 = NDArray[np.int64]


class Found(NamedTuple):
    """Of n texts: counts int64[n] by name; spans, curate.spans.SPANS of n rows; cut_bytes int64[n]."""

    counts: dict[str, Int64]
    spans: pa.Array
    cut_bytes: Int64


def c4(text: pa.Array, *, min_words: int, max_word_chars: int, flags: int) -> Found:
    """C4's rules; `flags` is a sum of END_MARKS, JAVASCRIPT, POLICY, CITATIONS; 0 turns a number off."""
    return _found(text, C4, lambda *out: _native.lines_c4(text, min_words, max_word_chars, flags, *out))


def refined(text: pa.Array, *, max_uppercase: float, min_words: int, max_edit_words: int, numeric: bool, counters: bool) -> Found:
    """RefinedWeb's rules; a share above 1, or a number of 0, turns its rule off."""
    return _found(text, REFINED, lambda *out: _native.lines_refined(text, max_uppercase, min_words, max_edit_words, numeric, counters, *out))


def _found(text: pa.Array, columns: tuple[str, ...], kernel: Callable[[Int64, Int64, Int64, Int64], int]) -> Found:
    with ngrams.Blame(0):
        text.validate()
        counts, offsets = np.empty((len(columns), len(text)), np.int64), np.empty(len(text) + 1, np.int64)
        starts, stops = (np.empty(_native.lines_most_spans(text), np.int64) for _ in range(2))
        n = kernel(counts, offsets, starts, stops)
    starts, stops = starts[:n].copy(), stops[:n].copy()
    sums = np.concatenate([np.zeros(1, np.int64), np.cumsum(stops - starts)])
    return Found(dict(zip(columns, counts, strict=True)), spans.cuts(offsets, starts, stops), sums[offsets[1:]] - sums[offsets[:-1]])
