"""Small models that a recipe trains for itself: priors on a sample of the pool, conditionals continued on a guide.

A document must not be scored by a prior that was trained on it, so there are two, each trained on one half of the sample: the
halves are by the hash of the text, and a document is scored by the prior of the half that is not its own. For each target
both are continued on all of its guide. A model travels as the files of its Hugging Face folder.

Everything is drawn from the seed, computed on one core in fp32, and so the same for any number of workers; another
processor or another version of torch may give other last bits, and then other losses.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from curate import randomness
from curate.errors import ConfigError, DataError
from curate.packed import MemorySequences
from curate.trainspec import TrainSpec

FOLDS = 2
BOS = "<s>"
#: A table of models: the fold, `prior` or the target's name, and a folder's files.
MODELS = pa.schema([("fold", pa.int64()), ("name", pa.string()), ("file", pa.string()), ("content", pa.large_binary())])
PRIOR = ""


def fold_of(hashes: pa.Array) -> npt.NDArray[np.int64]:
    """The half of each text, 0 or 1: the lowest bit of its hash's first byte."""
    return np.array([h[0] & 1 for h in hashes.to_pylist()], np.int64)


def tokenizer(texts: Sequence[str], vocabulary: int, folder: Path) -> Any:
    """A byte-level BPE trained on the texts, saved in a folder; any text can be cut with it."""
    import tokenizers
    import transformers

    made = tokenizers.Tokenizer(tokenizers.models.BPE())
    made.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=vocabulary, special_tokens=[BOS], initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    made.train_from_iterator(texts, trainer)
    fast: Any = transformers.PreTrainedTokenizerFast
    whole = fast(tokenizer_object=made, bos_token=BOS)
    whole.save_pretrained(str(folder))
    return whole


def pack(tokens: Sequence[tuple[str, Sequence[int]]], first: int, length: int) -> Iterator[list[tuple[str, list[int]]]]:
    """Fill sequences of `length` with documents in the order given, each behind `first`.

    A longer one goes on in the next, which begins with its last token once more: what stands first in a document's piece is
    not learned, and so each token is, once.
    """
    sequence: list[tuple[str, list[int]]] = []
    room = length
    for identity, own in tokens:
        left = [first, *own]
        while len(left) > 1:
            if room < 2:
                yield sequence
                sequence, room = [], length
            sequence.append((identity, left[:room]))
            taken = len(sequence[-1][1])
            room, left = room - taken, left[taken - 1 :]
    if sequence:
        yield sequence


class Pair:
    """How the models are made: settings of the two trainings, and the sizes of what they see."""

    def __init__(self, *, seed: int, vocabulary: int, length: int, prior: TrainSpec, conditional: Mapping[str, Any]) -> None:
        self.seed, self.vocabulary, self.length, self.prior, self.conditional = seed, vocabulary, length, prior, dict(conditional)

    def train(self, sample: Sequence[tuple[bytes, str]], guides: Mapping[str, Sequence[str]]) -> pa.Table:
        """All models for a sample of (hash, text) and the guides' texts: MODELS. Raises DataError for a half without a text."""
        order = randomness.stream(self.seed, "modelpair", "order")
        drawn = sorted(sample, key=lambda row: (int(randomness.bits(randomness.keys_of(pa.array([row[0].hex()])), order)[0]), row[0]))
        rows: list[dict[str, Any]] = []
        with tempfile.TemporaryDirectory(prefix="curate-modelpair-") as place:
            base = Path(place)
            cutter = tokenizer([text for _, text in drawn], self.vocabulary, base / "tokenizer")
            for fold in range(FOLDS):
                texts = [(h.hex(), text) for h, text in drawn if h[0] & 1 != fold]
                if not any(text for _, text in texts):
                    raise DataError("the sample's halves by hash: one holds no text, so nothing can be scored without having been trained on; name a larger sample")
                prior = self._trained(self._data(texts, cutter, base), self.prior, base / f"prior-{fold}")
                rows += _files(fold, PRIOR, prior)
                for number, (name, guide) in enumerate(guides.items()):
                    data = self._data([(str(i), text) for i, text in enumerate(sorted(guide))], cutter, base)
                    spec = self._continued(prior)
                    rows += _files(fold, name, self._trained(data, spec, base / f"conditional-{fold}-{number}"))
        return pa.Table.from_pylist(rows, schema=MODELS)

    def _continued(self, prior: Path) -> TrainSpec:
        return TrainSpec(**{"model": str(prior), **FIXED, **self.conditional})

    def _data(self, texts: Sequence[tuple[str, str]], cutter: Any, base: Path) -> MemorySequences:
        tokens = cutter([text for _, text in texts], add_special_tokens=False, verbose=False)["input_ids"] if texts else []
        packed = list(pack(list(zip([name for name, _ in texts], tokens, strict=True)), cutter.bos_token_id, self.length))
        if not packed:
            raise DataError("a guide, or a half of the sample, holds no token to train on")
        return MemorySequences(packed, sequence_length=self.length, vocab_size=len(cutter), tokenizer=base / "tokenizer")

    def _trained(self, data: MemorySequences, spec: TrainSpec, folder: Path) -> Path:
        from curate import training

        return training.train(data, spec, folder, seed=self.seed).model


#: Settings of both trainings that are not for a recipe: the same numbers for any number of workers.
FIXED: dict[str, Any] = {"threads": 1, "precision": "fp32", "device": "cpu", "save_minutes": None, "tensorboard": False}


def settings(given: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Settings of a training as a recipe may write them; raises ConfigError for those that are fixed, and for wrong ones."""
    for name in (*FIXED, "model", "scratch", "method", "adapter", "merge", "branch_from", "forgetting"):
        if name in given:
            raise ConfigError(f"{where}.{name} cannot be set: these models are trained in full, on one core, in fp32")
    return {**FIXED, **given}


def _files(fold: int, name: str, folder: Path) -> list[dict[str, Any]]:
    """A model's folder as rows; not its manifest, which names versions and times of files."""
    return [
        {"fold": fold, "name": name, "file": path.name, "content": path.read_bytes()} for path in sorted(folder.iterdir()) if path.name != "manifest.json"
    ]


def unpack(models: pa.Table, fold: int, name: str, folder: Path) -> Path:
    """Write one model's files into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for row in models.to_pylist():
        if (row["fold"], row["name"]) == (fold, name):
            (folder / row["file"]).write_bytes(row["content"])
    return folder
