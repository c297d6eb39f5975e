"""Which document blocks which: the reference's numbers, a brute force twin, and the edges of blocks."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curate import blocking, vectors

# Unit vectors at these degrees, in two clusters with centroids at 23 and 140 degrees (methods of the reference, run on it).
DEGREES = [0, 10, 20, 30, 45, 46, 46.5, 120, 121, 150, 180]


def at(degrees: list[float]) -> np.ndarray:
    angle = np.radians(degrees)
    return np.stack([np.cos(angle), np.sin(angle)], axis=1).astype(np.float32)


def golden(cluster: int, keep: blocking.Keep) -> tuple[list[float], np.ndarray]:
    """The degrees of a cluster in order of rank, and its rows."""
    member = np.array([0] * 7 + [1] * 4, np.int32)
    centroid = at([23, 140])[member]
    nearness = np.round(np.sum(at(DEGREES) * centroid, axis=1).astype(np.float64) * 2**20) / 2**20
    order = blocking.ranks(member, nearness, np.zeros(11, np.uint64), keep)
    ranked = [DEGREES[i] for i in order if member[i] == cluster]
    return ranked, at(ranked)


def removed(cluster: int, keep: blocking.Keep, eps: float, *, greedy: bool = False) -> set[float]:
    ranked, rows = golden(cluster, keep)
    m, _ = blocking.blocked(lambda i: rows[i], len(rows), greedy=eps if greedy else None)
    return {d for d, value in zip(ranked, m, strict=True) if value > 1.0 - eps}


def test_the_hard_order_and_its_similarities_are_the_references() -> None:
    ranked, rows = golden(0, "hard")
    assert ranked == [46.5, 0, 46, 45, 10, 30, 20]
    m, by = blocking.blocked(lambda i: rows[i], len(rows))
    assert m == pytest.approx([0, 0.688355, 0.999962, 0.999848, 0.984808, 0.965926, 0.984808], abs=1e-6)
    assert by[:6].tolist() == [-1, 0, 0, 2, 1, 3]
    assert by[6] in (4, 5)  # 20 degrees is as near to 10 as to 30: the rounding of the inputs decides
    ranked, rows = golden(1, "hard")
    assert ranked == [180, 120, 121, 150]
    m, _ = blocking.blocked(lambda i: rows[i], len(rows))
    assert m == pytest.approx([0, 0.5, 0.999848, 0.87462], abs=1e-5)


@pytest.mark.parametrize(
    ("eps", "first", "second"),
    [(0.001, {46, 45}, {121}), (0.005, {46, 45}, {121}), (0.02, {46, 45, 10, 20}, {121}), (0.07, {46, 45, 10, 30, 20}, {121}), (0.2, {46, 45, 10, 30, 20}, {121, 150})],
)
def test_what_the_hard_order_removes(eps: float, first: set[float], second: set[float]) -> None:
    assert removed(0, "hard", eps) == first
    assert removed(1, "hard", eps) == second


def test_the_easy_order_separates_the_reference_from_the_greedy_rule() -> None:
    assert golden(0, "easy")[0] == [20, 30, 10, 45, 46, 0, 46.5]
    assert removed(0, "easy", 0.02) == {30, 10, 46, 0, 46.5}
    assert removed(0, "easy", 0.02, greedy=True) == {30, 10, 46, 46.5}
    assert removed(0, "easy", 0.07) == {30, 10, 45, 46, 0, 46.5}
    assert removed(0, "easy", 0.07, greedy=True) == {30, 10, 46, 0, 46.5}


def test_a_random_order_goes_by_the_draw_and_ties_by_place() -> None:
    order = blocking.ranks(np.array([1, 0, 1, 0], np.int32), np.zeros(4), np.array([7, 5, 7, 4], np.uint64), "random")
    assert order.tolist() == [3, 1, 0, 2]


def twin(rows: np.ndarray, eps: float | None) -> tuple[list[float], list[int]]:
    """Every pair, one after the other, in Python's floats."""
    exact = rows.astype(float)
    kept, m, by = [], [], []
    for j, row in enumerate(exact):
        best, who = 0.0, -1
        for i in range(j) if eps is None else kept:
            other = exact[i]
            dot, aa, bb = 0.0, 0.0, 0.0
            for x, y in zip(row.tolist(), other.tolist(), strict=True):
                dot, aa, bb = dot + x * y, aa + x * x, bb + y * y
            cosine = min(1.0, dot / math.sqrt(aa * bb))
            if cosine > best:
                best, who = cosine, i
        m.append(best)
        by.append(who)
        if eps is None or not best > 1 - eps:
            kept.append(j)
    return m, by


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(0, 40), st.sampled_from([None, 0.01, 0.3]), st.sampled_from([3, 7, 2048]))
def test_any_cut_into_blocks_finds_what_every_pair_finds(seed: int, count: int, eps: float | None, tile: int) -> None:
    random = np.random.default_rng(seed)
    rows = random.normal(size=(count, 5)).astype(np.float32)
    for i in range(1, count, 3):  # some that are near, and some that are equal
        rows[i] = rows[random.integers(0, i)] + (0 if i % 2 else random.normal(size=5).astype(np.float32) * 0.05)
    before, blocking.TILE = blocking.TILE, tile
    try:
        m, by = blocking.blocked(lambda i: rows[i], count, greedy=eps)
    finally:
        blocking.TILE = before
    wanted, who = twin(rows, eps)
    equal = [any((rows[i] == rows[j]).all() for i in range(j)) for j in range(count)]
    for j in range(count):
        if eps is None or not equal[j]:
            assert m[j] == wanted[j]
            assert by[j] == who[j]
    if eps is not None:
        assert (m > 1 - eps).tolist() == [w > 1 - eps for w in wanted]


def test_many_equal_vectors_are_blocked_by_the_first_and_cost_no_products() -> None:
    rows = np.tile(at([30]), (50_000, 1))
    m, by = blocking.blocked(lambda i: rows[i], len(rows))
    assert (m[0], by[0]) == (0.0, -1)
    assert (m[1:] == 1.0).all()
    assert (by[1:] == 0).all()


def test_a_cosine_is_one_for_equals_and_the_same_for_any_company() -> None:
    rows = np.random.default_rng(3).normal(size=(5000, 17)).astype(np.float32)
    assert (vectors.cosines(rows, rows) == 1.0).all()
    whole = vectors.cosines(rows, rows[::-1])
    for a, b in itertools.pairwise([0, 1, 4095, 4097, 5000]):
        assert (vectors.cosines(rows[a:b], rows[::-1][a:b]) == whole[a:b]).all()
