from __future__ import annotations

import pytest

from curate.pipelines.allocation import balanced, quota, round_robin, shared

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
