"""MinHash: signatures of texts, the bands that make near-duplicates meet, and the true Jaccard index of those that do.

A text is lower-cased as Python 3.11 does it and cut into words at white space, or into characters; each run of `ngram`
of them is a shingle. The share of equal places in two signatures estimates the
Jaccard index of the two sets of shingles (Broder 1997). The work is done by native/minhash.c.

    >>> spec = MinhashSpec(ngram=2, num_perm=64)
    >>> found = signatures(pa.array(["one two three", "One  two three", "four"]), spec)
    >>> found.values.shape, found.shingles.tolist(), bool((found.values[0] == found.values[1]).all())
    ((3, 64), [2, 2, 1], True)
    >>> choose_bands(0.7, 128)
    (16, 6)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from curate import _native, ngrams, randomness
from curate.errors import ConfigError

Uint32 = npt.NDArray[np.uint32]
Uint64 = npt.NDArray[np.uint64]
Int64 = npt.NDArray[np.int64]
Float64 = npt.NDArray[np.float64]

MAX_NGRAM, MAX_PERMUTATIONS = 64, 2048
BandsRule = Literal["recall", "datasketch"]
#: Where the curve is printed.
SIMILARITIES = (0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)
#: What is asked of the bands: so likely must a pair be found, this far above the threshold.
DETECTION, ABOVE = 0.99, 0.1

_BLOCK = 32  # the kernel takes parameters in whole blocks
_UNITS = {"word": 0, "char": 1, "scripts": 2}
_HASHES = {"mix64": 0, "sha1": 1}
_SCHEMES = {"native": 0, "affine32": 1, "legacy": 2}


class MinhashSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a shingle is and how it is permuted.

    ngram     tokens a shingle (1 .. 64); a text of fewer has one shingle, all its tokens
    unit      word: runs of characters that are not white space; char: characters that are not white space; scripts:
              words, but each character of a script that puts no spaces between words stands alone
    num_perm  places of a signature (1 .. 2048)
    seed      of the permutations
    scheme    native: a fast 64-bit hash, a * x + b mod 2^32; affine32 and legacy: datasketch's, its SHA-1 and its
              permutations of that seed (0 .. 2^32 - 1), so that signatures are equal to its own
    hash      mix64 or sha1; None is what the scheme has
    """

    ngram: int = 5
    unit: Literal["word", "char", "scripts"] = "word"
    num_perm: int = 128
    seed: int = 1
    scheme: Literal["native", "affine32", "legacy"] = "native"
    hash: Literal["mix64", "sha1"] | None = None

    def __post_init__(self) -> None:
        """Raise ConfigError for the first setting out of its range."""
        if not 1 <= self.ngram <= MAX_NGRAM:
            raise ConfigError(f"expected ngram from 1 to {MAX_NGRAM}, got {self.ngram}")
        if not 1 <= self.num_perm <= MAX_PERMUTATIONS:
            raise ConfigError(f"expected num_perm from 1 to {MAX_PERMUTATIONS}, got {self.num_perm}")
        if self.scheme != "native" and not 0 <= self.seed < 2**32:
            raise ConfigError(f"expected a seed from 0 to 2^32 - 1 for datasketch's scheme {self.scheme!r}, got {self.seed}")
        for name, value, known in (("unit", self.unit, _UNITS), ("scheme", self.scheme, _SCHEMES)):
            if value not in known:
                raise ConfigError(f"expected {name} as one of {', '.join(known)}, got {value!r}")
        if self.hash not in (None, *_HASHES):
            raise ConfigError(f"expected hash as one of {', '.join(_HASHES)}, got {self.hash!r}")


@dataclass(frozen=True)
class Signatures:
    """One row for each text.

    values    uint32[n, num_perm]; all ones where there is no shingle
    shingles  int64[n], repeats counted; 0 for a text without a token, -1 for null
    sums      uint64[n]: equal for texts of equal shingles, whatever the scheme
    """

    values: Uint32
    shingles: Int64
    sums: Uint64


def signatures(text: pa.Array | pa.ChunkedArray, spec: MinhashSpec) -> Signatures:
    """Sign every text. Raises ConfigError for another type of column, DataError for a damaged one."""
    a, b = permutations(spec)
    values = np.empty((len(text), spec.num_perm), np.uint32)
    shingles, sums = np.empty(len(text), np.int64), np.empty(len(text), np.uint64)
    for start, chunk in ngrams.chunks(text):
        rows = slice(start, start + len(chunk))
        into = np.empty((len(chunk), spec.num_perm), np.uint32) if len(chunk) < len(text) else values
        with ngrams.Blame(start):
            _native.minhash_signatures(chunk, _settings(spec), a, b, into, shingles[rows], sums[rows])
        if into is not values:
            values[rows] = into
    return Signatures(values, shingles, sums)


def shingle_sets(text: pa.Array | pa.ChunkedArray, spec: MinhashSpec) -> tuple[Uint64, Int64]:
    """Return each text's different shingles as sorted 64-bit hashes: values, and starts int64[n + 1].

    The hash is mix64's whatever the scheme: two shingles of a pool share one with a chance of about n^2 / 2^65.
    """
    found: list[Uint64] = []
    starts = np.zeros(len(text) + 1, np.int64)
    total = 0
    for start, chunk in ngrams.chunks(text):
        room = int(ngrams.text_stats(chunk)[0].sum()) + len(chunk) if not chunk.null_count else chunk.nbytes + len(chunk)
        values, ends = np.empty(room, np.uint64), np.empty(len(chunk), np.int64)
        with ngrams.Blame(start):
            written = _native.minhash_sets(chunk, _settings(spec), values, ends)
        found.append(values[:written].copy())
        starts[start + 1 : start + 1 + len(chunk)] = ends + total
        total += written
    return np.concatenate(found) if found else np.empty(0, np.uint64), starts


def unspaced(text: pa.Array | pa.ChunkedArray) -> Float64:
    """Return the share of each text's characters, white space aside, that are of scripts without spaces between words.

    float64[n], above 0.5 and up to 1; 0 where it is a half or less, and for null.
    """
    out = np.empty(len(text), np.float64)
    for start, chunk in ngrams.chunks(text):
        with ngrams.Blame(start):
            _native.minhash_unspaced(chunk, out[start : start + len(chunk)])
    return out


def without_words(threshold: float) -> float:
    """Return the share of unspaced characters from which a text's words are beside the point.

    Two texts that have all unspaced characters in common and no word, each a share u of its text, have a Jaccard index
    of u / (2 - u). Where that reaches the threshold, words cannot keep apart what the characters join: u = 2t / (1 + t).

        >>> round(without_words(0.7), 3)
        0.824
    """
    return max(0.5, 2.0 * threshold / (1.0 + threshold))


def shared(values: Uint64, starts: Int64, left: Int64, right: Int64) -> Int64:
    """Count what the sets left[i] and right[i] have in common, int64; set s is values[starts[s]:starts[s + 1]], sorted."""
    out = np.empty(len(left), np.int64)
    _native.minhash_shared(values, starts, _int64(left), _int64(right), out)
    return out


def jaccard(values: Uint64, starts: Int64, left: Int64, right: Int64) -> npt.NDArray[np.float64]:
    """Return the Jaccard index of the sets left[i] and right[i], in [0, 1]; 0 of two empty ones."""
    both = shared(values, starts, left, right)
    sizes = np.diff(starts)
    union = sizes[left] + sizes[right] - both
    return np.divide(both, union, out=np.zeros(len(both)), where=union > 0)


def join(parent: Int64, left: Int64, right: Int64) -> None:
    """Join left[i] with right[i] in the union-find forest `parent` (begin with arange(n)); roots are least members."""
    _native.minhash_join(parent, _int64(left), _int64(right))


def roots(parent: Int64) -> Int64:
    """Return the root of every member, and point each straight at it."""
    while True:
        above = parent[parent]
        if np.array_equal(above, parent):
            return parent
        parent[:] = above


def band_keys(values: Uint32, bands: int, rows: int) -> Uint64:
    """Return a hash of each band of each signature, uint64[n, bands]; bands use places 0 .. bands * rows - 1."""
    keys = np.empty((len(values), bands), np.uint64)
    _native.minhash_bands(np.ascontiguousarray(values), values.shape[1], bands, rows, keys)
    return keys


def estimate(left: Uint32, right: Uint32) -> npt.NDArray[np.float64]:
    """Return the estimated Jaccard index of pairs of signatures: the share of equal places."""
    return np.asarray((left == right).mean(axis=-1), np.float64)


# -- bands ------------------------------------------------------------------------------------------------------


def detection(similarity: float, bands: int, rows: int) -> float:
    """Return the probability that a pair of this Jaccard index meets in a band: 1 - (1 - s^rows)^bands."""
    return float(1.0 - (1.0 - similarity**rows) ** bands)


def curve(bands: int, rows: int, similarities: Sequence[float] = SIMILARITIES) -> list[tuple[float, float]]:
    """Return (Jaccard index, probability of being compared) pairs."""
    return [(s, detection(s, bands, rows)) for s in similarities]


@lru_cache(maxsize=256)
def choose_bands(threshold: float, num_perm: int, rule: BandsRule = "recall") -> tuple[int, int]:
    """Return (bands, rows) by one of two rules. Raises ConfigError where num_perm is too small.

    recall      of those that find a pair a little above the threshold, the ones that cost least. A pair at threshold
                + 0.1 must be found with probability 0.99 (halfway from the threshold to 1 where that is less). For
                each number of rows, the fewest bands that do it; of these, what compares the fewest pairs below the
                threshold: the least area under the curve from 0 to it
    datasketch  as datasketch's MinHashLSH chooses with its weights (0.5, 0.5): the least sum of the areas under the
                curve below the threshold and above the curve beyond it; a tie goes to fewer bands, then fewer rows
    """
    if not 0.0 < threshold < 1.0:
        raise ConfigError(f"expected a threshold above 0 and below 1, got {threshold}")
    if rule == "datasketch":
        return _least_error(threshold, num_perm)
    at = min(threshold + ABOVE, (threshold + 1.0) / 2.0)
    best: tuple[float, int, int] | None = None
    for rows in range(1, num_perm + 1):
        bands = next((b for b in range(1, num_perm // rows + 1) if detection(at, b, rows) >= DETECTION), None)
        if bands is None:
            continue
        below = _area(0.0, threshold, bands, rows)
        if best is None or below < best[0]:
            best = (below, bands, rows)
    if best is None:
        raise ConfigError(
            f"no bands of {num_perm} permutations find a pair at {at:.2f} with probability {DETECTION}; raise num_perm or the threshold"
        )
    return best[1], best[2]


def _least_error(threshold: float, num_perm: int) -> tuple[int, int]:
    best = (math.inf, 0, 0)
    for bands in range(1, num_perm + 1):
        for rows in range(1, num_perm // bands + 1):
            missed = (1.0 - threshold) - _area(threshold, 1.0, bands, rows)
            best = min(best, (_area(0.0, threshold, bands, rows) + missed, bands, rows))
    return best[1], best[2]


@lru_cache(maxsize=1)
def _gauss() -> tuple[Float64, Float64]:
    """Gauss-Legendre points and weights on [-1, 1]: the curve is smooth, its area comes out to some 1e-9."""
    points, weights = np.polynomial.legendre.leggauss(64)
    return np.asarray(points, np.float64), np.asarray(weights, np.float64)


def _area(low: float, high: float, bands: int, rows: int) -> float:
    """Integrate the curve from `low` to `high`."""
    points, weights = _gauss()
    half = (high - low) / 2.0
    heights = 1.0 - (1.0 - (low + half * (1.0 + points)) ** rows) ** bands
    return math.fsum((weights * heights).tolist()) * half


# -- permutations -----------------------------------------------------------------------------------------------


@lru_cache(maxsize=16)
def permutations(spec: MinhashSpec) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Return a and b of the scheme, padded to whole blocks: uint32, or uint64 for legacy."""
    draw: dict[str, Callable[[MinhashSpec], tuple[npt.NDArray[Any], npt.NDArray[Any]]]] = {
        "native": _native_permutations, "affine32": _affine32, "legacy": _legacy,
    }  # fmt: skip
    a, b = draw[spec.scheme](spec)
    pad = -spec.num_perm % _BLOCK
    return np.concatenate([a, np.ones(pad, a.dtype)]), np.concatenate([b, np.zeros(pad, b.dtype)])


def _native_permutations(spec: MinhashSpec) -> tuple[Uint32, Uint32]:
    """The two halves of 64 random bits keyed by the permutation's number; a is made odd."""
    drawn = randomness.bits(np.arange(spec.num_perm, dtype=np.uint64), randomness.stream(spec.seed, "minhash"))
    a = (drawn >> np.uint64(32)).astype(np.uint32) | np.uint32(1)
    return a, drawn.astype(np.uint32)


def _affine32(spec: MinhashSpec) -> tuple[Uint32, Uint32]:
    """As datasketch 2 draws them: all a, then all b."""
    draw = np.random.RandomState(spec.seed)
    a = draw.randint(0, 1 << 31, spec.num_perm, dtype=np.uint32) * np.uint32(2) + np.uint32(1)
    return a, draw.randint(0, 1 << 32, spec.num_perm, dtype=np.uint32)


def _legacy(spec: MinhashSpec) -> tuple[Uint64, Uint64]:
    """As datasketch 1 drew them: a and b in turn, below the Mersenne prime 2^61 - 1."""
    draw, prime = np.random.RandomState(spec.seed), (1 << 61) - 1
    pairs = [
        (draw.randint(1, prime, dtype=np.uint64), draw.randint(0, prime, dtype=np.uint64))
        for _ in range(spec.num_perm)
    ]
    return np.array([a for a, _ in pairs], np.uint64), np.array([b for _, b in pairs], np.uint64)


def _settings(spec: MinhashSpec) -> tuple[int, int, int, int, int, int]:
    hashed = spec.hash or ("mix64" if spec.scheme == "native" else "sha1")
    return spec.ngram, _UNITS[spec.unit], _HASHES[hashed], _SCHEMES[spec.scheme], spec.num_perm, ngrams.simd()


def _int64(values: Int64) -> Int64:
    return np.ascontiguousarray(values, np.int64)
