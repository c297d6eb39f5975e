"""CoLoR-Filter by the authors' numbers, and its two released bugs absent: tau that selects nothing, and off by one."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_models import causal

from curate import documents, modelpair
from curate import language_model as lm
from curate.budget import parse
from curate.errors import ConfigError
from curate.scorers.color_filter import ColorFilter, ColorFilterParams
from curate.stage import TEXT, TEXT_HASH, Context, Target

PRIOR = [3.0, 2.5, 4.0, 3.2, 2.9, 3.3, 5.0, 2.2, 3.1, 3.05]
CONDITIONAL = [2.8, 2.6, 3.1, 3.2, 2.5, 3.0, 4.9, 2.0, 2.4, 3.10]
SCORES = [0.2, -0.1, 0.9, 0.0, 0.4, 0.3, 0.1, 0.2, 0.7, -0.05]


def scored(prior: list[float | None], conditional: list[float | None], tokens: tuple[list[int], list[int]] | None = None) -> pa.RecordBatch:
    stage = ColorFilter(ColorFilterParams(prior="prior", conditional="conditional"), Context("color_filter"))
    one, other = tokens or ([7] * len(prior), [7] * len(prior))
    columns = [pa.array(prior, pa.float64()), pa.array(one), pa.array(conditional, pa.float64()), pa.array(other)]
    return stage.apply(None, pa.record_batch(columns, names=stage.reads()))


def test_scores_are_the_authors() -> None:
    found = scored(PRIOR, CONDITIONAL)
    assert found["value"].to_pylist() == pytest.approx(SCORES, abs=1e-6)
    assert found["reason"].null_count == 10


@pytest.mark.parametrize(("tau", "ids"), [(2, {10, 15, 14, 18, 12}), (3, {14, 18, 12}), (7, {12})])
def test_tau_is_a_share_and_its_selection_the_authors(tau: int, ids: set[int]) -> None:
    values = scored(PRIOR, CONDITIONAL)["value"].to_pylist()
    k = int(Fraction(1, tau) * 10)
    best = sorted(range(10), key=lambda i: (-values[i], i))[:k]
    assert {10 + i for i in best} == ids


def test_a_share_of_49_documents_of_49_is_one() -> None:
    # the released code takes int((1.0 / 49) * 49), which is 0, and then everything
    assert parse("50%").of(98) == 49
    assert parse("2%").of(50) == 1


def test_what_cannot_be_compared_has_no_score() -> None:
    found = scored([1.0, None, 2.0], [1.0, 1.0, 1.0], ([5, 0, 5], [5, 5, 6]))
    assert found["value"].to_pylist() == [0.0, None, None]
    assert found["reason"].to_pylist() == [None, "no loss of one of the models", "the models cut it into different tokens"]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"prior": "lm", "conditional": "lm"}, "every score would be 0"), ({"prior": "lm"}, "expected prior and conditional, or neither"),
        ({"sample": 1}, "sample of 2 or more"), ({"vocabulary": 256}, "vocabulary of 300"), ({"max_tokens": 0}, "max_tokens of 1 or more"),
    ],
)  # fmt: skip
def test_settings_that_cannot_be(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        ColorFilterParams(**settings)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"train": {"device": "cuda"}}, r"train\.device cannot be set"), ({"tune": {"model": "x"}}, r"tune\.model cannot be set"),
        ({"train": {"epoch": 3}}, "epoch"), ({"tune": {"epochs": -1}}, "epochs above 0"),
    ],
)  # fmt: skip
def test_settings_of_the_trainings_that_cannot_be(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        ColorFilter(ColorFilterParams(**settings), Context("color_filter", targets=(Target("maths"),)))


def test_a_pair_needs_a_target() -> None:
    with pytest.raises(ConfigError, match="needs a target"):
        ColorFilter(ColorFilterParams(), Context("color_filter"))


# -- the sample: the documents that draw lowest, whatever the parts are


def sampler(sample: int, seed: int = 7) -> ColorFilter:
    return ColorFilter(ColorFilterParams(sample=sample), Context("color_filter", seed, (Target("maths"),)))


def batch(texts: list[str]) -> pa.RecordBatch:
    return pa.record_batch([pa.array(texts, pa.string()), documents.text_hashes(pa.array(texts, pa.string()))], names=[TEXT, TEXT_HASH])


@given(st.lists(st.text(alphabet="abc", max_size=3), min_size=1, max_size=25), st.integers(2, 9), st.randoms(use_true_random=False))
def test_any_cut_and_order_gives_one_sample(texts: list[str], sample: int, draw: Any) -> None:
    stage = sampler(sample)
    whole = stage.merge([stage.fit_part(iter([batch(texts)]))])
    draw.shuffle(texts)
    at = draw.randrange(len(texts) + 1)
    parts = [stage.fit_part(iter([batch(part[:1]), batch(part[1:])])) for part in (texts[:at], texts[at:])]
    assert stage.merge(parts).equals(whole)
    assert whole["text"].to_pylist() == list(dict.fromkeys(whole["text"].to_pylist()))  # no copies
    assert whole.num_rows == min(sample, len(set(texts)))


def test_a_long_document_is_read_in_windows_of_what_the_pair_was_trained_on(tmp_path: Path) -> None:
    # the models take 512 places, and sequences of 16 taught them the first 16 of these
    stage = ColorFilter(ColorFilterParams(sequence_length=16), Context("color_filter", 7, (Target("maths"),)))
    pair = {name: lm.LanguageModel(causal(tmp_path / f"m{i}", seed=i, context=512), "cpu", "fp32") for i, name in enumerate(("", "maths"))}
    state = modelpair.MODELS.empty_table()
    stage._loaded = (state, {(fold, name): model for fold in (0, 1) for name, model in pair.items()})
    text = "the ship left the harbour " * 20
    tokens = pair[""].tokens([text])[0]
    prior, conditional = (pair[name].losses([([], tokens)], context=16)[0].nll.mean() for name in ("", "maths"))
    assert len(tokens) > 100
    assert stage.apply(state, batch([text]))["value"].to_pylist() == pytest.approx([prior - conditional], rel=1e-4)


def test_another_seed_draws_another_sample() -> None:
    texts = [f"document {i}" for i in range(200)]
    one, other = (set(s.merge([s.fit_part(iter([batch(texts)]))])["text"].to_pylist()) for s in (sampler(20), sampler(20, seed=8)))
    assert len(one & other) < 10
