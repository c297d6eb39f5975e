"""Stages that need much of the machine: DuckDB's spill, memory that is not there, somebody who listens."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curate.frame import Frame
from curate.stage import BYTES, Context


class Params(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`always`: also when there is a file `fed` beside the recipe."""

    always: bool = False


class Spiller:
    """Sorts far more than DuckDB may hold in memory, so that it spills; keeps every document."""

    version = 1
    Params = Params

    def __init__(self, params: Params, context: Context) -> None:
        del params, context

    def finish_reads(self) -> list[str]:
        return [BYTES]

    def finish_fields(self) -> pa.Schema:
        return pa.schema([("seen", pa.int64())])

    def finish(self, frame: Frame) -> pa.RecordBatchReader:
        frame.con.execute("SET memory_limit = '100MB'")
        frame.con.execute("SET threads = 1")
        frame.con.execute("CREATE TABLE big AS SELECT hash(i) AS h, hash(i + 1)::VARCHAR AS s FROM range(4000000) t(i) ORDER BY h")
        frame.con.execute("DROP TABLE big")
        return frame.reader("SELECT doc, 1::BIGINT AS seen FROM pool ORDER BY doc")


class Hungry:
    """Asks for 8 GB in the middle of a part; only once, unless `always`. Notes every time in the file `meals`."""

    version = 1
    Params = Params

    def __init__(self, params: Params, context: Context) -> None:
        self.always = params.always
        self.base = Path(context.base)

    def judge_reads(self) -> list[str]:
        return [BYTES]

    def judge(self, batch: pa.RecordBatch) -> tuple[pa.Array, pa.Array]:
        if self.always or not (self.base / "fed").exists():
            (self.base / "fed").touch()
            with open(self.base / "meals", "a", encoding="utf-8") as file:
                file.write(f"{os.getpid()}\n")
            np.zeros(1 << 30)
        return pc.is_valid(batch.column(0)), pa.nulls(batch.num_rows, pa.string())


class Talker:
    """Notes in the file `streams` where whatever is printed goes."""

    version = 1
    Params = Params

    def __init__(self, params: Params, context: Context) -> None:
        del params
        self.base = Path(context.base)

    def judge_reads(self) -> list[str]:
        return [BYTES]

    def judge(self, batch: pa.RecordBatch) -> tuple[pa.Array, pa.Array]:
        with open(self.base / "streams", "a", encoding="utf-8") as file:
            for link in (Path(f"/proc/self/fd/{number}") for number in (0, 1, 2)):
                file.write(f"{link.readlink() if link.is_symlink() else 'nowhere'}\n")
        return pc.is_valid(batch.column(0)), pa.nulls(batch.num_rows, pa.string())
