"""The interval of the verdict: tables, arithmetic by hand, and simulations with a known truth."""

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from curate.errors import ConfigError, DataError, InternalError
from curate.verdict import holm, judge_arms, student_t_quantile

# ---------------------------------------------------------------- Student's t


@pytest.mark.parametrize(
    ("p", "freedom", "tabled"),
    [
        (0.975, 1, 12.7062),
        (0.975, 2, 4.30265),
        (0.975, 3, 3.18245),
        (0.975, 5, 2.57058),
        (0.975, 9, 2.26216),
        (0.975, 10, 2.22814),
        (0.975, 30, 2.04227),
        (0.975, 120, 1.97993),
        (0.975, 1_000_000, 1.95997),
        (0.95, 9, 1.83311),
        (0.995, 1, 63.6567),
        (0.995, 9, 3.24984),
        (0.9995, 4, 8.61030),
    ],
)
def test_quantiles_of_t_agree_with_the_printed_tables(p, freedom, tabled):
    assert student_t_quantile(p, freedom) == pytest.approx(tabled, rel=3e-6)


@pytest.mark.parametrize("p", [0.5001, 0.6, 0.9, 0.975, 0.9999])
def test_quantiles_of_t_agree_with_the_closed_forms(p):
    assert student_t_quantile(p, 1) == pytest.approx(math.tan(math.pi * (p - 0.5)), rel=1e-10)
    of_two = (2 * p - 1) / math.sqrt(2 * p * (1 - p))
    assert student_t_quantile(p, 2) == pytest.approx(of_two, rel=1e-10)
    assert student_t_quantile(1 - p, 2) == pytest.approx(-of_two, rel=1e-9)


def test_quantiles_of_t_integrate_to_their_probability_between_whole_degrees_of_freedom():
    freedom, p = 6.7, 0.975
    t = student_t_quantile(p, freedom)
    x = np.linspace(0, t, 200_001)
    scale = math.exp(math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2)) / math.sqrt(freedom * math.pi)
    density = scale * (1 + x * x / freedom) ** (-(freedom + 1) / 2)
    area = (density.sum() - (density[0] + density[-1]) / 2) * (x[1] - x[0])
    assert 0.5 + area == pytest.approx(p, abs=1e-9)


def test_the_median_of_t_is_zero():
    assert student_t_quantile(0.5, 3.3) == 0.0


# ---------------------------------------------------------------- arithmetic by hand


def test_a_verdict_is_what_was_computed_by_hand():
    # Bytes 10 and 30. The difference is 5 and 15 bits, half a bit per byte on each: leaving one out finds nothing.
    selection = np.array([20.0, 60.0])
    random = np.array([[24.0, 72.0], [25.0, 75.0], [26.0, 78.0]])
    verdict = judge_arms(selection, random, np.array([10, 30]))
    assert verdict.selection_bits_per_byte == 2.0
    assert verdict.random_bits_per_byte == pytest.approx(2.5)
    assert verdict.random_sd == pytest.approx(0.1)  # of 2.4, 2.5, 2.6
    assert verdict.difference == pytest.approx(0.5)
    assert verdict.variance_draws == pytest.approx(0.01 * 4 / 3)
    assert verdict.variance_documents == pytest.approx(0, abs=1e-30)
    assert verdict.degrees_of_freedom_draws == 2
    assert verdict.degrees_of_freedom_documents == pytest.approx(40 * 40 / (10 * 10 + 30 * 30) - 1)
    half = 4.302652729749464 * 0.1 * math.sqrt(4 / 3)  # 0.4968
    assert (verdict.low, verdict.high) == pytest.approx((0.5 - half, 0.5 + half))
    assert verdict.word == "better"
    assert (verdict.draws, verdict.documents, verdict.test_bytes) == (3, 2, 40)


def test_both_parts_of_the_interval_are_what_was_computed_by_hand():
    # Three documents of 10 bytes; the mean draw less the selection is 4, 6 and 8 bits: 0.6 bits per byte. Leaving
    # one out gives 0.7, 0.6 and 0.5, so v2 = 2/3 * 0.02. The draws have 2.95 and 3.05 bits per byte: s^2 = 0.005.
    random = np.array([[29.5, 29.5, 29.5], [30.5, 30.5, 30.5]])
    verdict = judge_arms(np.array([26.0, 24.0, 22.0]), random, np.array([10, 10, 10]))
    assert verdict.difference == pytest.approx(0.6)
    assert verdict.variance_draws == pytest.approx(0.0075)
    assert verdict.variance_documents == pytest.approx(0.02 * 2 / 3)
    assert verdict.degrees_of_freedom_documents == pytest.approx(2)
    half = math.sqrt(12.706204736174694**2 * 0.0075 + 4.302652729749464**2 * 0.02 * 2 / 3)
    assert (verdict.low, verdict.high) == pytest.approx((0.6 - half, 0.6 + half))
    assert verdict.word == "no difference shown"


def test_the_part_of_the_documents_is_the_variance_of_a_ratio():
    rng = np.random.default_rng(4)
    sizes = rng.integers(50, 500, 400)
    difference = 0.1 * sizes + rng.normal(0, 20, 400)
    random = np.tile(3.0 * sizes, (4, 1))
    verdict = judge_arms(3.0 * sizes - difference, random, sizes)
    chosen = rng.integers(0, 400, (4_000, 400))
    bootstrap = (difference[chosen].sum(axis=1) / sizes[chosen].sum(axis=1)).var()
    assert verdict.variance_documents == pytest.approx(bootstrap, rel=0.06)
    assert verdict.variance_draws == pytest.approx(0, abs=1e-30)


def test_the_words_follow_the_interval():
    random = np.array([[30.0, 30.0], [31.0, 31.0], [32.0, 32.0], [33.0, 33.0]])
    sizes = np.array([10, 10])
    words = [judge_arms(np.full(2, bits), random, sizes).word for bits in (20.0, 31.5, 45.0)]
    assert words == ["better", "no difference shown", "worse"]


def test_arms_that_are_all_alike_show_no_difference():
    verdict = judge_arms(np.array([8.0, 9.0]), np.array([[8.0, 9.0]] * 3), np.array([4, 4]))
    assert (verdict.difference, verdict.low, verdict.high) == (0.0, 0.0, 0.0)
    assert verdict.word == "no difference shown"


def test_the_order_of_documents_and_draws_changes_next_to_nothing():
    rng = np.random.default_rng(8)
    selection, random, sizes = arms(rng, documents=80, draws=5, of_arm=0.05, of_text=0.5)
    verdict = judge_arms(selection, random, sizes)
    assert judge_arms(selection, random, sizes) == verdict
    order = rng.permutation(80)
    other = judge_arms(selection[order], random[::-1, order], sizes[order])
    assert (other.low, other.high) == pytest.approx((verdict.low, verdict.high), rel=1e-12)


def test_a_higher_confidence_widens_the_interval():
    selection, random, sizes = arms(np.random.default_rng(8), documents=80, draws=5, of_arm=0.05, of_text=0.5)
    half, most = (judge_arms(selection, random, sizes, confidence=c) for c in (0.5, 0.99))
    assert most.low < half.low < half.difference < half.high < most.high


def test_a_document_without_bytes_weighs_by_its_bits_alone():
    draws = np.array([[15.0, 15.0, 2.0], [15.5, 15.5, 2.5]])
    verdict = judge_arms(np.array([10.0, 10.0, 2.0]), draws, np.array([5, 6, 0]))
    assert verdict.selection_bits_per_byte == 2.0
    assert math.isfinite(verdict.low)
    assert verdict.low < verdict.high


# ---------------------------------------------------------------- simulations: the truth is known


def arms(rng, *, documents, draws, of_arm, of_text, gain=0.0, gain_varies=0.0):
    """Bits of a selection and of random draws: shared effects of each document, an effect of each arm, and of
    each arm on each document (all in bits per byte); `gain` is what the selection saves."""
    sizes = np.maximum(1, rng.lognormal(6, 0.8, documents).astype(np.int64))
    rate = 3.0 + rng.normal(0, 0.7, documents)
    each = rate + rng.normal(0, of_arm, (draws + 1, 1)) + rng.normal(0, of_text, (draws + 1, documents))
    bits = each * sizes
    saved = (gain + rng.normal(0, gain_varies, documents) if gain_varies else gain) * sizes
    return bits[0] - saved, bits[1:], sizes


REGIMES = {
    "arms differ, texts do not": {"documents": 60, "draws": 10, "of_arm": 0.02, "of_text": 0.0},
    "texts differ, arms do not": {"documents": 60, "draws": 10, "of_arm": 0.0, "of_text": 0.3},
    "both, evenly": {"documents": 60, "draws": 10, "of_arm": 0.03, "of_text": 0.2},
    "three draws": {"documents": 100, "draws": 3, "of_arm": 0.03, "of_text": 0.1},
    "few documents": {"documents": 12, "draws": 10, "of_arm": 0.03, "of_text": 0.1},
    "many documents": {"documents": 1_000, "draws": 5, "of_arm": 0.01, "of_text": 0.3},
}


def share_of_claims(regime: dict[str, float], trials: int, **more: float) -> tuple[float, float]:
    """Shares of trials that say better, and worse."""
    words = []
    for trial in range(trials):
        selection, random, sizes = arms(np.random.default_rng((77, trial)), **regime, **more)
        words.append(judge_arms(selection, random, sizes).word)
    return words.count("better") / trials, words.count("worse") / trials


def most_at_five_percent(trials: int) -> float:
    """Three standard deviations above 5 %: 0.05 + 3 sqrt(0.05 * 0.95 / trials)."""
    return 0.05 + 3 * math.sqrt(0.05 * 0.95 / trials)


@pytest.mark.parametrize("regime", REGIMES)
def test_one_more_random_draw_is_rarely_called_better_or_worse(regime):
    trials = 400
    assert sum(share_of_claims(REGIMES[regime], trials)) <= most_at_five_percent(trials)


@pytest.mark.slow
@pytest.mark.parametrize("regime", REGIMES)
def test_one_more_random_draw_is_rarely_called_better_or_worse_in_many_trials(regime):
    assert sum(share_of_claims(REGIMES[regime], 10_000)) <= most_at_five_percent(10_000)


def test_a_real_gain_is_found_and_a_real_loss_too():
    # 60 documents of unequal length are worth about 34. Standard deviations: of the arms 0.03 sqrt(1.1) = 0.03,
    # of their texts 0.2 sqrt(1.1 / 34) = 0.04, counted twice; together 0.06 bits per byte.
    better, worse = share_of_claims(REGIMES["both, evenly"], 100, gain=0.3)
    assert better > 0.95
    assert worse == 0
    better, worse = share_of_claims(REGIMES["both, evenly"], 100, gain=-0.3)
    assert better == 0
    assert worse > 0.95


def test_a_gain_on_some_documents_that_is_none_on_average_is_rarely_claimed():
    # The draws agree, so their spread alone would call every chance mean of the documents' gains a real one.
    regime = {"documents": 60, "draws": 10, "of_arm": 0.001, "of_text": 0.01}
    assert sum(share_of_claims(regime, 1_000, gain_varies=0.3)) <= most_at_five_percent(1_000)


# ---------------------------------------------------------------- refusals


BITS, DRAWS, BYTES = np.array([3.0, 4.0]), np.array([[3.0, 4.0], [3.5, 4.5]]), np.array([1, 2])


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        ({"confidence": 95.0}, ConfigError, "0.95"),
        ({"random_bits": DRAWS[:1]}, ConfigError, "at least 2 random draws"),
        ({"random_bits": DRAWS[:, :1]}, InternalError, "shapes"),
        ({"random_bits": BITS}, InternalError, "shapes"),
        ({"selection_bits": np.array([3.0, np.nan])}, DataError, "leave out null texts"),
        ({"random_bits": np.array([[3.0, 4.0], [np.inf, 4.5]])}, DataError, "leave out null texts"),
        ({"test_bytes": np.array([0, 0])}, DataError, "0 bytes"),
        ({"test_bytes": np.array([96, 4])}, DataError, "split it up"),
        ({"test_bytes": np.array([96, 0])}, DataError, "split it up"),
        (
            {"selection_bits": BITS[:1], "random_bits": DRAWS[:, :1], "test_bytes": BYTES[:1]},
            DataError,
            "2 documents",
        ),
    ],
)
def test_what_cannot_be_judged_is_refused_with_the_fix(change, error, says):
    call = {"selection_bits": BITS, "random_bits": DRAWS, "test_bytes": BYTES, **change}
    with pytest.raises(error, match=says):
        judge_arms(**call)


def test_the_example_in_the_documentation_gives_the_word_it_says(capsys):
    page = (Path(__file__).parent.parent / "docs" / "judge.md").read_text("utf-8")
    example = re.search(r"```python\n(.*?)```", page, re.DOTALL)[1]
    exec(compile(example, "docs/judge.md", "exec"), {})
    assert capsys.readouterr().out == example.rsplit("# ", 1)[1]


# ---------------------------------------------------------------- several arms


def test_p_values_are_of_the_interval_and_holm_makes_them_hold_together():
    rng = np.random.default_rng(11)
    sizes = np.full(400, 1000)
    random = 2000 + rng.normal(0, 60, (10, 1)) * np.ones((1, 400))  # draws differ, documents do not: only t with 9 degrees counts
    gains = {"a": 60.0, "b": 150.0, "c": 5.0, "d": -170.0}
    alone = {name: judge_arms(random.mean(axis=0) - gain, random, sizes) for name, gain in gains.items()}
    together = holm(alone)
    sd = random[:, 0].std(ddof=1) * math.sqrt(1 + 1 / 10)
    p = {name: 2 * float(stats.t.sf(abs(gain) / sd, 9)) for name, gain in gains.items()}
    for name, one in together.items():
        assert one.p_value == pytest.approx(p[name], rel=1e-4)
        assert (one.p_value < 0.05) == (one.low > 0 or one.high < 0)
    ordered = sorted(p, key=p.__getitem__)
    expected, least = {}, 0.0
    for place, name in enumerate(ordered):
        least = max(least, min(1.0, p[name] * (4 - place)))
        expected[name] = least
    assert {n: v.adjusted_p_value for n, v in together.items()} == pytest.approx(expected, rel=1e-4)
    assert {n: v.word != "no difference shown" for n, v in together.items()} == {n: q < 0.05 for n, q in expected.items()}
    assert list(together) == list(gains)


def test_an_arm_of_several_draws_is_compared_by_the_two_means():
    rng = np.random.default_rng(2)
    sizes = np.full(50, 1000)
    random, drawn = rng.normal(2000, 30, (10, 50)), rng.normal(1980, 30, (5, 50))
    found = judge_arms(drawn, random, sizes)
    of_random, of_drawn = random.sum(axis=1) / 50_000, drawn.sum(axis=1) / 50_000
    assert found.difference == pytest.approx(of_random.mean() - of_drawn.mean())
    assert found.variance_draws == pytest.approx(of_random.var(ddof=1) / 10)
    assert found.variance_arm == pytest.approx(of_drawn.var(ddof=1) / 5)
    t9, t4, t49 = (stats.t.ppf(0.975, n) for n in (9, 4, 49))
    v2 = found.variance_documents
    half = math.sqrt(t9**2 * found.variance_draws + t4**2 * found.variance_arm + t49**2 * v2)
    assert found.high - found.difference == pytest.approx(half, rel=1e-6)


def test_of_four_arms_that_are_random_draws_few_comparisons_name_any():
    rng = np.random.default_rng(8)
    sizes = np.full(60, 1000)
    named = 0
    for _ in range(30):
        bits = 2000 + rng.normal(0, 30, (14, 1)) + rng.normal(0, 100, (1, 60)) + rng.normal(0, 5, (14, 60))
        arms = {str(n): judge_arms(bits[10 + n], bits[:10], sizes) for n in range(4)}
        named += any(v.word != "no difference shown" for v in holm(arms).values())
    assert named <= 5  # 5 % of 30 are 1.5; 6 or more come by chance once in 300 times
