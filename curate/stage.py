"""The stage contract: what a stage is, the columns it may read, and how its own columns are named.

A stage is a class with a frozen `Params` struct and some of these verbs (docs/stages.md draws them):

    fit_part(batches) -> partial       one pass over a part's rows that are still kept
    merge(partials) -> partial         associative and exact (integers)
    close(partial, targets) -> state   what `apply` needs, made once from the merged partial and the targets' texts
                                       (without fit_part: from the targets alone, partial is None)
    fit_sample(samples, targets)       the state, trained on samples of the pool that the program draws (instead of the
      -> state                         three above)
    apply(state, batch) -> columns     row-aligned measures; knows one batch and the state, nothing else
    judge(batch) -> keep, reason       row-wise verdict from columns; cheap, so a moved threshold reruns only this
    finish(frame) -> columns           all documents' columns at once, without text

An engine needs only to run fit_part, apply and judge over parts. Partials and states are Arrow tables.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import pyarrow as pa

if TYPE_CHECKING:
    from curate.frame import Frame
    from curate.sampling import Bounds

#: The document's text, as the recipe's `text` and `view` make it (string or large_string, never null).
TEXT = "__text__"
#: What the first pass knows of every document; any stage may read these.
IDENTITY = "curate_identity"  # string: the user's id, or 32 hex digits of the text's xxh3-128
KEY = "curate_key"  # uint64: xxh3-64 of the identity, what randomness is keyed by
TEXT_HASH = "curate_text_hash"  # fixed_size_binary(16): xxh3-128 of the text's UTF-8
BYTES = "curate_bytes"  # int64: bytes of UTF-8
WORDS = "curate_words"  # int64: runs of non-white-space characters
BASE_COLUMNS = (IDENTITY, KEY, TEXT_HASH, BYTES, WORDS)
#: The field name of a stage's main column: it is called by the stage's label alone.
VALUE = "value"
KEEP, REASON = "keep", "reason"

_KIND, _DIRECTION = b"curate.kind", b"curate.direction"


@dataclass(frozen=True)
class Target:
    """What a stage may know of a target before any text is read."""

    name: str
    weight: float = 1.0


@dataclass(frozen=True)
class Context:
    """What a stage knows of its surroundings: its label, the run's seed, and the targets' names."""

    label: str
    seed: int = 0
    targets: tuple[Target, ...] = ()
    #: the folder that paths in the recipe are from
    base: str = ""
    #: the corpus's source column, where one is named
    source: str | None = None
    #: columns named by label and known before this stage, with kind and direction in their metadata
    columns: pa.Schema = field(default_factory=lambda: pa.schema([]))


@runtime_checkable
class Stage(Protocol):
    """The least that every stage has. Which verbs it has decides what is done with it."""

    name: str
    version: int
    Params: type[Any]

    def __init__(self, params: Any, context: Context) -> None: ...


class Fits(Protocol):
    """A stage that learns from the pool."""

    def fit_reads(self) -> Sequence[str]: ...
    def fit_part(self, batches: Iterator[pa.RecordBatch]) -> pa.Table: ...
    def merge(self, partials: Sequence[pa.Table]) -> pa.Table: ...
    def close(self, merged: pa.Table, targets: Mapping[str, pa.ChunkedArray]) -> pa.Table: ...


class FitsSamples(Protocol):
    """A stage that trains on samples of the pool (curate.sampling)."""

    #: the samples by name, with their bounds; a stage that needs one calls it what it likes
    def samples(self) -> Mapping[str, Bounds]: ...

    #: the columns of a sample, the text among them where it is needed
    def sample_reads(self) -> Sequence[str]: ...
    def fit_sample(self, samples: Mapping[str, pa.Table], targets: Mapping[str, pa.ChunkedArray]) -> pa.Table: ...


class Sorts(Protocol):
    """Where a stage's samples are not all drawn from all documents: the name of each row's sample, null for none."""

    def sample_from(self) -> Sequence[str]: ...
    def sample_of(self, batch: pa.RecordBatch) -> pa.Array: ...


class Applies(Protocol):
    """A stage that adds measures, row by row."""

    def reads(self) -> Sequence[str]: ...
    def fields(self) -> pa.Schema: ...
    def apply(self, state: pa.Table | None, batch: pa.RecordBatch) -> pa.RecordBatch: ...


class Judges(Protocol):
    """A stage that gives a verdict, row by row, from columns."""

    def judge_reads(self) -> Sequence[str]: ...
    def judge(self, batch: pa.RecordBatch) -> tuple[pa.Array, pa.Array]: ...


class Finishes(Protocol):
    """A stage that sees all documents' columns at once."""

    def finish_reads(self) -> Sequence[str]: ...
    def finish_fields(self) -> pa.Schema: ...
    def finish(self, frame: Frame) -> pa.RecordBatchReader: ...


def verbs(stage: Any) -> frozenset[str]:
    """Which verbs a stage has: some of fit, sample, apply, judge, finish."""
    names = {"fit": "fit_part", "sample": "fit_sample", "apply": "apply", "judge": "judge", "finish": "finish"}
    wanted = getattr(stage, "verbs", None)
    return frozenset(
        wanted() if wanted else (verb for verb, method in names.items() if hasattr(stage, method))
    )


def column_name(label: str, field_name: str) -> str:
    """The wide table's name of a stage's field: `<label>`, or `<label>_<field>`."""
    return label if field_name == VALUE else f"{label}_{field_name}"


def measure(
    name: str, kind: pa.DataType, *, means: str = "", larger_is_better: bool | None = None
) -> pa.Field:
    """A field of a stage's schema; `means` (log_weight, score, ...) and the direction travel with it in Parquet."""
    metadata = {}
    if means:
        metadata[_KIND] = means.encode()
    if larger_is_better is not None:
        metadata[_DIRECTION] = b"larger" if larger_is_better else b"smaller"
    return pa.field(name, kind, metadata=metadata or None)


def meaning(column: pa.Field) -> tuple[str, bool | None]:
    """The kind and the direction (True: larger is better; None: not said) that a column carries."""
    metadata = column.metadata or {}
    direction = metadata.get(_DIRECTION)
    return metadata.get(_KIND, b"").decode(), None if direction is None else direction == b"larger"
