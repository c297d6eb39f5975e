"""A stage that ends processes, once, in the middle of a verb: what a machine does to a run, on demand.

Tests copy this file beside a recipe and name it there: `trap.py:Trap`. It springs only while there is no file
`sprung` beside the recipe, so the same recipe, with the file there, is the undisturbed run.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from curate.frame import Frame
from curate.stage import BYTES, TEXT, Context


class TrapParams(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`whom` it ends; always: this process, every time; hang: nobody, it stands still, once or every time."""

    verb: Literal["fit", "merge", "close", "apply", "judge", "finish"]
    whom: Literal["group", "worker", "parent", "interrupt", "always", "nobody, it raises", "hang", "always hang"] = "group"


class Trap:
    """Measures a text's length relative to the longest, drops what is under a tenth, and numbers the documents."""

    version = 1
    Params = TrapParams

    def __init__(self, params: TrapParams, context: Context) -> None:
        self.params = params
        self.marker = Path(context.base) / "sprung"
        self.label = context.label

    def spring(self, verb: str) -> None:
        whom = self.params.whom
        if verb != self.params.verb or (self.marker.exists() and not whom.startswith("always")):
            return
        if whom == "nobody, it raises":
            raise ZeroDivisionError("the stage's own fault")
        self.marker.touch()
        while whom.endswith("hang"):
            signal.pause()
        if whom == "group":
            os.killpg(0, signal.SIGKILL)
        elif whom == "interrupt":
            os.killpg(0, signal.SIGINT)
        else:
            os.kill(os.getppid() if whom == "parent" else os.getpid(), signal.SIGKILL)
        signal.pause()  # until what was sent, or what follows from it, arrives

    def fit_reads(self) -> list[str]:
        return [BYTES, TEXT]

    def fit_part(self, batches: Iterator[pa.RecordBatch]) -> pa.Table:
        most = 0
        for batch in batches:
            most = max(most, pc.max(batch.column(0)).as_py() or 0)
            self.spring("fit")
        return pa.table({"most": [most]})

    def merge(self, partials: Sequence[pa.Table]) -> pa.Table:
        self.spring("merge")
        return pa.table({"most": [max(p["most"][0].as_py() for p in partials)]})

    def close(self, merged: pa.Table, targets: Mapping[str, pa.ChunkedArray]) -> pa.Table:
        self.spring("close")
        return merged

    def reads(self) -> list[str]:
        return [TEXT]

    def fields(self) -> pa.Schema:
        return pa.schema([("value", pa.float64())])

    def apply(self, state: pa.Table, batch: pa.RecordBatch) -> pa.RecordBatch:
        self.spring("apply")
        share = pc.divide(pc.cast(pc.binary_length(batch.column(0)), pa.float64()), float(state["most"][0].as_py()))
        return pa.record_batch([share], names=["value"])

    def judge_reads(self) -> list[str]:
        return [self.label]

    def judge(self, batch: pa.RecordBatch) -> tuple[pa.Array, pa.Array]:
        self.spring("judge")
        short = pc.less(batch.column(0), 0.1)
        return pc.invert(short), pc.if_else(short, "under a tenth", pa.scalar(None, pa.string()))

    def finish_reads(self) -> list[str]:
        return [BYTES]

    def finish_fields(self) -> pa.Schema:
        return pa.schema([("larger", pa.int64())])

    def finish(self, frame: Frame) -> pa.RecordBatchReader:
        self.spring("finish")
        return frame.reader(f"SELECT doc, rank() OVER (ORDER BY {BYTES} DESC) - 1 AS larger FROM pool ORDER BY doc")
