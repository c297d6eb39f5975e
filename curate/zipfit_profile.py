"""What a document tells of its ZIP-FIT score in one pass, whatever the number of targets (native/zipfit_fast.c).

    guide = Guide(pa.array(["def f(x):\\n    return x\\n"]), Compressor())
    features(profiles(pa.array(["def g(y):\\n    return y\\n"]), [guide], Compressor()), 0)   # float64[1, 346]

By the formula (docs/zipfit.md) a document's score is the mean over targets of shared / max(C(x), C(t)), shared = C(x) +
C(t) - C(xt) bytes. C(x) is known exactly. The targets' mean of 1 / max(C(x), C(t)) is known exactly. What is shared is not:
its features are grams of 4 and 8 bytes by the number of targets that have them, what two Huffman trees save as one, and
which symbols a document's own stream has; their weights are fitted to exact scores (curate.ridge).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from curate import _native, ngrams
from curate.deflate import CONTAINER_BYTES, Compressor
from curate.errors import ConfigError, DataError

Float64 = npt.NDArray[np.float64]

#: As in native/zipfit_fast.h and zipfit_block.h.
GROUPS, SYMBOLS, TABULATED, LENGTHS_AT, DISTANCES_AT = 4, 320, 64, 257, 288
#: Rows whose symbols are held at once: 2.6 MB.
_ROWS = 2048
_DOCUMENT = [("bytes", "<i8"), ("compressed", "<i8"), ("literals", "<i8"), ("matches", "<i8"), ("symbols", "u1", SYMBOLS // 8)]
_GUIDE = [("near", "<f8", GROUPS), ("four", "<f8"), ("eight", "<f8"), ("tree", "<f8")]


class Guide:
    """Targets' texts, indexed: about 60 bytes of memory per byte of text; milliseconds to make.

    Targets stand in four groups by the quartiles of their compressed lengths, because a gram that a long target has is
    worth less: NCD divides by the longer of the two.
    """

    def __init__(self, texts: pa.Array, compressor: Compressor) -> None:
        if not len(texts):
            raise DataError("expected at least one target text, got none")
        compressed, symbols = _streams(texts, compressor)
        cuts = np.sort(compressed)[[len(texts) * quarter // GROUPS for quarter in range(1, GROUPS)]]
        group = np.searchsorted(cuts, compressed, side="right").astype(np.uint8)
        self.targets = len(texts)
        self.sizes = np.bincount(group, minlength=GROUPS)
        self.lengths = [np.sort(compressed[group == g]) for g in range(GROUPS)]
        self.inverses = [np.cumsum(1 / lengths[::-1])[::-1] if len(lengths) else lengths for lengths in self.lengths]
        self.four, self.eight = (_table(texts, group, size) for size in (4, 8))
        self._met = len(texts)
        self.mean = symbols.sum(axis=0) / len(texts)
        counts = np.arange(float(TABULATED))
        self.gains = _xlog(counts + self.mean[:, None]) - _xlog(counts) - _xlog(self.mean)[:, None]

    def grams_of(self, text: pa.Array) -> npt.NDArray[np.int64]:
        """For each text and size of gram, the targets of each group that have its grams, added up: int64[n, 2, GROUPS]."""
        if self._met + len(text) >= 1 << 32:  # the tables remember the last text that met a gram by a 32-bit number
            self._met = 0
            self.four[0][:, 4:8] = self.eight[0][:, 4:8] = 0
        sums = np.empty((len(text), 2, GROUPS), np.int64)
        _native.zipfit_grams_count(text, self.four, self.eight, self._met, sums)
        self._met += len(text)
        return sums

    def near(self, compressed: npt.NDArray[np.int64]) -> Float64:
        """The sum over each group's targets of 1 / max(C(x), C(t)), by the number of all: float64[n, GROUPS]."""
        out = np.zeros((len(compressed), GROUPS))
        for g, (lengths, inverses) in enumerate(zip(self.lengths, self.inverses, strict=True)):
            shorter = np.searchsorted(lengths, compressed)
            longer = np.append(inverses, 0.0)[shorter]
            out[:, g] = (shorter / np.maximum(compressed, 1) + longer) / self.targets
        return out


def _table(texts: pa.Array, group: npt.NDArray[np.uint8], size: int) -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.uint16]]:
    """A table of the targets' grams, as small as it may be, on a border of 64 bytes, uint32[buckets, 16]; its marks, uint16[buckets]."""
    buckets = 1 << 8
    while True:
        room = np.zeros(16 * buckets + 16, np.uint32)
        start = -room.ctypes.data % 64 // 4
        table = room[start : start + 16 * buckets].reshape(buckets, 16)
        marks = np.zeros(buckets, np.uint16)
        if _native.zipfit_grams_enter(texts, group, size, table, marks):
            return table, marks
        buckets *= 2


def record(guides: int) -> np.dtype[np.void]:
    """One document's profile: its own part, then one for each guide."""
    return np.dtype([*_DOCUMENT, ("guides", np.dtype(_GUIDE), (guides,))])


def profiles(text: pa.Array, guides: Sequence[Guide], compressor: Compressor) -> npt.NDArray[np.void]:
    """Profiles of texts without nulls, record(len(guides))[n]."""
    out = np.zeros(len(text), record(len(guides)))
    for start in range(0, len(text), _ROWS):
        rows = slice(start, min(start + _ROWS, len(text)))
        _fill(out[rows], text.slice(start, _ROWS), guides, compressor)
    return out


def _fill(out: npt.NDArray[np.void], text: pa.Array, guides: Sequence[Guide], compressor: Compressor) -> None:
    compressed, symbols = _streams(text, compressor)
    out["bytes"] = np.diff(np.frombuffer(text.buffers()[1], _offsets(text))[text.offset : text.offset + len(text) + 1])
    out["compressed"] = compressed
    out["literals"] = symbols[:, :256].sum(axis=1)
    out["matches"] = symbols[:, LENGTHS_AT:DISTANCES_AT].sum(axis=1)
    out["symbols"] = np.packbits(symbols > 0, axis=1)
    total = symbols.sum(axis=1).astype(np.float64)
    for i, guide in enumerate(guides):
        own = out["guides"][:, i]
        near = guide.near(compressed)
        sums = guide.grams_of(text)
        worth = near / np.maximum(guide.sizes, 1)
        shared = np.empty(len(text))
        _native.zipfit_shared(symbols, guide.gains, guide.mean, shared)
        mean = guide.mean.sum()
        own["near"] = near
        own["four"], own["eight"] = ((sums[:, size] * worth).sum(axis=1) for size in (0, 1))
        own["tree"] = _xlog(total + mean) - _xlog(total) - _xlog(mean) - shared


def features(profile: npt.NDArray[np.void], guide: int) -> Float64:
    """float64[n, 346], all multiples of what 1 / max(C(x), C(t)) is on average, as the score is."""
    own = profile["guides"][:, guide]
    size, compressed = np.log(profile["bytes"] + 1.0), profile["compressed"].astype(np.float64)
    literals, matches = profile["literals"].astype(np.float64), profile["matches"].astype(np.float64)
    near = own["near"].sum(axis=1)
    tree = own["tree"] * near
    columns = [
        *(near * factor for factor in (np.ones(len(near)), size, size**2, compressed, np.log(compressed + 1), literals, matches)),
        *(near * factor for factor in (matches / (matches + literals + 1), literals / np.maximum(profile["bytes"], 1))),
        *(gram * factor for gram in (own["four"], own["eight"]) for factor in (np.ones(len(near)), size, size**2)),
        tree,
        tree * size,
        *(group * factor for group in own["near"].T for factor in (np.ones(len(near)), size, compressed)),
    ]
    out = np.empty((len(columns) + 256 + SYMBOLS - LENGTHS_AT, len(near)))
    has = np.unpackbits(np.ascontiguousarray(profile["symbols"]), axis=1).T
    out[: len(columns)] = columns
    np.multiply(has[:256], near, out=out[len(columns) : len(columns) + 256])
    np.multiply(has[LENGTHS_AT:], near, out=out[len(columns) + 256 :])
    return out.T


def _streams(text: pa.Array, compressor: Compressor) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.uint32]]:
    """Each text's compressed bytes, container included, and the symbols of its stream, uint32[n, SYMBOLS]."""
    own, symbols = np.empty(len(text), np.int64), np.empty((len(text), SYMBOLS), np.uint32)
    try:
        text.validate()
        _native.zipfit_profile(text, compressor.level, ngrams.simd(), own, symbols)
    except TypeError as error:
        raise ConfigError(f"text column: {error}") from error
    except (ValueError, pa.ArrowInvalid) as error:
        raise DataError(f"text column: {error}") from error
    return own + CONTAINER_BYTES[compressor.name], symbols


def _offsets(text: pa.Array) -> type[np.signedinteger]:
    return np.int64 if pa.types.is_large_string(text.type) else np.int32


def _xlog(x: Float64) -> Float64:
    return np.asarray(x * np.log2(np.maximum(x, 1e-300)))
