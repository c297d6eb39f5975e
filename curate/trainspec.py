"""The settings of a training, without the libraries that carry it out.

Settings that change what is learned are in the training's key; where and how often it is saved is not.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import msgspec

from curate.errors import ConfigError
from curate.schedule import Schedule, share_of

#: Settings that leave the result as it is: they may change between a training and its resumption.
FREE = ("save_every", "save_minutes", "keep_last", "tensorboard", "threads", "device", "peak_flops")
#: Settings that are places of something whose content is in the key.
PLACES = ("model", "branch_from")
#: What a branch may have otherwise than its trunk.
OF_A_BRANCH = ("steps", "epochs", "tokens", "schedule", "decay_ratio", "final_ratio", "save_at", *FREE)
#: The peak learning rate where none is given, by what is trained.
RATES = {"scratch": 1e-3, "full": 2e-5, "adapter": 2e-4}


class ForgettingSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A fixed general sample on which the tuned model's predictions are held against the base model's."""

    texts: str | list[str]  # files with a text column, jsonl or parquet
    text: str = "text"
    documents: int = 64  # the first so many that are not empty
    every: int | None = None  # steps between measurements; by default after the last only

    def __post_init__(self) -> None:
        if self.documents < 1 or (self.every is not None and self.every < 1):
            raise ConfigError("expected documents and every of at least 1")


class TrainSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a model is trained on the mixture (docs/train.md)."""

    model: str = "small"  # the embedded small Llama-style model, from scratch, or a Hugging Face folder
    scratch: bool = False  # of a folder: its configuration only, with fresh weights
    config: dict[str, Any] = {}  # settings of a fresh model's configuration: hidden_size, num_hidden_layers, ...
    method: str = "full"  # or lora, dora, rslora, adalora, ia3, qlora, or any other peft type
    adapter: dict[str, Any] = {}  # parameters of the peft configuration: r, lora_alpha, target_modules, ...
    merge: bool = False  # write the adapter merged into its base
    train: list[str] = []  # patterns (fnmatch) of the parameters to train; empty: all
    freeze: list[str] = []  # patterns of the parameters to leave, after `train`
    epochs: float = 1.0
    steps: int | None = None  # instead of epochs
    tokens: int | None = None  # instead of epochs: places of sequences, padding included
    batch_tokens: int = 8192  # the global batch, in places of sequences
    micro_batch: int = 4  # sequences in one forward pass of a device
    learning_rate: float | None = None
    schedule: Schedule = "cosine"
    warmup_ratio: float = 0.03
    decay_ratio: float = 0.2  # wsd
    final_ratio: float = 0.0  # the last rate over the peak
    weight_decay: float = 0.1  # of matrices; never of norms and biases
    beta1: float = 0.9
    beta2: float = 0.95
    epsilon: float = 1e-8
    clip_norm: float | None = 1.0
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    attention: Literal["sdpa", "eager", "flash_attention_2"] = "sdpa"
    compile: bool = False
    checkpoint_activations: bool = False
    shuffle: bool | None = None  # None: unless the data have an order of their own
    seed: int | None = None  # by default the recipe's
    save_every: int | None = None  # steps
    save_minutes: float | None = 10.0
    save_at: list[int] = []  # checkpoints after so many steps, kept for good
    keep_last: int = 1
    branch_from: str | None = None  # a checkpoint's folder: go on from there with this schedule
    blow_up: float | None = 3.0  # nats above the lowest mean loss of 20 steps
    forgetting: ForgettingSpec | None = None
    tensorboard: bool = False
    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: int | None = None
    peak_flops: float | None = None  # the device's dense bf16 peak, where its name is not known

    def __post_init__(self) -> None:
        wrong = [problem for problem in _problems(self) if problem]
        if wrong:
            raise ConfigError("; ".join(wrong))

    def determining(self) -> dict[str, Any]:
        """The settings that determine what is learned, as plain values; of a model or a checkpoint its hash does, not its place."""
        return {name: value for name, value in msgspec.to_builtins(self).items() if name not in (*FREE, *PLACES)}

    def peak_rate(self) -> float:
        """The peak learning rate."""
        if self.learning_rate is not None:
            return self.learning_rate
        return RATES["adapter" if self.method != "full" else "scratch" if self.fresh() else "full"]

    def fresh(self) -> bool:
        """Whether training starts from random weights."""
        return self.scratch or self.model == "small"

    def sequences(self, pool: int, length: int) -> int:
        """How many sequences are trained on in all, of a pool of `pool` sequences of `length` tokens."""
        if self.steps is not None:
            return self.steps * self.batch_sequences(length)
        if self.tokens is not None:
            return max(1, -(-self.tokens // length))
        return max(1, share_of(self.epochs, pool))

    def batch_sequences(self, length: int) -> int:
        """How many sequences make a global batch; ConfigError where `batch_tokens` is no multiple of the length."""
        if self.batch_tokens % length:
            below = self.batch_tokens // length * length
            near = f"{below} or {below + length}" if below else str(length)
            raise ConfigError(f"train.batch_tokens: expected a multiple of the sequence length {length}, got {self.batch_tokens}; write {near}")
        return self.batch_tokens // length

    def total_steps(self, pool: int, length: int) -> int:
        """Optimizer steps; the last may be of fewer sequences, so that an epoch is every sequence once."""
        return -(-self.sequences(pool, length) // self.batch_sequences(length))


def _problems(spec: TrainSpec) -> list[str | None]:
    least_one = ("batch_tokens", "micro_batch", "keep_last", "steps", "tokens", "save_every", "threads")
    shares = ("warmup_ratio", "decay_ratio", "final_ratio", "beta1", "beta2")
    above_zero = ("epochs", "learning_rate", "epsilon", "clip_norm", "save_minutes", "blow_up", "peak_flops")

    def outside(names: tuple[str, ...], fits: Any, what: str) -> list[str | None]:
        values = {name: getattr(spec, name) for name in names}
        return [f"expected {name} {what}, got {value}" for name, value in values.items() if value is not None and not fits(value)]

    return [
        *outside(least_one, lambda v: v >= 1, "of at least 1"),
        *outside(shares, lambda v: 0 <= v <= 1, "from 0 to 1"),
        *outside(above_zero, lambda v: 0 < v < math.inf, "above 0"),
        *outside(("weight_decay",), lambda v: 0 <= v < math.inf, "of at least 0"),
        "expected steps or tokens, not both" if spec.steps is not None and spec.tokens is not None else None,
        "expected save_at of steps from 1" if any(step < 1 for step in spec.save_at) else None,
        "config is for a fresh model: write scratch: true, or leave it out" if spec.config and not spec.fresh() else None,
        "an adapter needs a trained base: name its folder under model" if spec.method != "full" and spec.fresh() else None,
        "adapter is for a method other than full" if spec.adapter and spec.method == "full" else None,
        "merge is for a method other than full" if spec.merge and spec.method == "full" else None,
        "a merge into 4 bits would round the adapter away: leave merge out with qlora" if spec.merge and spec.method.lower() == "qlora" else None,
        "forgetting needs a trained base to hold against: name a folder under model" if spec.forgetting and spec.fresh() else None,
    ]
