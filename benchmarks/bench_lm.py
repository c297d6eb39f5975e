"""Measure scoring by a language model, with a loop beside it that takes texts in the order of the file and pads them.

    python benchmarks/bench_lm.py [--pool FOLDER_OF_PARQUET] [--documents 1500] [--device cpu] [--json benchmarks/results/lm.json]

The model is a Llama of 10 million parameters with random weights and a tokenizer trained on the pool. Without --pool the
text is the source of Python's standard library. CPU seconds of one thread on a CPU, seconds on a GPU; the median of three.
Both must agree on every document before anything is timed.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sysconfig
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import measure
import numpy as np
import pyarrow.dataset as ds

from curate import language_model as lm

ROUNDS, CONTEXT, BATCH = 3, 512, 16


def read(pool: Path | None, documents: int) -> list[str]:
    """Documents in a fixed shuffled order."""
    if pool is not None:
        texts = [t for t in ds.dataset(pool).to_table(columns=["text"])["text"].to_pylist() if t]
    else:
        files = sorted(Path(sysconfig.get_paths()["stdlib"]).rglob("*.py"))
        texts = [f.read_text("utf-8", "ignore")[:4000] for f in files if "site-packages" not in f.parts]
    order = np.random.Generator(np.random.Philox(key=3)).permutation(len(texts))
    return [texts[i] for i in order[:documents]]


def make(folder: Path, texts: list[str]) -> None:
    """A model of 10 million parameters and its tokenizer."""
    import tokenizers
    import torch
    import transformers

    bpe = tokenizers.Tokenizer(tokenizers.models.BPE())
    bpe.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = tokenizers.trainers.BpeTrainer(vocab_size=8192, special_tokens=["<s>"], initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(), show_progress=False)
    bpe.train_from_iterator(texts, trainer)
    transformers.PreTrainedTokenizerFast(tokenizer_object=bpe, bos_token="<s>").save_pretrained(folder)
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=bpe.get_vocab_size(), hidden_size=320, intermediate_size=864, num_hidden_layers=6, num_attention_heads=5, num_key_value_heads=5,
        max_position_embeddings=CONTEXT, tie_word_embeddings=True,
    )  # fmt: skip
    transformers.LlamaForCausalLM(config).save_pretrained(folder)


def plain(model: lm.LanguageModel, rows: list[list[int]]) -> list[float]:
    """What one would write first: batches in the order of the file, padded to the longest, mean loss of each text."""
    import torch

    found = []
    for at in range(0, len(rows), BATCH):
        batch = [[model.first or 0, *row][:CONTEXT] for row in rows[at : at + BATCH]]
        width = max(map(len, batch))
        ids = torch.tensor([row + [0] * (width - len(row)) for row in batch], device=model.device)
        mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in batch], device=model.device)
        with torch.inference_mode():
            logits = model.model(input_ids=ids, attention_mask=mask, use_cache=False).logits[:, :-1].float()
            losses = torch.nn.functional.cross_entropy(logits.transpose(1, 2), ids[:, 1:], reduction="none") * mask[:, 1:]
        found += (losses.sum(1) / mask[:, 1:].sum(1)).tolist()
    return found


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("--pool", type=Path)
    words.add_argument("--documents", type=int, default=1500)
    words.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    words.add_argument("--json", type=Path)
    given = words.parse_args()
    texts = read(given.pool, given.documents)
    clock = time.process_time if given.device == "cpu" else time.perf_counter

    def seconds(work: Callable[[], Any]) -> float:
        times = []
        for _ in range(ROUNDS):
            started = clock()
            work()
            times.append(clock() - started)
        return statistics.median(times)

    with tempfile.TemporaryDirectory() as folder, lm.one_thread():
        make(Path(folder), texts)
        model = lm.LanguageModel(Path(folder), given.device, "fp32")
        rows = [row[: CONTEXT - 1] for row in model.tokens(texts)]
        pairs: list[tuple[list[int], list[int]]] = [([], row) for row in rows]
        ours, theirs = [float(f.nll.mean()) for f in model.losses(pairs)], plain(model, rows)
        furthest = max(abs(a / b - 1) for a, b in zip(ours, theirs, strict=True))
        if furthest > lm.TOLERANCE:
            raise SystemExit(f"the two differ by {furthest}")
        own, other = seconds(lambda: model.losses(pairs)), seconds(lambda: plain(model, rows))
    tokens = sum(map(len, rows))
    result = {
        "about": measure.about(), "device": given.device, "documents": len(texts), "tokens": tokens, "parameters": model.model.num_parameters(),
        "largest_relative_difference": furthest, "tokens_per_second": tokens / own, "file_order_tokens_per_second": tokens / other, "times": other / own,
    }  # fmt: skip
    print(json.dumps(result, indent=1))
    if given.json:
        given.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
