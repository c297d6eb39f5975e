"""Which documents each arm of a comparison holds: selections and random draws, all filled to one budget in bytes.

    random                  documents in a random order
    random_balanced         each source the same bytes, what small ones lack going to the others
    random_length_matched   each class of length the bytes that the selection has in it: classes are quarter-octaves of bytes

Random orders are keyed by the seed and a document's identity. Filling stops before the document that would exceed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from curate import randomness
from curate.errors import ConfigError
from curate.pipelines.allocation import balanced

Baseline = Literal["random_balanced", "random_length_matched"]
Bool = npt.NDArray[np.bool_]
Int64 = npt.NDArray[np.int64]
UInt64 = npt.NDArray[np.uint64]

#: Sets of documents that fit the bits of one number.
MOST = 64


@dataclass(frozen=True)
class Pool:
    """The documents that arms are drawn from: keys uint64[n] (of their identities), sizes int64[n] in bytes, sources int64[n] or None."""

    keys: UInt64
    sizes: Int64
    sources: Int64 | None
    seed: int


class Members:
    """Sets of documents by name, one bit each: `bits` is uint64[n]."""

    def __init__(self, pool: Pool) -> None:
        self.pool = pool
        self.bits = np.zeros(len(pool.keys), np.uint64)
        self.names: list[str] = []

    def of(self, bit: int) -> Bool:
        """Who is in a set, bool[n]."""
        found: Bool = (self.bits >> np.uint64(bit)) & np.uint64(1) == 1
        return found

    def fill(self, name: str, among: Bool, limit: int, *stream: str, sizes: Int64 | None = None) -> int:
        """Add a set: documents of `among` in a random order until `limit`; its bit."""
        bit = self._new(name)
        self._take(bit, among, limit, self.pool.sizes if sizes is None else sizes, randomness.stream(self.pool.seed, "compare", *stream))
        return bit

    def fill_classes(self, name: str, classes: Int64, limits: dict[int, int], *stream: str) -> int:
        """Add a set: of each class of documents as much as its limit."""
        bit = self._new(name)
        for number, limit in sorted(limits.items()):
            self._take(bit, classes == number, limit, self.pool.sizes, randomness.stream(self.pool.seed, "compare", *stream))
        return bit

    def baseline(self, kind: Baseline, draw: int, selection: Bool, limit: int) -> int:
        """Add a random draw that resembles the selection, or that treats the sources alike."""
        name, pool = f"{kind} {draw}", self.pool
        if kind == "random_balanced":
            if pool.sources is None:
                raise ConfigError("compare.baselines: random_balanced needs sources: corpus: {source: COLUMN}")
            there = np.bincount(pool.sources, weights=pool.sizes).astype(np.int64)
            shares = balanced({f"{s:09d}": int(size) for s, size in enumerate(there)}, limit)
            return self.fill_classes(name, pool.sources, {int(s or 0): share for s, share in shares.items()}, kind, str(draw))
        classes = length_class(pool.sizes)
        wanted = np.bincount(classes[selection], weights=pool.sizes[selection], minlength=int(classes.max()) + 1)
        limits = {c: int(limit * share) for c, share in enumerate(wanted / wanted.sum()) if share}
        return self.fill_classes(name, classes, limits, kind, str(draw))

    def _new(self, name: str) -> int:
        if len(self.names) == MOST:
            raise ConfigError(f"expected at most {MOST} sets of documents in a comparison (arms, random draws, subsets for the KL reduction), got more; leave out arms or compare.draws")
        self.names.append(name)
        return len(self.names) - 1

    def _take(self, bit: int, among: Bool, limit: int, sizes: Int64, stream: int) -> None:
        index = np.flatnonzero(among)
        order = index[np.argsort(randomness.bits(self.pool.keys[index], stream), kind="stable")]
        taken = order[np.cumsum(sizes[order]) <= limit]
        self.bits[taken] |= np.uint64(1 << bit)


def length_class(sizes: Int64) -> Int64:
    """The quarter-octave of each size in bytes: 4 log2(size), rounded down; 0 for sizes of 0 and 1."""
    found: Int64 = np.floor(4 * np.log2(np.maximum(sizes, 1))).astype(np.int64)
    return found
