"""CoLoR-Filter: how much better a model that has seen the target predicts a document than one that has not.

    color_filter(x) = mean loss of x's tokens under `prior` - under `conditional`          in nats a token; larger is better

Brandfonbrener et al. 2024, CoLoR-Filter: Conditional Loss Reduction Filtering. The two models are trained by the recipe
(curate.modelpair), or their losses are columns of earlier `lm` stages. Selecting the largest is `select` with `by: color_filter,
how: top_k` and a budget of 1/tau of the documents.
"""

from __future__ import annotations

import atexit
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curate import language_model as lm
from curate import modelpair, randomness
from curate.errors import ConfigError
from curate.registry import register
from curate.stage import REASON, TEXT, TEXT_HASH, VALUE, Context, measure
from curate.trainspec import TrainSpec

#: What is kept of a part's documents: those that draw lowest, with their texts.
PARTIAL = pa.schema([("draw", pa.uint64()), ("hash", pa.binary(16)), ("text", pa.large_string())])
OTHER_TOKENS, NO_LOSS = "the models cut it into different tokens", "no loss of one of the models"
#: The embedded pair: 1.2 million parameters with its embedding, minutes on one core.
SMALL = {"hidden_size": 128, "intermediate_size": 344, "num_hidden_layers": 3, "num_attention_heads": 4, "max_position_embeddings": 512}


class ColorFilterParams(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """With `prior` and `conditional`, labels of two `lm` stages, nothing is trained; `train` and `tune` are settings of `train`."""

    prior: str | None = None
    conditional: str | None = None
    sample: int = 3000
    vocabulary: int = 4096
    sequence_length: int = 256
    train: dict[str, Any] = {}
    tune: dict[str, Any] = {}
    max_tokens: int | None = 1024
    state: Literal["refit", "frozen"] = "refit"

    def __post_init__(self) -> None:
        if (self.prior is None) != (self.conditional is None):
            raise ConfigError("expected prior and conditional, or neither: with neither the pair is trained here")
        if self.prior is not None and self.prior == self.conditional:
            raise ConfigError(f"expected prior and conditional as two stages, got {self.prior!r} for both: every score would be 0")
        if self.sample < 2 or self.vocabulary < 300 or self.sequence_length < 8:
            raise ConfigError(
                f"expected sample of 2 or more, vocabulary of 300 or more, sequence_length of 8 or more, got {self.sample}, {self.vocabulary}, {self.sequence_length}"
            )
        if self.max_tokens is not None and self.max_tokens < 1:
            raise ConfigError(f"expected max_tokens of 1 or more (null: all), got {self.max_tokens}")

    def pair(self, seed: int) -> modelpair.Pair:
        """How the models are made; raises ConfigError for settings that cannot be."""
        given = modelpair.settings(self.train, "train")
        size = {**SMALL, "max_position_embeddings": max(512, self.sequence_length), **given.pop("config", {})}
        batch = 16 * self.sequence_length
        prior = msgspec.convert({"epochs": 2.0, "batch_tokens": batch, **given, "config": size}, TrainSpec)
        tune = {"epochs": 4.0, "batch_tokens": batch, "learning_rate": 3e-4, **modelpair.settings(self.tune, "tune")}
        msgspec.convert({**tune, "model": "elsewhere"}, TrainSpec)
        return modelpair.Pair(seed=seed, vocabulary=self.vocabulary, length=self.sequence_length, prior=prior, conditional=tune)


@register("color_filter")
class ColorFilter:
    """Adds `color_filter` (float64), or one for each target, null with a reason where a loss is missing."""

    version = 1
    Params = ColorFilterParams
    scores = True
    tolerance = lm.TOLERANCE

    def __init__(self, params: ColorFilterParams, context: Context) -> None:
        self.params = params
        self.trained = params.prior is None
        self.frozen = params.state == "frozen"
        self.uses_seed = self.uses_targets = self.trained
        self.names = [target.name for target in context.targets]
        if self.trained:
            if not self.names:
                raise ConfigError("color_filter trains a pair of models and needs a target: --target FILE, or in a recipe targets: {maths: {guide: [guide.jsonl]}}")
            try:
                self._pair = params.pair(context.seed)
            except msgspec.ValidationError as error:
                raise ConfigError(f"train, tune: {error}") from error
        self._stream = randomness.stream(context.seed, context.label, "sample")
        self._loaded: tuple[pa.Table | None, dict[tuple[int, str], lm.LanguageModel]] = (None, {})

    def verbs(self) -> tuple[str, ...]:
        return ("fit", "apply") if self.trained else ("apply",)

    def extra_key(self) -> str:
        """The libraries that train, and read, the models."""
        return lm.library() if self.trained else ""

    # -- the sample, and the models ---------------------------------------------------------------------------------

    def fit_reads(self) -> list[str]:
        return [TEXT, TEXT_HASH]

    def fit_part(self, batches: Iterator[pa.RecordBatch]) -> pa.Table:
        """The part's documents that draw lowest, each text once: the draw is a function of the text and the seed."""
        found = PARTIAL.empty_table()
        for batch in batches:
            hashes = batch.column(1).cast(pa.binary(16))
            draws = randomness.bits(randomness.keys_of(pa.array([h.hex() for h in hashes.to_pylist()], pa.string())), self._stream)
            own = pa.table([pa.array(draws, pa.uint64()), hashes, batch.column(0).cast(pa.large_string())], schema=PARTIAL)
            found = self._lowest([found, own])
        return found

    def _lowest(self, tables: Sequence[pa.Table]) -> pa.Table:
        """The `sample` rows of all tables that drew lowest, without copies, in the order of the draw and the hash."""
        table = pa.concat_tables(tables).combine_chunks()
        order = pc.sort_indices(table, [("draw", "ascending"), ("hash", "ascending")])
        table = table.take(order)
        hashes = table["hash"].to_pylist()
        first = [i for i, h in enumerate(hashes) if i == 0 or h != hashes[i - 1]][: self.params.sample]
        return table.take(pa.array(first, pa.int64()))

    def merge(self, partials: Sequence[pa.Table]) -> pa.Table:
        return self._lowest(partials)

    def close(self, merged: pa.Table | None, targets: Mapping[str, pa.ChunkedArray]) -> pa.Table:
        """Train the priors on the sample's halves and continue them on the guides: curate.modelpair.MODELS, none where losses are given."""
        if merged is None:
            return modelpair.MODELS.empty_table()
        sample = list(zip(merged["hash"].to_pylist(), merged["text"].to_pylist(), strict=True))
        return self._pair.train(sample, {name: targets[name].to_pylist() for name in self.names})

    def _models(self, state: pa.Table) -> dict[tuple[int, str], lm.LanguageModel]:
        """The models of a state, made once and kept until another state comes."""
        if self._loaded[0] is not state:
            place = Path(tempfile.mkdtemp(prefix="curate-color-filter-"))
            atexit.register(shutil.rmtree, place, ignore_errors=True)
            found = {}
            for number, (fold, name) in enumerate((f, n) for f in range(modelpair.FOLDS) for n in (modelpair.PRIOR, *self.names)):
                found[fold, name] = lm.LanguageModel(modelpair.unpack(state, fold, name, place / str(number)), "auto", "fp32")
            shutil.rmtree(place, ignore_errors=True)
            self._loaded = (state, found)
        return self._loaded[1]

    # -- the score --------------------------------------------------------------------------------------------------

    def reads(self) -> list[str]:
        if self.trained:
            return [TEXT, TEXT_HASH]
        return [name for label in (self.params.prior, self.params.conditional) if label is not None for name in (label, f"{label}_tokens")]

    def fields(self) -> pa.Schema:
        names = [VALUE] if not self.trained or len(self.names) == 1 else self.names
        return pa.schema([*(measure(name, pa.float64(), means="score", larger_is_better=True) for name in names), (REASON, pa.string())])

    def apply(self, state: pa.Table | None, batch: pa.RecordBatch) -> pa.RecordBatch:
        if not self.trained or state is None:
            return self._of_columns(batch)
        models = self._models(state)
        texts = batch.column(0).to_pylist()
        folds = modelpair.fold_of(batch.column(1))
        means: dict[str, Any] = {name: np.full(len(texts), np.nan) for name in (modelpair.PRIOR, *self.names)}
        with lm.one_thread():
            for fold in range(modelpair.FOLDS):
                rows = np.flatnonzero(folds == fold)
                tokens = models[fold, modelpair.PRIOR].tokens([texts[i] for i in rows])
                for name, mean in means.items():
                    found = models[fold, name].losses([([], own) for own in tokens], context=self.params.sequence_length, max_tokens=self.params.max_tokens)
                    mean[rows] = [item.nll.mean() if len(item.nll) else np.nan for item in found]
        none = np.isnan(means[modelpair.PRIOR])
        scores = [pa.array(means[modelpair.PRIOR] - means[name], mask=none) for name in self.names]
        reason = pc.if_else(pa.array(none), "no token to score", pa.scalar(None, pa.string()))
        return pa.record_batch([*scores, reason], schema=self.fields())

    def _of_columns(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        prior, of_prior, conditional, of_conditional = batch.columns
        score = pc.subtract(prior, conditional)
        same = pc.fill_null(pc.equal(of_prior, of_conditional), True)
        reason = pc.if_else(pc.is_null(score), NO_LOSS, pa.scalar(None, pa.string()))
        reason = pc.if_else(pc.or_(same, pc.is_null(score)), reason, OTHER_TOKENS)
        return pa.record_batch([pc.if_else(same, score, pa.scalar(None, pa.float64())), reason], schema=self.fields())


