"""DSIR: importance weights from hashed n-grams (Xie et al. 2023, Data Selection for Language Models via Importance Resampling).

log w(x) = sum over the n-grams g of x of ln(p_target(h(g)) + 1e-8) - ln(p_pool(h(g)) + 1e-8), with p the shares of
hashed n-grams of orders 1..n in the target's guide and in the documents still kept when the stage is reached. A sum:
long documents have weights far from zero. Larger is nearer to the target. The kernels are in native/.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curate import ngrams, randomness
from curate.errors import ConfigError, DataError
from curate.registry import register
from curate.stage import KEY, REASON, TEXT, VALUE, Context, measure

#: Added to every share after normalisation, as the authors' code has it.
EPSILON = 1e-8
#: Cells of the sample by identity: cell i holds a 2^-(i+1) share of the documents, the last one the rest.
CELLS = 33


class DsirParams(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All of these are honoured when fitting and when scoring.

    `fit` is "all", or a number of n-grams: then the pool's shares come from a sample of documents drawn by identity,
    halved as often as it can be without holding fewer. `state: frozen` keeps the first fit of a run folder when the
    corpus grows. `length_normalise` divides by the number of n-grams; it is not DSIR any more, and off.
    """

    ngrams: int = 2
    buckets: int = 10_000
    hash: Literal["mix64", "sha256"] = "mix64"
    tokenizer: Literal["wordpunct", "chars"] = "wordpunct"
    char_class: Literal["re", "regex"] = "re"
    laplace: float = 0.0
    min_tokens: int = 0
    fit: Literal["all"] | int = "all"
    length_normalise: bool = False
    state: Literal["refit", "frozen"] = "refit"

    def __post_init__(self) -> None:
        if not 1 <= self.ngrams <= 8:
            raise ConfigError(f"expected ngrams from 1 to 8, got {self.ngrams}")
        if not 1 <= self.buckets <= 2**31 - 1:
            raise ConfigError(f"expected buckets from 1 to 2^31 - 1, got {self.buckets}")
        if not 0 <= self.laplace < float("inf"):
            raise ConfigError(f"expected laplace of 0 or more, got {self.laplace}")
        if self.min_tokens < 0:
            raise ConfigError(f"expected min_tokens of 0 or more, got {self.min_tokens}")
        if self.fit != "all" and self.fit < 1:
            raise ConfigError(f"expected fit: all, or a number of n-grams of at least 1, got {self.fit}")


@register("dsir")
class Dsir:
    """Adds `dsir` (float64, a log weight, larger is nearer to the target), or `dsir_<target>` for each of several."""

    version = 1
    Params = DsirParams
    keyless_params = ("state",)
    uses_targets = True
    scores = True

    def __init__(self, params: DsirParams, context: Context) -> None:
        if not context.targets:
            raise ConfigError(
                "dsir needs a target: --target FILE, or in a recipe targets: {maths: {guide: [guide.jsonl]}}"
            )
        self.params = params
        self.spec = ngrams.NgramSpec(
            ngrams=params.ngrams, buckets=params.buckets, hash=params.hash, tokenizer=params.tokenizer,
            char_class=params.char_class, min_tokens=params.min_tokens,
        )  # fmt: skip
        self.names = [t.name for t in context.targets]
        self.frozen = params.state == "frozen"
        self.uses_seed = params.fit != "all"
        self._stream = randomness.stream(context.seed, "dsir", "fit")
        self._notes: list[str] = []
        self._ratio: tuple[pa.Table | None, np.ndarray] = (None, np.empty((0, 0)))

    def fit_reads(self) -> list[str]:
        return [TEXT, KEY]

    def fit_part(self, batches: Iterator[pa.RecordBatch]) -> pa.Table:
        """Count the part's n-grams: one int64 column per cell of the sample, a row per bucket."""
        cells = 1 if self.params.fit == "all" else CELLS
        counts = np.zeros((cells, self.params.buckets), np.int64)
        for batch in batches:
            cell = None if cells == 1 else self._cells(batch.column(KEY))
            counts += ngrams.count(batch.column(TEXT), self.spec, cell=cell, cells=cells)
        return pa.table({f"cell_{i}": row for i, row in enumerate(counts)})

    def _cells(self, keys: pa.Array) -> np.ndarray:
        """How often a document is halved away: the leading zeros of random bits keyed by its identity."""
        drawn = randomness.bits(keys.to_numpy(), self._stream)
        zeros = np.zeros(len(drawn), np.uint8)
        for bit in range(1, CELLS):
            zeros += drawn < np.uint64(1 << (64 - bit))
        return zeros

    def merge(self, partials: Sequence[pa.Table]) -> pa.Table:
        """Add counts."""
        first = partials[0]
        return pa.table(
            {n: sum((p[n].to_numpy() for p in partials[1:]), first[n].to_numpy()) for n in first.schema.names}
        )

    def close(self, merged: pa.Table, targets: Mapping[str, pa.ChunkedArray]) -> pa.Table:
        """The log ratio of shares, a float64 column per target, a row per bucket; the counts beside it."""
        pool = self._sampled(merged)
        if pool.sum() == 0:
            raise DataError(
                "dsir: the documents still kept hold no n-gram to fit on (all empty, or below min_tokens)"
            )
        log_pool = np.log(pool / pool.sum() + EPSILON)
        columns = {"pool": pool}
        self._notes = []
        for name in self.names:
            counts = ngrams.count(targets[name], self.spec)[0]
            self._warn_of_a_small_guide(name, int(counts.sum()))
            if counts.sum() == 0:
                raise DataError(
                    f"dsir: the guide of target {name!r} holds no n-gram (empty texts, or all below min_tokens)"
                )
            shares = (counts + self.params.laplace) / (
                counts.sum() + self.params.laplace * self.params.buckets
            )
            columns[f"target_{name}"] = counts
            columns[f"log_ratio_{name}"] = np.log(shares + EPSILON) - log_pool
        return pa.table(columns)

    def _warn_of_a_small_guide(self, name: str, count: int) -> None:
        """A bucket that the guide never fills weighs ln(1e-8) or so: with few n-grams that noise outweighs all else."""
        if count < self.params.buckets and self.params.laplace == 0:
            self._notes.append(
                f"warning: the guide of target {name!r} has {count:,} n-grams for {self.params.buckets:,} buckets; so few "
                "make a poor fit: add examples, or set laplace: 0.1 (docs/dsir.md has the measurements)"
            )

    def notes(self) -> list[str]:
        """What the user should hear about the last fit."""
        return list(self._notes)

    def _sampled(self, merged: pa.Table) -> np.ndarray:
        """The pool's counts: all, or of the smallest sample by identity that has as many n-grams as asked."""
        cells = [merged[f"cell_{i}"].to_numpy() for i in range(merged.num_columns)]
        if self.params.fit == "all":
            return np.asarray(cells[0])
        total = np.zeros(self.params.buckets, np.int64)
        for counts in reversed(cells):
            total = total + counts
            if total.sum() >= self.params.fit:
                break
        return total

    def reads(self) -> list[str]:
        return [TEXT]

    def fields(self) -> pa.Schema:
        kind = "score" if self.params.length_normalise else "log_weight"
        scores = [VALUE] if len(self.names) == 1 else self.names
        weights = [measure(name, pa.float64(), means=kind, larger_is_better=True) for name in scores]
        return pa.schema([*weights, pa.field("tokens", pa.int64()), pa.field(REASON, pa.string())])

    def apply(self, state: pa.Table, batch: pa.RecordBatch) -> pa.RecordBatch:
        weights, tokens = ngrams.score(batch.column(TEXT), self.spec, self._log_ratio(state))
        too_few = tokens < max(1, self.params.min_tokens)
        if self.params.length_normalise:
            weights = weights / np.maximum(ngrams.ngrams_of(tokens, self.params.ngrams), 1)[:, None]
        columns = [pa.array(np.ascontiguousarray(column), mask=too_few) for column in weights.T]
        short = f"fewer than {self.params.min_tokens} tokens"
        reason = pc.if_else(
            pa.array(tokens <= 0),
            "no tokens",
            pc.if_else(pa.array(too_few), short, pa.scalar(None, pa.string())),
        )
        return pa.record_batch([*columns, pa.array(tokens), reason], schema=self.fields())

    def _log_ratio(self, state: pa.Table) -> np.ndarray:
        """float64[targets, buckets], kept for the state at hand."""
        if self._ratio[0] is not state:
            self._ratio = (state, np.stack([state[f"log_ratio_{n}"].to_numpy() for n in self.names]))
        return self._ratio[1]
