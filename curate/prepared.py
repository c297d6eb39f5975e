"""A training before its first step: data, model and settings checked against each other, and the key that names it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from curate import checkpoint, models
from curate.errors import ConfigError
from curate.packed import Sequences
from curate.store import digest
from curate.trainspec import TrainSpec

#: Of the loop: a change that changes what is learned raises it.
VERSION = 1


class Begun(msgspec.Struct, frozen=True, kw_only=True):
    """training.json: what the folder's training is, and what was chosen for it once."""

    key: str
    settings: dict[str, Any]
    data: str
    model: str
    seed: int
    precision: models.Precision
    threads: int
    versions: dict[str, str]


@dataclass(frozen=True)
class Prepared:
    """A training whose parts fit each other."""

    data: Sequences
    spec: TrainSpec
    seed: int
    loaded: models.Loaded
    key: str
    versions: dict[str, str]

    @property
    def steps(self) -> int:
        return self.spec.total_steps(len(self.data), self.data.sequence_length)


def versions() -> dict[str, str]:
    """The libraries that determine a training's numbers."""
    import importlib.metadata

    return {name: importlib.metadata.version(name) for name in ("torch", "transformers", "peft")}


def prepare(data: Sequences, spec: TrainSpec, *, seed: int = 0, base: Path = Path()) -> Prepared:
    """Load or build the model and check it against the data; raises ConfigError with what to do."""
    seed = spec.seed if spec.seed is not None else seed
    if len(data) == 0:
        raise ConfigError("the mixture is empty: there is no sequence to train on; loosen the selection or its budget")
    spec.batch_sequences(data.sequence_length)
    if spec.fresh():
        folder = None if spec.model == "small" else base / spec.model
        loaded = models.build_model(data.vocab_size, seed=seed, config=spec.config, folder=folder, attention=spec.attention)
    else:
        if (base / spec.model / "adapter_config.json").is_file():
            raise ConfigError(f"{base / spec.model} is an adapter, and what is trained on it would be saved without it; train it with merge: true, and go on from that")
        loaded = models.load_model(base / spec.model, attention=spec.attention, quantize=spec.method.lower() == "qlora", adapter=False)
        _same_tokenizer(base / spec.model, data)
    longest, length = models.context_of(loaded.model), data.sequence_length
    if longest is not None and length > longest:
        raise ConfigError(f"sequences of {length} tokens are longer than the model's context of {longest}; tokenize with sequence_length: {longest}")
    if loaded.model.config.vocab_size < data.vocab_size:
        raise ConfigError(f"the tokenizer has {data.vocab_size} tokens and the model {loaded.model.config.vocab_size}; tokenize with the model's own")
    with models.on_processor(loaded.model):
        apart = models.crossing(loaded.model, data.vocab_size)
    if not apart <= models.TOLERANCE:
        raise ConfigError(
            f"{spec.model}: this model's predictions for a document change by {apart:.2g} of the largest logit when another stands before it; "
            "it does not keep packed documents apart and cannot be trained on them"
        )
    known = versions()
    trunk = checkpoint.read_state(base / spec.branch_from) if spec.branch_from else None
    left = (trunk.key, trunk.step) if trunk is not None else None
    key = digest("train", VERSION, spec.determining(), data.key, loaded.fingerprint, seed, known, left)
    return Prepared(data, spec, seed, loaded, key, known)


def _same_tokenizer(folder: Path, data: Sequences) -> None:
    if data.tokenizer is None or not any((folder / name).is_file() for name in models.TOKENIZER_FILES):
        return
    here, there = models.tokenizer_fingerprint(folder), models.tokenizer_fingerprint(data.tokenizer)
    if here != there:
        raise ConfigError(
            f"the tokenizer of {folder} ({here[:8]}) is not the one that made the sequences ({there[:8]}); tokenize the mixture with {folder}"
        )


def differences(begun: Begun, prepared: Prepared) -> str:
    """What a folder's training has otherwise than one that was asked for."""
    settings = prepared.spec.determining()
    other = [f"{n}: {begun.settings.get(n)!r} there, {v!r} here" for n, v in settings.items() if begun.settings.get(n) != v]
    for what, there, here in (
        ("data", begun.data, prepared.data.key), ("model", begun.model, prepared.loaded.fingerprint), ("seed", begun.seed, prepared.seed),
        ("libraries", begun.versions, prepared.versions),
    ):  # fmt: skip
        if there != here:
            other.append(f"{what}: {there} there, {here} here")
    return "; ".join(other)
