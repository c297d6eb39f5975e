"""Losses of a language model against one forward pass a text, without padding, windows or batches."""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import transformers
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiny_models import causal

from curate import language_model as lm
from curate.errors import ConfigError, DataError

TEXTS = ["the ship left the harbour", "", "x", "def add(a, b):\n    return a + b\n" * 9, "Das Meer war ruhig. 你好", "two " * 60]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return causal(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def model(folder: Path) -> lm.LanguageModel:
    return lm.LanguageModel(folder, "cpu")


def plainly(folder: Path, tokens: list[int], start: int) -> list[float]:
    """Losses of tokens[start:], the whole sequence at once, by the library's own cross entropy."""
    found = transformers.AutoModelForCausalLM.from_pretrained(folder)
    with torch.inference_mode():
        logits = found(input_ids=torch.tensor([tokens])).logits[0, start - 1 : -1]
    return torch.nn.functional.cross_entropy(logits, torch.tensor(tokens[start:]), reduction="none").tolist()


def test_losses_are_those_of_one_pass_over_each_text(folder: Path, model: lm.LanguageModel) -> None:
    rows = model.tokens(TEXTS)
    assert max(map(len, rows)) > 100
    short = [t for t in rows if len(t) < 60]
    for tokens, found in zip(short, model.losses([([], t) for t in short]), strict=True):
        want = plainly(folder, [0, *tokens], 1) if tokens else []  # 0 is <s>
        np.testing.assert_allclose(found.nll, want, rtol=lm.TOLERANCE)
        assert found.left_out == 0


@pytest.mark.parametrize(("context", "stride"), [(64, 32), (64, 63), (20, 1), (7, 3), (2, 1)])
def test_windows_give_each_token_what_stands_in_front_of_it(folder: Path, model: lm.LanguageModel, context: int, stride: int) -> None:
    tokens = [0, *model.tokens(["two plus two is four, the sun was up. " * 4])[0]]
    (found,) = model.losses([([], tokens[1:])], context=context, stride=stride)
    # by hand: the first window ends at `context`, each further one `stride` behind the last
    ends = [min(context, len(tokens))]
    while ends[-1] < len(tokens):
        ends.append(min(ends[-1] + stride, len(tokens)))
    want: list[float] = []
    for end in ends:
        window = tokens[max(0, end - context) : end]
        want += plainly(folder, window, len(window) - (end - 1 - len(want)))
    np.testing.assert_allclose(found.nll, want, rtol=lm.TOLERANCE, atol=1e-5)


def test_what_is_given_is_not_scored(folder: Path, model: lm.LanguageModel) -> None:
    prompt, answer = model.tokens(["two plus two", " is four"])
    (found,) = model.losses([(prompt, answer)])
    np.testing.assert_allclose(found.nll, plainly(folder, [0, *prompt, *answer], 1 + len(prompt)), rtol=lm.TOLERANCE)
    long = prompt * 30  # longer than the context: its end is kept
    (found,) = model.losses([(long, answer)], context=16, stride=8)
    window = [0, *long, *answer][-16:] if len(answer) <= 8 else []
    np.testing.assert_allclose(found.nll, plainly(folder, window, 16 - len(answer)), rtol=lm.TOLERANCE)


def test_tokens_beyond_the_bound_are_left_out_and_counted(model: lm.LanguageModel) -> None:
    tokens = model.tokens(["the ship left the harbour"])[0]
    whole, cut = model.losses([([], tokens)])[0], model.losses([([], tokens)], max_tokens=3)[0]
    np.testing.assert_allclose(cut.nll, whole.nll[:3], rtol=lm.TOLERANCE)
    assert cut.left_out == len(tokens) - 3


def test_el2n_by_hand(folder: Path, model: lm.LanguageModel) -> None:
    tokens = model.tokens(["the sun"])[0]
    found = transformers.AutoModelForCausalLM.from_pretrained(folder)
    with torch.inference_mode():
        chances = torch.softmax(found(input_ids=torch.tensor([[0, *tokens]])).logits[0, :-1], -1)
    want = [(p - torch.nn.functional.one_hot(torch.tensor(t), len(p))).norm().item() for p, t in zip(chances, tokens, strict=True)]
    np.testing.assert_allclose(model.losses([([], tokens)], error=True)[0].error, want, rtol=1e-4)


def test_el2n_of_a_token_that_is_nearly_certain(tmp_path: Path) -> None:
    folder = causal(tmp_path, vocabulary=300)
    model = lm.LanguageModel(folder, "cpu")
    tokens = model.tokens(["the sun"])[0]

    def sure(input_ids: torch.Tensor, **_: object) -> SimpleNamespace:
        logits = torch.zeros((*input_ids.shape, 300))
        logits[0, torch.arange(len(tokens)), torch.tensor(tokens)] = 14.0
        return SimpleNamespace(logits=logits)

    model.model = sure
    # by hand: each of the 299 others has q = 1 / (e^14 + 299), the right one lacks 299 q: sqrt((299 q)^2 + 299 q^2)
    q = 1 / (math.exp(14) + 299)
    want = math.sqrt((299 * q) ** 2 + 299 * q * q)
    np.testing.assert_allclose(model.losses([([], tokens)], error=True)[0].error, [want] * len(tokens), rtol=1e-2)


def test_a_tokenizer_without_a_first_token_leaves_the_first_out(tmp_path: Path) -> None:
    bare = lm.LanguageModel(causal(tmp_path, bos=False), "cpu")
    tokens = bare.tokens(["the ship left"])[0]
    assert bare.first is None
    (found,) = bare.losses([([], tokens)])
    np.testing.assert_allclose(found.nll, plainly(tmp_path, tokens, 1), rtol=lm.TOLERANCE)
    assert [len(f.nll) for f in bare.losses([([], []), ([], tokens[:1]), (tokens[:1], tokens[1:])])] == [0, 0, len(tokens) - 1]


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.text(max_size=30), max_size=8), st.integers(2, 70))
def test_company_and_order_do_not_show(model: lm.LanguageModel, texts: list[str], context: int) -> None:
    rows = [([], tokens) for tokens in model.tokens([t.encode("utf-8", "replace").decode() for t in texts])]
    together = model.losses(rows, context=context)
    for i in reversed(range(len(rows))):
        (alone,) = model.losses([rows[i]], context=context)
        np.testing.assert_allclose(together[i].nll, alone.nll, rtol=lm.TOLERANCE, atol=1e-5)


def test_batches_are_of_one_length_and_bounded(model: lm.LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(lm._LOGIT_BYTES, "cpu", 4 * model.vocabulary * 40)
    windows = [(i, [1] * n, n - 1, 0) for i, n in enumerate([3, 30, 9, 9, 50, 4, 9, 12])]
    batches = list(model._batches(windows))
    assert sorted(w[0] for b in batches for w in b) == list(range(8))
    assert all(len(b) == 1 or len(b) * max(len(w[1]) for w in b) <= 40 for b in batches)
    assert [len(b[0][1]) for b in batches] == sorted((len(b[0][1]) for b in batches), reverse=True)


def test_what_is_no_model_is_named(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"config\.json, got nothing at .*none"):
        lm.find("none", tmp_path)
    with pytest.raises(ConfigError, match="got a folder without one"):
        lm.find(".", tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(DataError, match="expected a causal language model"):
        lm.LanguageModel(lm.find(".", tmp_path))
    larger = shutil.copytree(folder, tmp_path / "larger")
    causal(tmp_path / "other", vocabulary=320)
    shutil.copy(tmp_path / "other" / "tokenizer.json", larger / "tokenizer.json")
    with pytest.raises(DataError, match=r"tokenizer has 3\d\d tokens, the model 300"):
        lm.LanguageModel(larger)
    with pytest.raises(ConfigError, match="expected a CUDA device"):
        lm.LanguageModel(folder, "cuda")


def test_perplexity_of_a_model_that_knows_nothing_is_its_vocabulary(tmp_path: Path) -> None:
    causal(tmp_path)
    blank = lm.LanguageModel(tmp_path, "cpu")
    for parameter in blank.model.parameters():
        parameter.data.zero_()
    (found,) = blank.losses([([], blank.tokens(["the ship"])[0])])
    np.testing.assert_allclose(found.nll, math.log(300), rtol=1e-6)
