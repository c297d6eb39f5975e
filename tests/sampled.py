"""Stages that train on samples of the pool, for the tests that prove what they are shown."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from curate.sampling import Bounds
from curate.stage import BYTES, IDENTITY, REASON, TEXT, VALUE, Context


class Params(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`by` sorts documents into samples by a column; `seen` is a file that every training adds a line to."""

    rows: int = 5
    bytes: int | None = None
    by: str | None = None
    names: tuple[str, ...] = ("pool",)
    extra: tuple[str, ...] = ()
    state: Literal["refit", "frozen"] = "refit"
    seen: str | None = None


class Sampled:
    """Keeps the identities of its samples as the state; scores a document by whether it was in one."""

    name = "sampled"
    version = 1
    Params = Params
    keyless_params = ("state", "seen")

    def __init__(self, params: Params, context: Context) -> None:
        self.params = params
        self.frozen = params.state == "frozen"
        self.seen = Path(context.base) / params.seen if params.seen else None

    def samples(self) -> Mapping[str, Bounds]:
        return {name: Bounds(self.params.rows, self.params.bytes) for name in self.params.names}

    def sample_reads(self) -> list[str]:
        return [TEXT, IDENTITY, BYTES, *self.params.extra]

    def sample_from(self) -> list[str]:
        return [self.params.by] if self.params.by else []

    def sample_of(self, batch: pa.RecordBatch) -> pa.Array:
        return batch.column(0)

    def fit_sample(self, samples: Mapping[str, pa.Table], targets: Mapping[str, pa.ChunkedArray]) -> pa.Table:
        if self.seen:
            with open(self.seen, "a") as file:
                file.write(json.dumps({n: t.num_rows for n, t in samples.items()}) + "\n")
        rows = [{"sample": n, **row} for n, table in samples.items() for row in table.to_pylist()]
        names = ["sample", *self.sample_reads()]
        return pa.table({n: pa.array([row[n] for row in rows], pa.int64() if n == BYTES else pa.string()) for n in names})

    def reads(self) -> list[str]:
        return [IDENTITY]

    def fields(self) -> pa.Schema:
        return pa.schema([(VALUE, pa.int64()), (REASON, pa.string())])

    def apply(self, state: pa.Table, batch: pa.RecordBatch) -> pa.RecordBatch:
        inside = pc.is_in(batch.column(0), state[IDENTITY].combine_chunks())
        return pa.record_batch([inside.cast(pa.int64()), pa.nulls(batch.num_rows, pa.string())], schema=self.fields())
