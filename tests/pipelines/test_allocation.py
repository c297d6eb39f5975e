from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from curate.pipelines.allocation import (
    balanced,
    by_weight,
    capped,
    most_by_weight,
    quota,
    round_robin,
    shared,
    tempered,
    unimax,
)

Row = tuple[int, int, float]


def listed(*docs: int, size: int = 1) -> list[Row]:
    return [(doc, size, float(-doc)) for doc in docs]


@pytest.mark.parametrize(
    ("sizes", "limit", "expected"),
    [
        ({"a": 2, "b": 10, "c": 10}, 12, {"a": 2, "b": 5, "c": 5}),
        ({"a": 10, "b": 10, "c": 10}, 11, {"a": 4, "b": 4, "c": 3}),
        ({"a": 1, "b": 2, "c": 3}, 100, {"a": 1, "b": 2, "c": 3}),
        ({"a": 5, None: 5}, 3, {None: 2, "a": 1}),
        ({"a": 5, "b": 0}, 3, {"a": 3, "b": 0}),
        ({"a": 5, "b": 5}, 0, {"a": 0, "b": 0}),
        ({}, 5, {}),
        ({"a": 1, "b": 4, "c": 9, "d": 9}, 20, {"a": 1, "b": 4, "c": 8, "d": 7}),
    ],
)
def test_groups_get_the_same_and_what_small_ones_leave_goes_to_the_others(sizes: dict[str | None, int], limit: int, expected: dict[str | None, int]) -> None:
    assert balanced(sizes, limit) == expected


def test_shares_are_rounded_down_as_they_were_written() -> None:
    assert shared({"a": 0.29, "b": 0.57}, ["a", "b", "c", None], 100) == {"a": 29, "b": 57, "c": 0, None: 0}
    assert shared({"a": 1 / 3}, ["a"], 3) == {"a": 0}


def test_targets_take_turns_and_pass_over_what_is_taken() -> None:
    assert round_robin([listed(1, 2, 3, 4), listed(1, 2, 4, 3)], 3) == [(1, -1.0, 0), (2, -2.0, 1), (3, -3.0, 0)]


def test_a_turn_that_would_exceed_ends_it_for_all() -> None:
    big = [(9, 50, 1.0), (8, 1, 0.0)]
    assert round_robin([listed(1, 2, 3), big], 10) == [(1, -1.0, 0)]


def test_an_exhausted_target_leaves_the_turns_to_the_others() -> None:
    assert [d for d, _, _ in round_robin([listed(1), listed(5, 6, 7)], 10)] == [1, 5, 6, 7]
    assert round_robin([[], []], 10) == []
    assert round_robin([listed(1)], 0) == []


def test_quotas_are_rounded_down_and_the_last_target_has_the_rest() -> None:
    picks = quota([listed(*range(10)), listed(*range(10))], 7, [0.712, 0.288])  # 4.98 of 7
    assert [t for _, _, t in picks] == [0] * 4 + [1] * 3
    assert [d for d, _, _ in picks] == [0, 1, 2, 3, 4, 5, 6]


def test_what_an_earlier_target_could_not_use_goes_to_the_last() -> None:
    lists = [listed(1, 2, 3, size=5), listed(1, 2, 3, size=5)]
    assert [d for d, _, _ in quota(lists, 16, [1.0, 1.0])] == [1, 2, 3]  # 8 + 8 would strand one that fits
    assert [d for d, _, _ in quota([listed(1), listed(2, 3, 4)], 4, [3.0, 1.0])] == [1, 2, 3, 4]


def test_weights_are_taken_as_they_were_written() -> None:
    picks = quota([listed(*range(100)), listed(*range(100))], 100, [0.29, 0.71])
    assert sum(t == 0 for _, _, t in picks) == 29


@pytest.mark.parametrize(
    ("weights", "limit", "expected"),
    [
        ({"a": 1, "b": 1, "c": 1}, 100, {"a": 34, "b": 33, "c": 33}),  # all remainders alike: by name
        ({"c": 1, "b": 1, "a": 1}, 101, {"a": 34, "b": 34, "c": 33}),
        ({"a": 0.29, "b": 0.71}, 100, {"a": 29, "b": 71}),
        ({"a": 0.5, "b": 0.3, "c": 0.2}, 7, {"a": 4, "b": 2, "c": 1}),  # 3.5, 2.1, 1.4: the one left goes to a
        ({"a": 5, "b": 1}, 4, {"a": 3, "b": 1}),  # 3.33, 0.67: the one left goes to b
        ({"a": 2, "b": 0}, 3, {"a": 3, "b": 0}),
        ({"a": 1, "b": 2}, 0, {"a": 0, "b": 0}),
        ({"a": 1, "b": 2}, 3 * 10**17, {"a": 10**17, "b": 2 * 10**17}),
        ({}, 5, {}),
    ],
)
def test_weights_share_a_limit_to_the_last_unit(weights: dict[str, float], limit: int, expected: dict[str, int]) -> None:
    assert by_weight(weights, limit) == expected


def test_the_most_that_weights_allow_is_set_by_the_source_that_runs_out_first() -> None:
    assert most_by_weight({"a": 3, "b": 1}, {"a": 30, "b": 100}) == 40
    assert most_by_weight({"a": 0.7, "b": 0.3}, {"a": 100, "b": 10}) == 33  # 10 / 0.3
    assert most_by_weight({"a": 1, "gone": 1}, {"a": 100}) == 0
    assert most_by_weight({"a": 1, "b": 0}, {"a": 100, "b": 0}) == 100


def test_a_temperature_flattens_by_the_root_and_one_is_proportional() -> None:
    sizes = {"web": 100, "code": 25, "law": 4, "none": 0}
    assert by_weight(tempered(sizes, 1), 129) == sizes
    assert by_weight(tempered(sizes, 2), 17) == {"web": 10, "code": 5, "law": 2, "none": 0}  # square roots
    assert by_weight(tempered(sizes, 0.5), 10_641) == {"web": 10_000, "code": 625, "law": 16, "none": 0}  # squares
    assert by_weight(tempered(sizes, 1e-300), 7) == {"web": 7, "code": 0, "law": 0, "none": 0}
    assert by_weight(tempered({"a": 8, "b": 1}, 3), 3) == {"a": 2, "b": 1}  # cube roots


@pytest.mark.parametrize(
    ("limit", "cap", "expected"),
    [
        (300, 1, {"a": 10, "b": 100, "c": 190}),
        (30, 1, {"a": 10, "b": 10, "c": 10}),
        (29, 1, {"a": 9, "b": 10, "c": 10}),  # 29 // 3, 20 // 2, the rest
        (300, 0.5, {"a": 5, "b": 50, "c": 245}),
        (5000, 1, {"a": 10, "b": 100, "c": 1000}),
        (0, 1, {"a": 0, "b": 0, "c": 0}),
        (900, 3.5, {"a": 35, "b": 350, "c": 515}),  # 35 of 300, 350 of 432, the rest
    ],
)
def test_unimax_goes_from_the_smallest_on(limit: int, cap: float, expected: dict[str, int]) -> None:
    assert unimax(capped({"c": 1000, "a": 10, "b": 100}, cap), limit) == expected


@given(st.dictionaries(st.text(max_size=3), st.integers(0, 50), max_size=6), st.integers(0, 300), st.sampled_from([29, 50, 100, 250]))
def test_unimax_spends_all_that_the_caps_allow(sizes: dict[str, int], limit: int, percent: int) -> None:
    given_out = unimax(capped(sizes, percent / 100), limit)
    caps = {name: size * percent // 100 for name, size in sizes.items()}
    assert sum(given_out.values()) == min(limit, sum(caps.values()))
    assert all(0 <= given_out[name] <= caps[name] for name in sizes)


@given(st.dictionaries(st.text(max_size=3), st.integers(0, 9), min_size=1, max_size=6), st.integers(0, 300))
def test_shares_by_weight_add_up_and_lie_within_one_of_their_quota(weights: dict[str, int], limit: int) -> None:
    given_out, total = by_weight(weights, limit), sum(weights.values())
    assert sum(given_out.values()) == (limit if total else 0)
    for name, weight in weights.items():
        assert limit * weight - total < given_out[name] * total < limit * weight + total or not total
