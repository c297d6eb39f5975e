"""Vectors of texts without a model: the random projection of a text's set of hashed n-grams.

A text is cut into tokens as minhash does it with unit scripts; its runs of 1 .. ngram tokens, each counted once, are a set
of 64-bit hashes. Each hash stands for `dim` random signs (native/embed.h); they are added up and the sum is divided by
its length. The cosine of two such vectors estimates |A and B| / sqrt(|A| |B|) of the two sets (Ochiai's coefficient) with
a standard error of about 1 / sqrt(dim) (Achlioptas 2003): it is how many n-grams two texts share, not what they mean.

    >>> found, known = vectors(pa.array(["the red sea", "The  red sea", ""]), ngram=2, dim=64)
    >>> found.shape, known.tolist(), bool((found[0] == found[1]).all())
    ((3, 64), [True, True, False], True)
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from curate import _native, minhash

Float32 = npt.NDArray[np.float32]
Bool = npt.NDArray[np.bool_]

MAX_DIM = 4096
#: Rows whose hashes are held at once.
_ROWS = 1024


def sums(text: pa.Array | pa.ChunkedArray, *, ngram: int, dim: int) -> npt.NDArray[np.int32]:
    """The projection of each text's n-grams of orders 1 .. ngram, int32[n, dim], not yet divided by its length.

    A text of fewer tokens than an order has no n-gram of it.
    """
    out = np.zeros((len(text), dim), np.int32)
    for start in range(0, len(text), _ROWS):
        rows = text.slice(start, _ROWS)
        into = out[start : start + _ROWS]
        tokens = np.empty(0, np.int64)
        for order in range(1, ngram + 1):
            spec = minhash.MinhashSpec(ngram=order, unit="scripts")
            if order == 1:
                tokens = minhash.signatures(rows, minhash.MinhashSpec(ngram=1, unit="scripts", num_perm=1)).shingles
            values, starts = minhash.shingle_sets(rows, spec)
            values, starts = _without(values, starts, tokens < order)
            _native.embed_project(values, starts, dim, into)
    return out


def _without(values: npt.NDArray[np.uint64], starts: npt.NDArray[np.int64], left_out: Bool) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.int64]]:
    """The sets with some of them empty: a short text's one shingle is an n-gram of a lower order, counted there."""
    if not left_out.any():
        return values, starts
    sizes = np.diff(starts)
    values = values[np.repeat(~left_out, sizes)]
    return values, np.concatenate([[0], np.cumsum(np.where(left_out, 0, sizes))]).astype(np.int64)


def vectors(text: pa.Array | pa.ChunkedArray, *, ngram: int, dim: int) -> tuple[Float32, Bool]:
    """Unit vectors float32[n, dim], and which texts have one: those with a token whose signs do not cancel."""
    found = sums(text, ngram=ngram, dim=dim).astype(np.int64)
    squares = (found * found).sum(axis=1)  # of integers: no order of adding shows
    known = squares > 0
    length = np.sqrt(np.where(known, squares, 1).astype(np.float64))
    return (found / length[:, None]).astype(np.float32), known
