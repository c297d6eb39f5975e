"""The DSIR stage against the numbers of the authors' code, and each of its options where it must matter."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from curate import randomness
from curate.errors import ConfigError, DataError
from curate.scorers.dsir import Dsir, DsirParams
from curate.stage import KEY, TEXT, Context, Target, meaning

RAW = [
    "The quick brown fox jumps over the lazy dog. The dog barks; the fox runs away.",
    "def add(a, b):\n    return a + b\n\n\ndef mul(a, b):\n    return a * b\n",
    "Theorem 1. For every n >= 0, n*(n+1)/2 is an integer. Proof: by induction on n.",
    "Café MÜNCHEN naïve — 你好，世界! 😀 100% snake_case x_1\r\n\tdon't",
    "",
]
GUIDE = [
    "def sub(a, b):\n    return a - b\n",
    "def div(a, b):\n    if b == 0:\n        raise ZeroDivisionError\n    return a / b\n",
    "for i in range(10):\n    print(add(i, i + 1))\n",
]
OTHER = ["The lazy dog sleeps. The fox jumps over the dog.", "A proof by induction on n."]
#: data-selection 1.0.3 (and its HEAD for laplace) on these texts; the empty document is 0.0 there and null here.
REFERENCE = [
    ({}, [-490.76245771585786, -112.15629822091873, -607.2874864042227, -412.9452946399316]),
    ({"ngrams": 1}, [-277.3440673646559, -13.093286213137176, -288.03499721982445, -223.83783656173918]),
    ({"ngrams": 3, "buckets": 50_000}, [-710.2990140644173, -233.42130780667662, -913.2894075941549, -582.3019899273373]),
    ({"laplace": 1.0}, [-163.9484127241894, -163.96865380141955, -225.92079103117726, -127.69629515782859]),
    ({"laplace": 0.1}, [-164.72722423454258, -102.04039839014055, -215.98896506815743, -130.0644225549498]),
]


def pool(texts: Sequence[str | None]) -> pa.RecordBatch:
    keys = randomness.keys_of(pa.array([f"document {i}" for i in range(len(texts))]))
    return pa.record_batch([pa.array(texts, pa.string()), pa.array(keys)], names=[TEXT, KEY])


def stage(targets: Sequence[str] = ("code",), seed: int = 0, **settings: Any) -> Dsir:
    return Dsir(DsirParams(**settings), Context("dsir", seed, tuple(Target(name) for name in targets)))


def fitted(dsir: Dsir, texts: Sequence[str], **guides: list[str]) -> pa.Table:
    partials = [dsir.fit_part(iter([pool(texts)]))]
    return dsir.close(dsir.merge(partials), {name: pa.chunked_array([g]) for name, g in guides.items()})


def weights(dsir: Dsir, texts: Sequence[str] = RAW, **guides: list[str]) -> pa.RecordBatch:
    state = fitted(dsir, texts, **(guides or {"code": GUIDE}))
    return dsir.apply(state, pool(texts).select([TEXT]))


@pytest.mark.parametrize(("settings", "expected"), REFERENCE)
def test_sha256_gives_the_references_numbers(settings: dict[str, Any], expected: list[float]) -> None:
    found = weights(stage(hash="sha256", **settings))
    np.testing.assert_allclose(found.column("value").to_pylist()[:4], expected, rtol=1e-10)


def test_guide_files_that_are_joined_make_one_target() -> None:
    found = weights(stage(hash="sha256"), code=GUIDE + OTHER)
    expected = [-197.39675776237408, -121.89770786691047, -402.5358625207559, -412.9452946399316]
    np.testing.assert_allclose(found.column("value").to_pylist()[:4], expected, rtol=1e-10)


def test_two_targets_have_a_column_each() -> None:
    found = weights(stage(("code", "prose"), hash="sha256"), code=GUIDE, prose=OTHER)
    expected = [
        (-490.7624577158579, -171.39758074136765),
        (-112.15629822091871, -512.1911180034679),
        (-607.2874864042228, -479.1520294193729),
        (-412.94529463993155, -412.94529463993155),
    ]
    assert found.schema.names == ["code", "prose", "tokens", "reason"]
    np.testing.assert_allclose(found.column("code").to_pylist()[:4], [e[0] for e in expected], rtol=1e-10)
    np.testing.assert_allclose(found.column("prose").to_pylist()[:4], [e[1] for e in expected], rtol=1e-10)


def test_tokens_are_counted_as_the_reference_counts_them() -> None:
    assert weights(stage()).column("tokens").to_pylist() == [19, 22, 27, 16, 0]


def test_an_empty_document_is_null_with_a_reason_and_not_zero() -> None:
    found = weights(stage())
    assert found.column("value")[4].as_py() is None
    assert found.column("reason").to_pylist() == [None, None, None, None, "no tokens"]


def test_a_document_below_min_tokens_is_null_and_takes_no_part_in_the_fit() -> None:
    long = ["".join(GUIDE)]
    found = weights(stage(min_tokens=20, hash="sha256"), code=long)
    assert found.column("reason").to_pylist() == ["fewer than 20 tokens", None, None, "fewer than 20 tokens", "no tokens"]
    alone = fitted(stage(hash="sha256"), [RAW[1], RAW[2]], code=long)
    assert fitted(stage(min_tokens=20, hash="sha256"), RAW, code=[*long, "short"]).equals(alone)


def test_the_score_says_what_it_is() -> None:
    assert meaning(stage().fields().field("value")) == ("log_weight", True)
    assert meaning(stage(length_normalise=True).fields().field("value")) == ("score", True)


def test_length_normalised_is_the_sum_over_the_number_of_n_grams() -> None:
    plain, normal = weights(stage(hash="sha256")), weights(stage(hash="sha256", length_normalise=True))
    for row, tokens in enumerate([19, 22, 27, 16]):
        expected = plain.column("value")[row].as_py() / (tokens + tokens - 1)
        assert normal.column("value")[row].as_py() == pytest.approx(expected, rel=1e-15)


def test_characters_are_tokens_where_that_is_asked_when_fitting_and_when_scoring() -> None:
    found = weights(stage(tokenizer="chars"), ["你好，世界", "世界和平"], code=["你好"])
    assert found.column("tokens").to_pylist() == [5, 4]
    values = found.column("value").to_pylist()
    assert values[0] > values[1]


def test_counts_of_parts_add_up_to_the_counts_of_the_whole() -> None:
    dsir = stage()
    parts = [dsir.fit_part(iter([pool(RAW).slice(i, 1)])) for i in range(len(RAW))]
    assert dsir.merge(parts).equals(dsir.fit_part(iter([pool(RAW)])))


def test_a_fit_on_a_number_of_n_grams_is_a_sample_by_identity_of_at_least_so_many() -> None:
    texts = [f"word{i} and word{i + 1}" for i in range(4000)]  # 3 + 2 n-grams each, 20,000 in all
    dsir = stage(fit=3000)
    state = fitted(dsir, texts, code=GUIDE)
    held = int(state["pool"].to_numpy().sum())
    assert 3000 <= held < 6500
    backwards = pool(texts).take(pa.array(range(3999, -1, -1)))
    halves = [dsir.fit_part(iter([backwards.slice(0, 1234)])), dsir.fit_part(iter([backwards.slice(1234)]))]
    again = dsir.close(dsir.merge(halves), {"code": pa.chunked_array([GUIDE])})
    assert again.equals(state)
    other = fitted(stage(fit=3000, seed=1), texts, code=GUIDE)
    assert not other["pool"].equals(state["pool"])


def test_a_fit_on_more_n_grams_than_there_are_takes_all() -> None:
    everything = fitted(stage(), RAW, code=GUIDE)
    assert fitted(stage(fit=10**9), RAW, code=GUIDE)["pool"].equals(everything["pool"])


def test_a_pool_without_a_single_n_gram_is_an_error() -> None:
    with pytest.raises(DataError, match="no n-gram to fit on"):
        fitted(stage(), ["", "  "], code=GUIDE)


def test_a_guide_without_a_single_n_gram_is_an_error_that_names_the_target() -> None:
    with pytest.raises(DataError, match="target 'code'"):
        fitted(stage(), RAW, code=["", " "])


def test_a_guide_with_fewer_n_grams_than_buckets_warns() -> None:
    dsir = stage()
    fitted(dsir, RAW, code=GUIDE)
    assert "89 n-grams for 10,000 buckets" in dsir.notes()[0]
    smoothed = stage(laplace=0.1)
    fitted(smoothed, RAW, code=GUIDE)
    assert smoothed.notes() == []


@pytest.mark.parametrize("settings", [{"ngrams": 0}, {"ngrams": 9}, {"buckets": 0}, {"laplace": -1.0}, {"min_tokens": -1}, {"fit": 0}])
def test_settings_out_of_range_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(settings))):
        DsirParams(**settings)


def test_no_target_is_refused() -> None:
    with pytest.raises(ConfigError, match="needs a target"):
        stage(())
