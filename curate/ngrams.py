"""Hashed n-grams of texts: count them, score documents by them, and see what they are.

A text is lower-cased as Python 3.11 does it, cut into tokens, and each run of 1 to n neighbouring tokens,
joined by one space, falls into one of `buckets` buckets. Unicode is version 14 whatever Python runs. The work
is done by native/ngrams.c; this file allocates, and walks the chunks.

    >>> tokenize("Naïve don't", NgramSpec())
    ['naïve', 'don', "'", 't']
    >>> bucket(["alice", "went"], NgramSpec(hash="sha256"))
    114
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from typing import Literal

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from curate import _native
from curate.errors import ConfigError, DataError

Int64 = npt.NDArray[np.int64]
Uint8 = npt.NDArray[np.uint8]
Float64 = npt.NDArray[np.float64]

MAX_ORDER = 8
MAX_BUCKETS = 2**31 - 1
SKIP_CELL = 255

# Variants give the same bits; CURATE_SIMD is for tests and for machines whose processor lies about itself.
SIMD_LEVELS = {"scalar": 0, "sse2": 1, "avx2": 3, "sha": 7, "avx512": 15}
_CACHE_SLOTS = 1 << 18  # 24 bytes each: 6 MB, of which the hot part stays in the second-level cache
_CACHE_SLOT_BYTES = 24


class NgramSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What an n-gram is and where it falls.

    ngrams      orders 1 .. ngrams are counted (1 .. 8)
    buckets     1 .. 2^31 - 1
    hash        mix64 (native/mix64.h) or sha256 (the reference's numbers)
    tokenizer   wordpunct: runs of word characters, runs of punctuation; chars: each character but white space
    char_class  what a word character and white space are: as in Python's re, or as in the regex package
    min_tokens  documents with fewer tokens are not counted and have no score; 0 is off
    """

    ngrams: int = 2
    buckets: int = 10_000
    hash: Literal["mix64", "sha256"] = "mix64"
    tokenizer: Literal["wordpunct", "chars"] = "wordpunct"
    char_class: Literal["re", "regex"] = "re"
    min_tokens: int = 0

    def __post_init__(self) -> None:
        """Raise ConfigError for the first setting out of its range."""
        if not 1 <= self.ngrams <= MAX_ORDER:
            raise ConfigError(f"expected ngrams from 1 to {MAX_ORDER}, got {self.ngrams}")
        if not 1 <= self.buckets <= MAX_BUCKETS:
            raise ConfigError(f"expected buckets from 1 to {MAX_BUCKETS}, got {self.buckets}")
        if self.min_tokens < 0:
            raise ConfigError(f"expected min_tokens of 0 (off) or more, got {self.min_tokens}")
        for name, value, known in (
            ("hash", self.hash, ("mix64", "sha256")),
            ("tokenizer", self.tokenizer, ("wordpunct", "chars")),
            ("char_class", self.char_class, ("re", "regex")),
        ):
            if value not in known:
                raise ConfigError(f"expected {name} {known[0]!r} or {known[1]!r}, got {value!r}")


def count(
    text: pa.Array | pa.ChunkedArray, spec: NgramSpec, *, cell: Uint8 | None = None, cells: int = 1
) -> Int64:
    """Count n-grams by bucket, documents apart by cell: int64[cells, buckets].

    `cell` is uint8 per row, the row of the result that the document adds to; 255 leaves it out. Null texts
    and documents of fewer than spec.min_tokens tokens add nothing. Counts of parts add up to those of the whole.
    Raises ConfigError for another type of column, DataError for a damaged one.
    """
    if not 1 <= cells <= SKIP_CELL:
        raise ConfigError(f"expected 1 to {SKIP_CELL} cells, got {cells}")
    if cell is not None and (cell.dtype != np.uint8 or cell.shape != (len(text),)):
        raise ConfigError(f"expected cell as uint8[{len(text)}], got {cell.dtype}{list(cell.shape)}")
    counts = np.zeros((cells, spec.buckets), np.int64)
    settings, cache = _settings(spec), _cache(spec)
    for start, chunk in chunks(text):
        part = None if cell is None else np.ascontiguousarray(cell[start : start + len(chunk)])
        with Blame(start):
            _native.ngrams_count(chunk, settings, cache, part, cells, counts)
    return counts


def score(text: pa.Array | pa.ChunkedArray, spec: NgramSpec, log_ratio: Float64) -> tuple[Float64, Int64]:
    """Sum log_ratio (float64[T, buckets]) over each document's n-grams: float64[n, T], and tokens: int64[n].

    The order of summation is fixed (native/ngrams.h): a score depends on its text only, not on batch, slice,
    chunking or T. NaN where the text is null, has no token or fewer than spec.min_tokens; tokens are -1 for
    null. With log_ratio = ln(p_target) - ln(p_pool) this is DSIR's log importance weight in nats (Xie et al.
    2023); larger is nearer to the target. Raises as `count` does.
    """
    if log_ratio.ndim != 2 or log_ratio.shape[0] < 1 or log_ratio.shape[1] != spec.buckets:
        shape = list(log_ratio.shape)
        raise ConfigError(f"expected log_ratio of shape [targets, {spec.buckets}], got {shape}")
    targets = log_ratio.shape[0]
    by_bucket = np.ascontiguousarray(log_ratio.T, np.float64)  # one bucket's targets share a cache line
    scores, tokens = np.empty((len(text), targets)), np.empty(len(text), np.int64)
    settings, cache = _settings(spec), _cache(spec)
    for start, chunk in chunks(text):
        rows = slice(start, start + len(chunk))
        with Blame(start):
            _native.ngrams_score(chunk, settings, cache, by_bucket, targets, scores[rows], tokens[rows])
    return scores, tokens


def tokenize(text: str, spec: NgramSpec) -> list[str]:
    """Return the lower-cased tokens of one text, by the path that counts and scores."""
    return _native.ngrams_tokenize(pa.array([text], pa.large_string()), _settings(spec))


def bucket(tokens: Sequence[str], spec: NgramSpec) -> int:
    """Return the bucket of the one n-gram of these tokens, taken as they are (lower-case them first)."""
    if not tokens or not all(tokens):
        raise ConfigError(f"expected one or more tokens of at least one character, got {list(tokens)!r}")
    return _native.ngrams_bucket(pa.array(list(tokens), pa.large_string()), _settings(spec))


def ngrams_of(tokens: Int64, n: int) -> Int64:
    """Count the n-grams of orders 1..n of documents with so many tokens: sum of max(0, tokens - k + 1)."""
    orders = np.arange(1, n + 1, dtype=np.int64)
    total: Int64 = np.maximum(np.asarray(tokens, np.int64)[..., None] - orders + 1, 0).sum(axis=-1)
    return total


def text_stats(text: pa.Array | pa.ChunkedArray) -> tuple[Int64, Int64]:
    """Return bytes of UTF-8 and words (as `len(str.split())`) per row, both int64[n]; 0 and 0 for null."""
    sizes, words = np.empty(len(text), np.int64), np.empty(len(text), np.int64)
    for start, chunk in chunks(text):
        rows = slice(start, start + len(chunk))
        with Blame(start):
            _native.text_stats(chunk, simd(), sizes[rows], words[rows])
    return sizes, words


class Blame:
    """Turns the kernel's complaints into ours, and says from which row of the column they count."""

    def __init__(self, start: int) -> None:
        self._start = start

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        where = f" (rows counted from {self._start})" if self._start else ""
        if isinstance(error, TypeError):
            raise ConfigError(f"text column: {error}") from error
        if isinstance(error, (ValueError, pa.ArrowInvalid)):
            raise DataError(f"text column: {error}{where}") from error


def chunks(text: pa.Array | pa.ChunkedArray) -> Iterator[tuple[int, pa.Array]]:
    """Yield the chunks, each with the number of its first row; O(1) checks of their buffers' sizes."""
    start = 0
    for chunk in text.chunks if isinstance(text, pa.ChunkedArray) else [text]:
        with Blame(start):
            chunk.validate()
        yield start, chunk
        start += len(chunk)


def simd() -> int:
    """Return the instruction sets to use: all of the processor's, or the level that CURATE_SIMD names."""
    features = _native.simd_features()
    level = os.environ.get("CURATE_SIMD")
    if level is None:
        return features
    if level not in SIMD_LEVELS:
        raise ConfigError(f"expected CURATE_SIMD as one of {', '.join(SIMD_LEVELS)}, got {level!r}")
    return features & SIMD_LEVELS[level]


def _settings(spec: NgramSpec) -> _native.Settings:
    return (
        spec.ngrams,
        spec.buckets,
        int(spec.hash == "sha256"),
        spec.min_tokens,
        int(spec.tokenizer == "chars"),
        int(spec.char_class == "regex"),
        simd(),
    )


class _Caches(threading.local):
    """One thread's sha256 cache, and the number of buckets that its answers are for."""

    buckets: int = 0
    slots: Uint8 | None = None


_caches = _Caches()


def _cache(spec: NgramSpec) -> Uint8 | None:
    """Return this thread's cache; what it holds changes the time of a call and never its result."""
    if spec.hash != "sha256":
        return None
    if _caches.slots is None or _caches.buckets != spec.buckets:
        _caches.slots = np.zeros(_CACHE_SLOTS * _CACHE_SLOT_BYTES, np.uint8)
        _caches.buckets = spec.buckets
    return _caches.slots
