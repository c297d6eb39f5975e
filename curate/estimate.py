"""`curate check`: what a run will read, write and cost, from a sample of the corpus. Writes nothing."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import pyarrow as pa

from curate.corpus import TEXT, read_part
from curate.engine import available_cpus
from curate.events import Events
from curate.recipe import Recipe
from curate.runner import Run

#: Text that is read to estimate from: enough for a second of work.
SAMPLE_BYTES = 16_000_000


def estimate(recipe: Recipe, workers: int | None) -> dict[str, Any]:
    """Plan the run as `run` would, then time the first pass's work on a sample spread over the parts."""
    with tempfile.TemporaryDirectory(prefix="curate-check-") as folder:
        run = Run(recipe, Path(folder), workers=workers, events=Events(), publish=False)
        run.plan()
        sampled, seconds = _sample(run)
    parts = run.parts
    size = sum(p.bytes for p in parts)
    known = sum(p.rows for p in parts if p.rows >= 0)
    rows = (
        known
        if all(p.rows >= 0 for p in parts)
        else round(size / max(1.0, sampled["bytes"] / max(1, sampled["rows"])))
    )
    exact = "" if all(p.rows >= 0 for p in parts) else "about "
    text = round(sampled["text"] / max(1, sampled["bytes"]) * size) if sampled["bytes"] else size
    passes = 1 + sum(
        2 if "fit" in n.verbs else 1 if "apply" in n.verbs else 0 for n in run.nodes[1:] if TEXT in _reads(n)
    )
    processes = min(workers or available_cpus(), max(1, len(run.tasks())))
    speed = sampled["text"] / seconds if seconds else 0.0
    columns = sum(len(n.columns()) for n in run.nodes)
    largest = max((p.bytes for p in parts), default=0)
    return {
        "recipe": recipe.name, "files": len(run.corpus.files), "parts": len(parts), "rows": f"{exact}{rows:,}",
        "text": f"about {text / 1e6:,.1f} MB in {', '.join(run.corpus.layout.text_columns)}",
        "stages": " -> ".join(n.label for n in run.nodes),
        "passes over the text": passes, "sample": f"{sampled['rows']:,} rows, {speed / 1e6:,.0f} MB/s for one pass of one process",
        "time": f"about {_span(1.5 + passes * text / max(speed, 1.0) / processes)} with {processes} worker(s)",
        "memory per worker": f"about {(160e6 + 3 * min(largest, 64e6)) / 1e6:,.0f} MB",
        "disk": f"about {rows * (60 + 8 * columns) * 2 / 1e6:,.1f} MB of sidecars and docs, beside what is published",
    }  # fmt: skip


def _reads(node: Any) -> list[str]:
    found: list[str] = []
    for method in ("reads", "fit_reads"):
        if hasattr(node.stage, method):
            found += getattr(node.stage, method)()
    return found


def _sample(run: Run) -> tuple[dict[str, int], float]:
    """Read and do the first pass's work on batches from parts spread over the corpus, until the sample is large enough."""
    found = {"rows": 0, "bytes": 0, "text": 0}
    base = run.nodes[0].stage
    seconds = 0.0
    step = max(1, len(run.parts) // 8)
    for part in run.parts[::step]:
        started = time.perf_counter()
        for batch in read_part(
            run.corpus.layout, part, columns=[n for n in base.reads() if not n.startswith("__")]
        ):
            _work(run, batch)
            found["rows"] += batch.num_rows
            found["text"] += batch.column(TEXT).nbytes
            found["bytes"] += batch.column(TEXT).nbytes
            if found["text"] > SAMPLE_BYTES:
                break
        seconds += time.perf_counter() - started
        if found["text"] > SAMPLE_BYTES:
            break
    return found, seconds


def _work(run: Run, batch: pa.RecordBatch) -> None:
    """What a pass does with a batch, for the stages that can be tried on it: the first, and every fit."""
    out = run.nodes[0].stage.apply(None, batch.select(list(run.nodes[0].stage.reads())))
    columns = {n: batch.column(n) for n in batch.schema.names} | {n: out.column(n) for n in out.schema.names}
    for node in run.nodes[1:]:
        if "fit" in node.verbs and all(n in columns for n in node.stage.fit_reads()):
            names = list(node.stage.fit_reads())
            node.stage.fit_part(iter([pa.record_batch([columns[n] for n in names], names=names)]))


def _span(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
