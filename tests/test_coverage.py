"""Selectors for coverage: the references' numbers, and the plain algorithm beside the quick one."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curate import coverage

X12 = np.random.default_rng(0).standard_normal((12, 4))
UNIT = X12 / np.linalg.norm(X12, axis=1)[:, None]
SCORES = np.array([[0.9, 0.8, 0.7, 0.1, 0.2], [0.95, 0.3, 0.6, 0.5, 0.4], [0.2, 0.85, 0.1, 0.3, 0.75]])


def turns(scores: np.ndarray, targets: list[int], *, spend: bool) -> list[tuple[int, float, int]]:
    def best(guide: int, depth: int) -> tuple[np.ndarray, np.ndarray]:
        order = np.lexsort((np.arange(scores.shape[1]), -scores[guide]))[:depth]
        return order, scores[guide][order]

    return list(coverage.round_robin(best, targets, spend=spend))


def test_round_robin_has_the_references_numbers_where_a_taken_document_spends_the_turn() -> None:
    picks = [p for p, _, _ in turns(SCORES, [3], spend=True)]
    assert (picks[:2], picks[:3], picks[:4]) == ([0, 1], [0, 1, 2], [0, 1, 2, 4])


def test_each_guide_example_takes_its_best_that_nobody_has() -> None:
    assert turns(SCORES, [3], spend=False)[:4] == [(0, 0.9, 0), (2, 0.6, 1), (1, 0.85, 2), (4, 0.2, 0)]


def test_targets_take_turns_and_their_examples_within() -> None:
    # target A has two examples, B and C one each: the second round has A's second example
    scores = np.array([[0.9, 0.8, 0.1, 0.4], [0.2, 0.85, 0.3, 0.1], [0.1, 0.7, 0.6, 0.2], [0.3, 0.2, 0.95, 0.9]])
    assert turns(scores, [2, 1, 1], spend=False) == [(0, 0.9, 0), (1, 0.7, 2), (2, 0.95, 3), (3, 0.1, 1)]


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 300), st.integers(1, 4), st.booleans())
def test_lists_that_are_deepened_give_what_whole_ones_give(seed: int, documents: int, guides: int, spend: bool) -> None:
    scores = np.random.default_rng(seed).integers(0, 30, (guides, documents)) / 30
    picks = turns(scores, [guides], spend=spend)
    assert sorted(p for p, _, _ in picks) == list(range(documents))
    lists = [np.lexsort((np.arange(documents), -row)).tolist() for row in scores]
    wanted: list[int] = []
    while len(wanted) < documents:
        for order in lists:
            while order:
                place = order.pop(0)
                if place not in wanted:
                    wanted.append(place)
                    break
                if spend:
                    break
    assert [p for p, _, _ in picks] == wanted


def test_k_center_has_the_references_picks_and_radius() -> None:
    picks = list(itertools.islice(coverage.k_center(X12), 6))
    assert [p for p, _ in picks[:5]] == [0, 3, 10, 11, 5]
    assert picks[5][1] == pytest.approx(1.9040, abs=5e-5)  # how far the farthest is from the five


def test_k_center_takes_equal_points_once_each() -> None:
    assert [p for p, _ in coverage.k_center(np.ones((4, 2)))] == [0, 1, 2, 3]
    assert list(coverage.k_center(np.empty((0, 2)))) == []


def test_facility_location_has_the_golden_set_and_gains() -> None:
    picks = list(itertools.islice(coverage.facility_location(UNIT), 5))
    assert [p for p, _ in picks] == [9, 7, 8, 6, 2]
    assert [g for _, g in picks] == pytest.approx([7.999065, 2.201195, 0.421821, 0.339511, 0.316799], abs=1e-6)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 25))
def test_lazy_picks_are_those_of_looking_at_all(seed: int, count: int) -> None:
    rows = np.random.default_rng(seed).standard_normal((count, 3))
    rows /= np.linalg.norm(rows, axis=1)[:, None]
    alike = (np.clip(rows @ rows.T, -1, 1) + 1) / 2
    covered, left, gains = np.zeros(count), set(range(count)), []
    picks = list(coverage.facility_location(rows))
    for place, gain in picks:
        every = {j: float(np.maximum(alike[:, j] - covered, 0).sum()) for j in left}
        assert gain == pytest.approx(max(every.values()), abs=1e-9)
        assert every[place] == pytest.approx(gain, abs=1e-9)
        covered = np.maximum(covered, alike[:, place])
        left.remove(place)
        gains.append(gain)
    assert not left


def test_dpp_has_the_golden_order_and_determinants() -> None:
    quality = np.array([1, 0.9, 0.8, 1.1, 0.7, 0.95])
    picks = list(itertools.islice(coverage.dpp(UNIT[:6], quality), 4))
    assert [p for p, _ in picks] == [3, 5, 1, 2]
    assert np.cumsum([np.log(g) for _, g in picks]) == pytest.approx([0.1906204, 0.0702144, -0.2025834, -1.9592524], abs=1e-6)


def test_dpp_stops_where_nothing_is_independent() -> None:
    rows = np.array([[1, 0], [0, 1], [1, 1], [1, 0]], float)
    assert [p for p, _ in coverage.dpp(rows, np.ones(4))] == [2, 0]


def test_dpp_with_the_kernel_of_a_query_picks_by_relevance() -> None:
    # CEIL's kernel for the query (1, 0): r = exp((cosine - max) / 2 / (2 * 0.1)), S = (cosine + 1) / 2
    rows = np.array([[1, 0], [0.8, 0.6], [0.6, -0.8], [0, 1]])
    quality = np.array([1, 0.606531, 0.367879, 0.082085])
    lifted = np.concatenate([rows, np.ones((4, 1))], axis=1) / np.sqrt(2)  # inner products are (cosine + 1) / 2
    assert [p for p, _ in coverage.dpp(lifted, quality)][:3] == [0, 1, 2]
