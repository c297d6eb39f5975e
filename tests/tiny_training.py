"""A training small enough for every day: 48 sequences of 32 tokens, a model of two layers; and the same as a program."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np

from curate.packed import MemorySequences
from curate.trainspec import TrainSpec

LENGTH, WORDS = 32, 48
TINY = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48, "max_position_embeddings": 64}


def data(sequences: int = 48, seed: int = 0) -> MemorySequences:
    """Runs of numbers, several documents to a sequence, some of the tokens not to be learned."""
    rng = np.random.default_rng(seed)
    packed = []
    for number in range(sequences):
        documents: list[Any] = []
        left = LENGTH
        while left > 3:
            size = int(rng.integers(3, min(left, 14) + 1))
            start = int(rng.integers(0, WORDS))
            documents.append((f"doc{number}-{len(documents)}", [(start + i) % WORDS for i in range(size)], [0] + [1] * (size - 1)))
            left -= size
        packed.append(documents)
    return MemorySequences(packed, sequence_length=LENGTH, vocab_size=WORDS, bytes_per_token=2.0)


def spec(**more: Any) -> TrainSpec:
    """Twelve steps of four sequences."""
    return TrainSpec(**{"config": TINY, "batch_tokens": 4 * LENGTH, "micro_batch": 2, "precision": "fp32", "threads": 1, "save_minutes": None, **more})


def saved(folder: Path, seed: int = 0, words: int = WORDS, **config: Any) -> Path:
    """A model's folder."""
    from curate import models

    (folder / "making").mkdir(parents=True, exist_ok=True)
    model = models.build_model(words, seed=seed, config={**TINY, **config}).model
    return models.save_model(model, folder / "model", tokenizer=None, manifest={"key": "k"}, staging=folder / "making")


def tokenizer(folder: Path, words: list[str]) -> Path:
    """A tokenizer of whole words, in a folder."""
    from tokenizers import Tokenizer, pre_tokenizers
    from tokenizers import models as kinds
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer(kinds.WordLevel({w: i for i, w in enumerate(words)}, unk_token=words[0]))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=made, unk_token=words[0]).save_pretrained(str(folder))
    return folder


if __name__ == "__main__":
    from curate.training import train

    more = {"steps": int(sys.argv[3])} if len(sys.argv) > 3 else {}
    train(data(), spec(save_every=int(sys.argv[2]), **more), Path(sys.argv[1]))
