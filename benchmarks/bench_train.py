"""Training: trained non-padding tokens per second beside transformers.Trainer, with the same model, data, batch and best precision.

    python benchmarks/bench_train.py --pool POOL --json benchmarks/results/train.json    # a processor: 10 million parameters
    python benchmarks/bench_train.py --gpu --json benchmarks/results/train_gpu.json      # one CUDA device: 124M and 1B, 2,048 tokens

POOL is a folder of Parquet files with a column `text`. A tokenizer of 8,192 words is trained on it. For curate the documents are
packed into sequences; the peer gets the same documents three ways: a row each, padded to the longest of a batch; the same with
documents of like length in a batch; and packed as for curate. Seconds are CPU seconds of one thread on a processor and wall time
on a GPU, from the end of the first step to the end of the last. Before anything is timed, the loss of the first step on the packed
rows must be the same in both. On a GPU data are random tokens, one document to a sequence, and MFU is curate's own (docs/train.md).
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import measure
import numpy as np
import pyarrow.dataset as ds

from curate import models
from curate.packed import MemorySequences, collate
from curate.training import Trained, train
from curate.trainspec import TrainSpec

STEPS = 6
Documents = list[list[int]]
Rows = list[dict[str, list[int]]]


@dataclass(frozen=True)
class Work:
    """What both are given: `rows` sequences of `length` tokens make a batch, `micro` of them a forward pass."""

    config: dict[str, int]
    words: int
    length: int
    rows: int
    micro: int
    device: str = "cpu"

    def clock(self) -> float:
        return time.process_time() if self.device == "cpu" else time.perf_counter()

    def fresh(self) -> Any:
        return models.build_model(self.words, seed=0, config=self.config).model


#: Ten layers of the embedded default's width: 2.1 million of embedding, 7.9 million of layers.
TEN_MILLION = Work({"num_hidden_layers": 10}, 8192, 512, 8, 8)
ON_GPU = {
    "124M": Work(
        {"hidden_size": 768, "intermediate_size": 2048, "num_hidden_layers": 12, "num_attention_heads": 12, "num_key_value_heads": 12},
        50304, 2048, 64, 16, "cuda",
    ),
    "1B": Work(
        {"hidden_size": 2048, "intermediate_size": 5632, "num_hidden_layers": 18, "num_attention_heads": 16, "num_key_value_heads": 16},
        50304, 2048, 32, 4, "cuda",
    ),
}  # fmt: skip


def main() -> None:
    """Measure and write."""
    words = argparse.ArgumentParser()
    words.add_argument("--pool", type=Path)
    words.add_argument("--gpu", action="store_true")
    words.add_argument("--json", type=Path, required=True)
    given = words.parse_args()
    about = measure.about()
    result = {"about": about, **({name: on_gpu(work) for name, work in ON_GPU.items()} if given.gpu else on_processor(given.pool, TEN_MILLION))}
    given.json.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


def on_processor(pool: Path, work: Work) -> dict[str, Any]:
    """Ten million parameters on one thread."""
    import torch

    torch.set_num_threads(1)
    documents = tokenized(pool, work, (STEPS + 2) * work.rows * work.length)
    data = packed(documents, work)
    mean = statistics.fmean(map(len, documents))
    batch = round(work.rows * work.length / mean)  # as many tokens in a batch of documents as in one of sequences
    groups = [sorted(documents, key=len)[i : i + batch] for i in range(0, len(documents), batch)]
    like = [d for i in np.random.default_rng(0).permutation(len(groups)).tolist() for d in groups[i]]
    ours, theirs = first_losses(data, work)
    assert math.isclose(ours, theirs, rel_tol=1e-4), (ours, theirs)
    ways: dict[str, Callable[[str, int], float]] = {
        "curate": lambda p, n: of_curate(data, work, p, n)[0],
        "Trainer, padded": lambda p, n: of_trainer(as_rows(documents), work, batch, p, n)[0],
        "Trainer, padded, like lengths together": lambda p, n: of_trainer(as_rows(like), work, batch, p, n)[0],
        "Trainer, packed": lambda p, n: of_trainer(as_packed(data), work, work.rows, p, n)[0],
    }
    found = {}
    for name, way in ways.items():
        tried = {p: way(p, 2) for p in ("fp32", "bf16")}
        best = max(tried, key=lambda p: tried[p])
        found[name] = {"tried": {p: round(v, 1) for p, v in tried.items()}, "precision": best, "tokens_per_second": round(way(best, STEPS), 1)}
    own = found["curate"]["tokens_per_second"]
    return {
        "threads": 1, "parameters": sum(p.numel() for p in work.fresh().parameters()), "sequence_length": work.length,
        "batch_tokens": work.rows * work.length, "documents": len(documents), "mean_tokens": round(mean, 1), "documents_in_a_batch": batch,
        "packed_fill": round(sum(map(len, documents)) / len(data) / work.length, 4), "first_loss": {"curate": ours, "Trainer": theirs},
        "unit": "non-padding tokens per CPU second", "steps": STEPS, "found": found,
        "curate_over": {name: round(own / v["tokens_per_second"], 3) for name, v in found.items() if name != "curate"},
    }  # fmt: skip


def on_gpu(work: Work) -> dict[str, Any]:
    """One CUDA device, bf16."""
    import torch

    steps = 110
    tokens = np.random.default_rng(0).integers(0, work.words, (work.rows * (steps + 1), work.length))
    data = MemorySequences([[(str(i), row)] for i, row in enumerate(tokens)], sequence_length=work.length, vocab_size=work.words)
    plain, trained = of_curate(data, work, "bf16", steps)
    compiled, faster = of_curate(data, work, "bf16", steps, compiled=True)
    peer, _ = of_trainer(as_rows(tokens.tolist()), work, work.rows, "bf16", 30)
    peer_compiled, _ = of_trainer(as_rows(tokens.tolist()), work, work.rows, "bf16", 30, compiled=True)
    return {
        "device": torch.cuda.get_device_name(), "parameters": sum(p.numel() for p in work.fresh().parameters()), "sequence_length": work.length,
        "batch_tokens": work.rows * work.length, "tokens_per_second": {"curate": plain, "curate, compiled": compiled, "Trainer": peer, "Trainer, compiled": peer_compiled},
        "mfu": {"curate": trained.mfu, "curate, compiled": faster.mfu}, "curate_over_Trainer": max(plain, compiled) / max(peer, peer_compiled),
    }  # fmt: skip


def tokenized(pool: Path, work: Work, least: int) -> Documents:
    """The pool's first documents as tokens, cut at the sequence length, until there are enough."""
    from tokenizers import ByteLevelBPETokenizer

    texts = [t for t in ds.dataset(pool).head(20000, columns=["text"])["text"].to_pylist() if t]
    tokenizer = ByteLevelBPETokenizer()
    tokenizer.train_from_iterator(texts[:4000], vocab_size=work.words, show_progress=False)
    found: Documents = []
    total = 0
    for text in texts:
        found.append(tokenizer.encode(text).ids[: work.length])
        total += len(found[-1])
        if total >= least:
            return found
    raise SystemExit(f"{pool} has too few documents")


def packed(documents: Documents, work: Work) -> MemorySequences:
    """Best-fit decreasing: each document into the fullest sequence that has room; then shuffled."""
    bins: list[list[tuple[str, list[int]]]] = []
    room: list[int] = []
    for number, tokens in sorted(enumerate(documents), key=lambda d: -len(d[1])):
        at = min((i for i, r in enumerate(room) if r >= len(tokens)), key=lambda i: room[i], default=len(bins))
        if at == len(bins):
            bins.append([])
            room.append(work.length)
        bins[at].append((str(number), tokens))
        room[at] -= len(tokens)
    shuffled = [bins[i] for i in np.random.default_rng(0).permutation(len(bins)).tolist()]
    return MemorySequences(shuffled, sequence_length=work.length, vocab_size=work.words)


def of_curate(data: MemorySequences, work: Work, precision: str, steps: int, *, compiled: bool = False, losses: list[float] | None = None) -> tuple[float, Trained]:
    """Tokens per second of curate's loop, and what it trained."""
    ends: list[tuple[float, int]] = []

    def hear(event: dict[str, Any]) -> None:
        if event["event"] == "step":
            ends.append((work.clock(), event["tokens"]))
            if losses is not None:
                losses.append(event["loss"])

    spec = TrainSpec(
        config=work.config, batch_tokens=work.rows * work.length, micro_batch=work.micro, steps=steps + 1, precision=precision,  # type: ignore[arg-type]
        shuffle=False, threads=1 if work.device == "cpu" else None, device=work.device, save_minutes=None, schedule="constant",  # type: ignore[arg-type]
        warmup_ratio=0.0, compile=compiled,
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        trained = train(data, spec, Path(folder) / "t", listener=hear)
    return (ends[-1][1] - ends[0][1]) / (ends[-1][0] - ends[0][0]), trained


def as_rows(documents: Documents) -> Rows:
    """A row for each document."""
    return [{"input_ids": d, "labels": d} for d in documents]


def as_packed(data: MemorySequences) -> Rows:
    """Rows as curate has them, with positions; the peer shifts labels itself, so a document's first token has none."""
    rows = []
    for index in range(len(data)):
        batch = collate(data, np.array([index]), cut=False)
        labels = [-100, *batch.labels[0][:-1].tolist()]
        rows.append({"input_ids": batch.input_ids[0].tolist(), "position_ids": batch.position_ids[0].tolist(), "labels": labels})
        rows[-1]["used"] = [len(data.tokens(index))]
    return rows


def of_trainer(
    rows: Rows, work: Work, batch: int, precision: str, steps: int, *, compiled: bool = False, losses: list[float] | None = None
) -> tuple[float, None]:  # fmt: skip
    """Non-padding tokens per second of transformers.Trainer; rows in the given order, padded to the longest of a batch."""
    import torch
    import transformers

    accumulate = max(1, work.rows // work.micro) if work.device == "cuda" else 1
    passes = batch // accumulate
    ends: list[float] = []

    class Clock(transformers.TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, *_: Any, **__: Any) -> None:
            if work.device == "cuda":
                torch.cuda.synchronize()
            ends.append(work.clock())

        def on_log(self, *_: Any, logs: Any = None, **__: Any) -> None:
            if losses is not None and "loss" in logs:
                losses.append(logs["loss"])

    class InOrder(transformers.Trainer):  # type: ignore[misc]
        def _get_train_sampler(self, *_: Any) -> Any:
            return torch.utils.data.SequentialSampler(rows)

    def padded(chosen: Rows) -> dict[str, Any]:
        width = max(len(r["input_ids"]) for r in chosen)
        fill = {"input_ids": 0, "labels": -100, "position_ids": 0}
        found = {k: torch.tensor([r[k] + [fill[k]] * (width - len(r[k])) for r in chosen]) for k in fill if k in chosen[0]}
        if "position_ids" not in found:
            found["attention_mask"] = torch.tensor([[1] * len(r["input_ids"]) + [0] * (width - len(r["input_ids"])) for r in chosen])
        return found

    with tempfile.TemporaryDirectory() as folder:
        arguments = transformers.TrainingArguments(
            output_dir=folder, max_steps=steps + 1, per_device_train_batch_size=passes, gradient_accumulation_steps=accumulate, learning_rate=1e-3,
            lr_scheduler_type="constant", use_cpu=work.device == "cpu", bf16=precision == "bf16", optim="adamw_torch_fused", weight_decay=0.1,
            adam_beta2=0.95, max_grad_norm=1.0, report_to=[], save_strategy="no", logging_steps=1, logging_first_step=True, disable_tqdm=True,
            torch_compile=compiled, remove_unused_columns=False, dataloader_pin_memory=work.device == "cuda",
        )  # fmt: skip
        InOrder(model=work.fresh(), args=arguments, train_dataset=rows, data_collator=padded, callbacks=[Clock()]).train()
    used = [r.get("used", [len(r["input_ids"])])[0] for r in rows[batch : batch * (steps + 1)]]
    return sum(used) / (ends[-1] - ends[0]), None


def first_losses(data: MemorySequences, work: Work) -> tuple[float, float]:
    """The first step's loss of both on the same packed rows, in fp32."""
    ours: list[float] = []
    theirs: list[float] = []
    of_curate(data, work, "fp32", 1, losses=ours)
    of_trainer(as_packed(data), work, work.rows, "fp32", 1, losses=theirs)
    return ours[0], theirs[0]


if __name__ == "__main__":
    main()
