"""Learning-rate schedules, by hand."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from curate.schedule import Schedule, multiplier, share_of

ALL: tuple[Schedule, ...] = ("cosine", "linear", "wsd", "constant")


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("linear", [1 / 3, 2 / 3, 1, 0.75, 0.5, 0.25]),
        ("cosine", [1 / 3, 2 / 3, 1, 0.8535533905932737, 0.5, 0.14644660940672624]),
        ("constant", [1 / 3, 2 / 3, 1, 1, 1, 1]),
        ("wsd", [1 / 3, 2 / 3, 1, 1, 1, 0.5]),
    ],
)
def test_six_steps_with_two_of_warm_up(schedule: Schedule, expected: list[float]) -> None:
    assert [multiplier(schedule, s, 6, warmup=2, decay=1 / 3) for s in range(6)] == pytest.approx(expected)


def test_wsd_decays_over_the_last_fifth() -> None:
    rates = [multiplier("wsd", s, 100) for s in range(100)]
    assert rates[:81] == [1.0] * 81
    assert rates[81:] == pytest.approx([1 - k / 20 for k in range(1, 20)])


def test_a_branch_decays_from_where_it_left_without_warm_up() -> None:
    assert [multiplier("linear", s, 14, warmup=3, branch=10) for s in range(10, 14)] == [1.0, 0.75, 0.5, 0.25]


def test_the_last_rate_is_above_the_final_share() -> None:
    assert multiplier("linear", 9, 10, final=0.1) == pytest.approx(0.1 + 0.9 * 0.1)


@given(st.sampled_from(ALL), st.integers(1, 300), st.integers(0, 50), st.floats(0, 1), st.floats(0, 1))
def test_every_step_learns_and_none_is_above_the_peak(schedule: Schedule, steps: int, warmup: int, decay: float, final: float) -> None:
    rates = [multiplier(schedule, s, steps, warmup=min(warmup, steps), decay=decay, final=final) for s in range(steps)]
    assert all(0 < rate <= 1 for rate in rates)
    after = rates[min(warmup, steps) :]
    assert after == sorted(after, reverse=True)


def test_a_share_of_the_steps_is_of_the_number_as_it_is_written() -> None:
    # 0.07 * 100 is 7.000000000000001 in floats, and the decay would begin a step early
    assert [multiplier("wsd", s, 100, decay=0.07) for s in (92, 93, 94)] == pytest.approx([1, 1, 6 / 7])
    assert [share_of(0.07, 100), share_of(0.03, 100), share_of(0.03, 1), share_of(0.0, 9), share_of(1.0, 9)] == [7, 3, 1, 0, 9]
