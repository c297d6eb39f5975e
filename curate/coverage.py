"""Choosing so that what is chosen covers: greedy algorithms over vectors, and turns of guide examples.

Each takes documents in an order of identities and names them by their place in it; of what is equal the first place wins.
Each is a generator: whoever fills a budget takes as many as fit. Sums are float64, in one thread, over all rows at once, so
the same documents give the same picks.

    round_robin         guide examples take turns at their best document (RDS+, Ivison et al. 2025)
    k_center            farthest first (Gonzalez 1985; Sener and Savarese 2018)
    facility_location   the largest gain of sum_i max_j s(i, j), evaluated lazily (Minoux 1978)
    dpp                 greedy MAP of a determinantal point process (Chen, Zhang and Zhou 2018)
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import numpy.typing as npt

from curate.vectors import Float64, Int64

#: A pick: the place and what it was picked for (its gain, distance or similarity).
Pick = tuple[int, float]
#: What a determinant may shrink to before the rest is called dependent; the reference's.
EPSILON = 1e-10
#: Factors that differ by less than this share are equal: it is what rounding leaves of unit vectors' lengths.
TIE = 1e-12
#: Rows of a block of similarities.
_ROWS = 1024


def round_robin(best: Callable[[int, int], tuple[Int64, Float64]], targets: Sequence[int], *, spend: bool, depth: int = 64) -> Iterator[tuple[int, float, int]]:
    """Yield (place, similarity, guide) as guide examples take turns; targets take turns, and each target's examples within.

    `best(guide, depth)` gives the `depth` best documents of a guide example, or all that it has. `targets` has how many
    examples each target has; examples are numbered through; lists begin `depth` deep and are deepened as they are used up. A turn takes the example's best document that nobody has
    taken; with `spend`, the reference's rule, a turn whose next best is taken already is lost.
    """
    numbers = np.concatenate([[0], np.cumsum(targets)]).astype(int)
    lists = [_List(best, guide, depth) for guide in range(int(numbers[-1]))]
    turn = [0] * len(targets)
    taken: set[int] = set()
    alive = [[*range(numbers[t], numbers[t + 1])] for t in range(len(targets))]
    while any(alive):
        for target, guides in enumerate(alive):
            while guides:
                at = turn[target] % len(guides)
                found = lists[guides[at]].next(taken, spend)
                if found is None:
                    guides.pop(at)
                    turn[target] = at
                    continue
                turn[target] = at + 1
                if found[0] not in taken:
                    taken.add(found[0])
                    yield (*found, guides[at])
                break


class _List:
    """A guide example's documents from the best on, found deeper as they are needed."""

    def __init__(self, best: Callable[[int, int], tuple[Int64, Float64]], guide: int, depth: int) -> None:
        self._best, self._guide = best, guide
        self._at, self._depth = 0, depth
        self._places, self._values = best(guide, self._depth)

    def next(self, taken: set[int], spend: bool) -> Pick | None:
        while True:
            if self._at == len(self._places):
                if len(self._places) < self._depth:
                    return None
                self._depth *= 4
                self._places, self._values = self._best(self._guide, self._depth)
                continue
            place = int(self._places[self._at])
            self._at += 1
            if spend or place not in taken:
                return place, float(self._values[self._at - 1])


def k_center(rows: Float64, *, first: int = 0) -> Iterator[Pick]:
    """Farthest first, Euclidean: `first`, then always the one farthest from those taken; with its distance to them."""
    if not len(rows):
        return
    distance = np.full(len(rows), np.inf)
    pick, far = first, float("inf")
    for _ in range(len(rows)):
        yield pick, far
        difference = rows - rows[pick]
        np.minimum(distance, np.sqrt(np.einsum("ij,ij->i", difference, difference)), out=distance)
        distance[pick] = -1.0  # never again, not even where all are equal
        pick = int(np.argmax(distance))
        far = float(distance[pick])


def facility_location(rows: Float64) -> Iterator[Pick]:
    """The document with the largest gain of f(S) = sum_i max_{j in S} s(i, j), s = (cosine + 1) / 2; with its gain.

    `rows` are unit vectors. A gain can only fall as S grows (f is submodular), so a document whose old gain is not the
    largest is not looked at again.
    """
    covered = np.zeros(len(rows))
    gains = np.empty(len(rows))
    for start in range(0, len(rows), _ROWS):
        gains[start : start + _ROWS] = _alike(rows, rows[start : start + _ROWS]).sum(axis=0)
    heap = [(-gain, place, 0) for place, gain in enumerate(gains.tolist())]
    heapq.heapify(heap)
    size = 0
    while heap:
        gain, place, seen = heapq.heappop(heap)
        alike = _alike(rows, rows[place : place + 1])[:, 0]
        if seen < size:
            fresh = float(np.maximum(alike - covered, 0.0).sum())
            if heap and (-fresh, place) > heap[0][:2]:
                heapq.heappush(heap, (-fresh, place, size))
                continue
            gain = -fresh
        np.maximum(covered, alike, out=covered)
        size += 1
        yield place, -gain


def _alike(rows: Float64, some: Float64) -> Float64:
    found: Float64 = (np.clip(rows @ some.T, -1.0, 1.0) + 1.0) / 2.0
    return found


def dpp(rows: Float64, quality: Float64, *, epsilon: float = EPSILON) -> Iterator[Pick]:
    """Greedy MAP of L = diag(q) X X^T diag(q); yields the place and the factor by which det L_S grows.

    Ends where no document adds a factor above epsilon: with vectors of d coordinates after d picks at most. So fewer may
    come than were wanted.
    """
    scaled = rows * quality[:, None]
    left = np.einsum("ij,ij->i", scaled, scaled)
    factors: list[npt.NDArray[np.float64]] = []
    while len(left):
        top = float(left.max())
        if not top > epsilon:
            return
        pick = int(np.argmax(left >= top * (1.0 - TIE)))
        yield pick, float(left[pick])
        column = scaled @ scaled[pick]
        for earlier in factors:
            column -= earlier[pick] * earlier
        column /= np.sqrt(left[pick])
        factors.append(column)
        left = left - column * column
        left[pick] = -np.inf
