"""Forgetting by hand, and in a training."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from tiny_training import saved, spec, tokenizer

from curate import forgetting, models
from curate.errors import ConfigError, DataError
from curate.packed import MemorySequences
from curate.training import train
from curate.trainspec import ForgettingSpec


class Fixed(torch.nn.Module):
    """Predicts the same distribution after every token."""

    def __init__(self, shares: list[float]) -> None:
        super().__init__()
        self.logits = torch.nn.Parameter(torch.tensor(shares).log())

    def forward(self, input_ids: Any, **_: Any) -> Any:
        class Out:
            logits = self.logits.expand(*input_ids.shape, -1)

        return Out


def test_it_is_the_cross_entropy_against_the_bases_own_predictions() -> None:
    found = forgetting.measure(Fixed([0.25, 0.75]), Fixed([0.5, 0.5]), [[0, 1, 0], [1, 1]])
    assert found.cross_entropy == pytest.approx(-(0.5 * math.log(0.25) + 0.5 * math.log(0.75)), rel=1e-6)
    assert found.floor == pytest.approx(math.log(2), rel=1e-6)
    assert found.tokens == 3


def test_a_training_measures_it_beside_the_task(tmp_path: Path) -> None:
    folder = saved(tmp_path, words=8)
    words = tokenizer(folder, ["?", "a", "b", "c"])
    (tmp_path / "general.jsonl").write_text("".join(json.dumps({"text": t}) + "\n" for t in ("a b c a", "b", "", "c c b")))
    rows = MemorySequences([[("x", [1, 2, 3, 1])], [("y", [2, 2, 2, 2])]], sequence_length=4, vocab_size=8, tokenizer=words)
    asked = spec(model=str(folder), config={}, batch_tokens=8, steps=3, learning_rate=1e-2, forgetting=ForgettingSpec(texts="general.jsonl", every=1))
    trained = train(rows, asked, tmp_path / "u", base=tmp_path)
    told = pq.read_table(trained.metrics)["forgetting"].to_pylist()
    base, tuned = models.load_model(folder).model, models.load_model(trained.model).model
    sample = [[1, 2, 3, 1], [3, 3, 2]]
    expected = forgetting.measure(tuned, base, sample)
    assert told[-1] == pytest.approx(expected.cross_entropy, rel=1e-6)
    assert trained.forgetting == told[-1]
    assert expected.floor < told[0] < told[-1]


def test_a_sample_is_the_first_documents_of_two_tokens_at_least(tmp_path: Path) -> None:
    class Words:
        def __call__(self, text: str) -> dict[str, list[int]]:
            return {"input_ids": [len(w) for w in text.split()]}

    (tmp_path / "a.jsonl").write_text('{"t": "a bb ccc dddd"}\n{"t": "a"}\n{"t": null}\n{"t": "bb a"}\n{"t": "a a"}\n')
    assert forgetting.sample([tmp_path / "a.jsonl"], "t", Words(), documents=2, length=3) == [[1, 2, 3], [2, 1]]
    with pytest.raises(ConfigError, match="there is no file"):
        forgetting.sample([tmp_path / "b.jsonl"], "t", Words(), documents=2, length=3)
    with pytest.raises(DataError, match="column 'text'"):
        forgetting.sample([tmp_path / "a.jsonl"], "text", Words(), documents=2, length=3)
