"""A training's parts are checked against each other before its first step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tiny_training import TINY, WORDS, data, saved, spec, tokenizer

from curate import models
from curate.errors import ConfigError
from curate.packed import MemorySequences
from curate.prepared import prepare


def sequences(**more: Any) -> MemorySequences:
    return MemorySequences([[("a", [1, 2, 3, 4])]], **{"sequence_length": 4, "vocab_size": 8, **more})


def test_the_key_is_of_all_that_determines_the_result(tmp_path: Path) -> None:
    first = prepare(data(), spec()).key
    assert prepare(data(), spec(keep_last=3, save_every=1)).key == first
    for other in (prepare(data(seed=1), spec()), prepare(data(), spec(beta2=0.9)), prepare(data(), spec(), seed=1), prepare(data(), spec(seed=2))):
        assert other.key != first
    one, two = saved(tmp_path / "one"), saved(tmp_path / "two")
    tuned = {"config": {}, "learning_rate": 1e-3}
    assert prepare(data(), spec(model=str(one), **tuned)).key == prepare(data(), spec(model=str(two), **tuned)).key
    assert prepare(data(), spec(model="one/model", **tuned), base=tmp_path).key == prepare(data(), spec(model=str(two), **tuned)).key
    assert prepare(data(), spec(model=str(saved(tmp_path / "three", seed=9)), **tuned)).key != prepare(data(), spec(model=str(one), **tuned)).key


def test_an_empty_mixture_is_refused() -> None:
    with pytest.raises(ConfigError, match="the mixture is empty"):
        prepare(MemorySequences([], sequence_length=4, vocab_size=8), spec())


def test_sequences_longer_than_the_context_are_refused() -> None:
    with pytest.raises(ConfigError, match="sequences of 32 tokens are longer than the model's context of 16; tokenize with sequence_length: 16"):
        prepare(data(), spec(config={**TINY, "max_position_embeddings": 16}))


def test_a_tokenizer_that_is_not_the_models_is_refused(tmp_path: Path) -> None:
    folder = saved(tmp_path, words=8)
    here = tokenizer(folder, ["?", "a", "b"])
    there = tokenizer(tmp_path / "t", ["?", "b", "a"])
    with pytest.raises(ConfigError, match=r"is not the one that made the sequences.*tokenize the mixture with"):
        prepare(sequences(tokenizer=there), spec(model=str(folder), config={}, batch_tokens=4))
    assert prepare(sequences(tokenizer=here), spec(model=str(folder), config={}, batch_tokens=4)).steps == 1


def test_more_tokens_than_the_model_has_are_refused(tmp_path: Path) -> None:
    folder = saved(tmp_path, words=6)
    with pytest.raises(ConfigError, match="the tokenizer has 8 tokens and the model 6"):
        prepare(sequences(), spec(model=str(folder), config={}, batch_tokens=4))


def test_a_model_that_does_not_keep_documents_apart_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "crossing", lambda *_: 0.5)
    with pytest.raises(ConfigError, match="does not keep packed documents apart"):
        prepare(data(), spec())
    monkeypatch.setattr(models, "crossing", lambda *_: float("nan"))
    with pytest.raises(ConfigError, match="does not keep packed documents apart"):
        prepare(data(), spec())
    assert data().vocab_size == WORDS
