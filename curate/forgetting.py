"""How far a tuned model has moved from its base on text that the training was not about.

    forgetting = - mean over tokens, sum over words, p_base log p_tuned        in nats

The cross-entropy of the tuned model's predictions against the base model's own. Its least value is the entropy of the base's
predictions, `floor`, which a model that has not moved has: forgetting - floor is the KL divergence from the base to the tuned.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from curate.errors import ConfigError, DataError


@dataclass(frozen=True)
class Moved:
    """`cross_entropy` and `floor` in nats a token, over `tokens` predicted tokens."""

    cross_entropy: float
    floor: float
    tokens: int


def measure(tuned: Any, base: Any, rows: Sequence[Sequence[int]]) -> Moved:
    """Hold the predictions of `tuned` against those of `base` on token rows, each a document alone, of at least two tokens."""
    import torch

    total = entropy = 0.0
    count = 0
    before = [(model, model.training) for model in (tuned, base)]
    for model, _ in before:
        model.eval()
    with torch.no_grad():
        for row in rows:
            p, q = (
                torch.log_softmax(
                    model(input_ids=torch.tensor([list(row)], device=next(model.parameters()).device), use_cache=False).logits[0, :-1].float(), -1
                ).cpu()
                for model in (base, tuned)
            )
            total -= float((p.exp() * q).sum(dtype=torch.float64))
            entropy -= float((p.exp() * p).sum(dtype=torch.float64))
            count += len(row) - 1
    for model, training in before:
        model.train(training)
    return Moved(total / count, entropy / count, count)


def sample(files: Sequence[Path], column: str, tokenizer: Any, *, documents: int, length: int) -> list[list[int]]:
    """The first documents of some jsonl or parquet files as token rows of 2 to `length` tokens."""
    rows: list[list[int]] = []
    for file in files:
        for text in _texts(file, column):
            row = tokenizer(text)["input_ids"][:length]
            if len(row) >= 2:
                rows.append(row)
            if len(rows) == documents:
                return rows
    if not rows:
        raise DataError(f"train.forgetting.texts: expected documents of at least two tokens, found none in {', '.join(map(str, files))}")
    return rows


def _texts(file: Path, column: str) -> Iterator[str]:
    try:
        if file.suffix == ".parquet":
            table = pq.read_table(file, columns=[column], partitioning=None)
        else:
            from pyarrow import json

            table = json.read_json(file)
        yield from (str(text) for text in table[column].to_pylist() if text)
    except FileNotFoundError as error:
        raise ConfigError(f"train.forgetting.texts: there is no file {file}") from error
    except (pa.ArrowException, KeyError, OSError) as error:
        raise DataError(f"{file}: expected documents with a column {column!r}: {error}") from error
