"""A stage that says that it was reached and waits, by two named pipes beside the recipe, where they are there."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from curate.stage import BYTES, Context


class GateParams(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """None."""


class Gate:
    """Lets every document pass."""

    version = 1
    Params = GateParams

    def __init__(self, params: GateParams, context: Context) -> None:
        self.base = Path(context.base)

    def judge_reads(self) -> list[str]:
        return [BYTES]

    def judge(self, batch: pa.RecordBatch) -> tuple[pa.Array, pa.Array]:
        if (self.base / "reached").exists():
            with open(self.base / "reached", "w") as reached:
                (self.base / "reached").unlink()  # before the reader returns: what it starts then finds no gate
                reached.write("here")
            (self.base / "open").read_text()
        return pc.is_valid(batch.column(0)), pa.nulls(batch.num_rows, pa.string())
