"""SemDeDup (Abbas et al. 2023): within a cluster, which document blocks which.

The documents of a cluster are ranked by their similarity to the centroid. M(j) is the largest cosine of j with a document
ranked before it, 0 where there is none above 0; j is a duplicate where M(j) > 1 - eps. In the reference's rule a document
blocks whether it is a duplicate itself or not, so M does not depend on eps; in the greedy rule only kept ones block.

Products in float32 find who may be the most alike; those within NEAR of the greatest are computed again in float64 in a
fixed order (vectors.cosines), and of these the greatest decides, the first by rank where equal. So no verdict hangs on
how a library orders its sums. Of more than FEW such documents the first FEW are looked at: M may then be short by NEAR.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np
import numpy.typing as npt

from curate.vectors import Float32, Float64, Int64, cosines, unit

Keep = Literal["hard", "easy", "random"]
#: The rows of a cluster at some ranks, as they are stored.
Fetch = Callable[[Int64], Float32]

#: Rows and columns of a block of products: 2048 x 2048 x 4 bytes = 16 MB.
TILE = 2048
#: Twice the error of a product of two unit vectors in float32, and more.
NEAR = 4e-6
FEW = 16


def ranks(cluster: npt.NDArray[np.int32], similarity: Float64, draw: npt.NDArray[np.uint64], keep: Keep) -> Int64:
    """All documents, cluster by cluster, the one that stays before all others first.

    hard: farthest from the centroid first; easy: hard read backwards, as the reference has it; random: by `draw`.
    Documents come in an order of identities, which breaks ties.
    """
    place = np.arange(len(cluster)) * (-1 if keep == "easy" else 1)
    by: npt.NDArray[np.generic] = {"hard": similarity, "easy": -similarity, "random": draw}[keep]
    return np.lexsort((place, by, cluster)).astype(np.int64)


def blocked(fetch: Fetch, count: int, *, greedy: float | None = None) -> tuple[Float64, Int64]:
    """M float64[count] and the rank of the document that it is with (-1 for none), of a cluster in order of rank.

    `greedy` is an eps: only documents that are kept under it block. Of equal vectors the first stands for all: a later one
    has the cosine 1 with it, or under `greedy`, where it is not kept itself, what blocks it.
    """
    first = _first_of_equals(fetch, count)
    leaders = np.flatnonzero(first == np.arange(count))
    found, by = _among(fetch, leaders) if greedy is None else _kept_among(fetch, leaders, greedy)
    similarity, blocker = np.zeros(count), np.full(count, -1, np.int64)
    similarity[leaders] = found
    blocker[leaders] = np.where(by >= 0, leaders[np.maximum(by, 0)], -1)
    others = np.flatnonzero(first != np.arange(count))
    head = first[others]
    stays = np.ones(len(others), bool) if greedy is None else similarity[head] <= 1.0 - greedy
    similarity[others] = np.where(stays, 1.0, similarity[head])
    blocker[others] = np.where(stays, head, blocker[head])
    return similarity, blocker


def _first_of_equals(fetch: Fetch, count: int) -> Int64:
    """For each rank the first rank of an equal vector."""
    import xxhash

    seen: dict[bytes, int] = {}
    first = np.arange(count)
    for start in range(0, count, TILE):
        rows = np.ascontiguousarray(fetch(np.arange(start, min(start + TILE, count))))
        for i, row in enumerate(rows, start):
            first[i] = seen.setdefault(xxhash.xxh3_128_digest(row.data), i)
    return first


def _among(fetch: Fetch, leaders: Int64) -> tuple[Float64, Int64]:
    """M of the leaders and who it is with, both counted among the leaders."""
    found, by = np.zeros(len(leaders)), np.full(len(leaders), -1, np.int64)
    for start in range(0, len(leaders), TILE):
        stop = min(start + TILE, len(leaders))
        rows = fetch(leaders[start:stop])
        found[start:stop], by[start:stop] = _best(rows, fetch, leaders, np.arange(start), inside=start)
    return found, by


def _best(rows: Float32, fetch: Fetch, leaders: Int64, before: Int64, *, inside: int | None) -> tuple[Float64, Int64]:
    """For each of `rows` the largest cosine with one `before` it; `inside`: the rows stand there, and block each other."""
    units = unit(rows)
    best = np.full(len(rows), NEAR, np.float32)
    pairs: list[tuple[Int64, Int64, Float32]] = []
    blocks = [before[i : i + TILE] for i in range(0, len(before), TILE)]
    for block in blocks:
        _meet(units @ unit(fetch(leaders[block])).T, block, best, pairs)
    if inside is not None:
        products = units @ units.T
        products[np.triu_indices(len(rows))] = -2.0
        _meet(products, inside + np.arange(len(rows)), best, pairs)
    if not pairs:
        return np.zeros(len(rows)), np.full(len(rows), -1, np.int64)
    mine, other, product = (np.concatenate([p[i] for p in pairs]) for i in range(3))
    still = product >= best[mine] - np.float32(NEAR)  # a later block may have had a greater one
    return _exact(rows, fetch, leaders, mine[still], other[still])


def _meet(products: Float32, block: Int64, best: Float32, pairs: list[tuple[Int64, Int64, Float32]]) -> None:
    """Note the pairs of a block that may be the best of their row so far."""
    if not products.size:
        return
    np.maximum(best, products.max(axis=1), out=best)
    mine, other = np.nonzero(products >= (best - np.float32(NEAR))[:, None])
    few = np.arange(len(mine)) - np.searchsorted(mine, mine) < FEW  # they come row by row
    mine, other = mine[few], other[few]
    pairs.append((mine, block[other], products[mine, other]))


def _exact(rows: Float32, fetch: Fetch, leaders: Int64, mine: Int64, other: Int64) -> tuple[Float64, Int64]:
    """The largest cosine of each row among its pairs, and with whom: the first, where equal."""
    found, by = np.zeros(len(rows)), np.full(len(rows), -1, np.int64)
    order = np.lexsort((other, mine))
    mine, other = mine[order], other[order]
    for start in range(0, len(mine), TILE):
        a, b = mine[start : start + TILE], other[start : start + TILE]
        for row, cosine, there in zip(a.tolist(), cosines(rows[a], fetch(leaders[b])).tolist(), b.tolist(), strict=True):
            if cosine > found[row]:
                found[row], by[row] = cosine, there
    return found, by


def _kept_among(fetch: Fetch, leaders: Int64, eps: float) -> tuple[Float64, Int64]:
    """As `_among`, where only what is kept under eps blocks."""
    found, by = np.zeros(len(leaders)), np.full(len(leaders), -1, np.int64)
    kept = np.empty(0, np.int64)
    for start in range(0, len(leaders), TILE):
        stop = min(start + TILE, len(leaders))
        rows = fetch(leaders[start:stop])
        found[start:stop], by[start:stop] = _best(rows, fetch, leaders, kept, inside=None)
        units = unit(rows)
        products = units @ units.T
        here: list[int] = []
        for i in range(stop - start):
            if here:
                likely = products[i, here]
                close = np.flatnonzero(likely >= max(float(likely.max()), float(found[start + i])) - NEAR)[:FEW]
                others = np.array(here)[close]
                for cosine, j in zip(cosines(np.repeat(rows[i : i + 1], len(others), 0), rows[others]).tolist(), others.tolist(), strict=True):
                    if cosine > found[start + i]:
                        found[start + i], by[start + i] = cosine, start + j
            if not found[start + i] > 1.0 - eps:
                here.append(i)
        kept = np.concatenate([kept, start + np.array(here, np.int64)])
    return found, by
