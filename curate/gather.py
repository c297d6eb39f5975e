"""What a `finish` needs of the texts that it names: read again, part by part, in the workers.

A stage with `gather_reads`, `gather_fields` and `gather(batch)`, or `gather(state, batch)` where it has a state, may ask
its frame for documents; what `gather` makes of them goes through files of the scratch folder, so that neither texts nor
answers are held all at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.ipc as ipc

from curate import spans
from curate.corpus import Layout, Part
from curate.errors import CurateError, StageError, machine_error
from curate.frame import DOC
from curate.plan import Node, rewriters
from curate.stage import TEXT
from curate.store import Sidecars, read_table, writing

if TYPE_CHECKING:
    from curate.runner import Run


@dataclass(frozen=True)
class GatherTask:
    """Rows of one part, to be shown to a stage's `gather`."""

    layout: Layout
    part: Part
    number: int  # of the part in `doc`
    rows: npt.NDArray[np.int64]
    node: Node
    name: str  # the part's, in the store
    rewriters: list[Sidecars]  # of the stages before that change text
    out: Path

    def described(self) -> str:
        """What to call this task in an error."""
        return f"part {self.number} ({self.part.file})"


#: A part as documents name it (its number), its layout, the part, its name in the store, and who changed its text.
Piece = tuple[int, Layout, Part, str, list[Sidecars]]


def gathered(run: Run, node: Node, docs: npt.NDArray[np.int64]) -> Iterator[pa.RecordBatch]:
    """Yield `doc` and the stage's gather_fields for each of `docs`, in no order that means anything."""
    earlier = rewriters(run.nodes[: node.position])
    pieces = [(part.number, run.corpus.layout, part, name, earlier) for part, name in zip(run.parts, run.names, strict=True)]
    return gather_parts(run, node, docs, pieces, "gather")


def gather_parts(run: Run, node: Node, docs: npt.NDArray[np.int64], pieces: Sequence[Piece], what: str) -> Iterator[pa.RecordBatch]:
    """As `gathered`, of documents (number << 32 | row) of some parts; `what` tells its scratch files apart."""
    wanted = np.sort(docs)
    run.scratch.mkdir(parents=True, exist_ok=True)
    tasks = []
    for number, layout, part, name, earlier in pieces:
        low, high = np.searchsorted(wanted, [number << 32, (number + 1) << 32])
        if high > low:
            out = run.scratch / f"{what}-{node.position}-{number}.arrow"
            tasks.append(GatherTask(layout.of([part]), part, number, wanted[low:high] & 0xFFFFFFFF, node, name, earlier, out))
    for out in run.engine.map("curate.gather:gather_part", tasks):
        with pa.memory_map(str(out)) as file:
            reader = ipc.open_file(file)
            for i in range(reader.num_record_batches):
                yield reader.get_batch(i)
        out.unlink()


def gather_part(task: GatherTask) -> Path:
    """Read the rows, call the stage, write what it makes of them; returns the file."""
    stage = task.node.stage
    state = read_table(task.node.state) if task.node.state else None
    names = list(stage.gather_reads())
    user = [name for name in names if name != TEXT]
    schema = pa.schema([pa.field(DOC, pa.int64()), *stage.gather_fields()])
    at = 0
    with writing(task.out), ipc.new_file(task.out, schema) as writer:
        for batch in spans.read_current(task.layout, task.part, task.name, task.rewriters, columns=user, text=TEXT in names, rows=task.rows):
            made = _made(task, state, batch.select(names))
            doc = pa.array((task.number << 32) + task.rows[at : at + batch.num_rows])
            writer.write_batch(pa.RecordBatch.from_arrays([doc, *made.columns], schema=schema))
            at += batch.num_rows
    return task.out


def _made(task: GatherTask, state: pa.Table | None, batch: pa.RecordBatch) -> pa.RecordBatch:
    try:
        made = task.node.stage.gather(batch) if state is None else task.node.stage.gather(state, batch)
    except CurateError:
        raise
    except Exception as error:
        doing = f"stage {task.node.label!r} failed in gather at {task.described()}"
        raise machine_error(error, doing) or StageError(f"{doing}: {type(error).__name__}: {error}") from error
    if made.num_rows != batch.num_rows:
        raise StageError(f"stage {task.node.label!r}: gather was given {batch.num_rows} rows and returned {made.num_rows}")
    return made.cast(task.node.stage.gather_fields())
