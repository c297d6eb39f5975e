"""What a frozen state was fitted on, made again where it is gone: without it a state that is lost could not be made again.

A repair removes a damaged partial. The state stands, and nothing is fitted any more, so nobody else would miss it until
the state itself is damaged.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from curate import sampling
from curate.passes import PassTask, partial_name
from curate.plan import Node, kept_rows

if TYPE_CHECKING:
    from curate.runner import Run


def lost(run: Run, node: Node) -> list[Path]:
    """The partials of a node that the last run's ledger has, and that are not there."""
    if run.before is None:
        return []
    folder = f"{node.key}/fit/"
    return [path for e in run.before.entries if e.kind == "fit" and e.path.startswith(folder) and not (path := run.before.path(e)).exists()]


def remake(run: Run, node: Node) -> None:
    """Count again the parts whose partials are gone, where they are still there and the same rows of them are kept."""
    gone = lost(run, node)
    if not gone:
        return
    folder = node.partials = run.store / node.key / "fit"
    parts = {path.stem.rpartition("-")[0] for path in gone}
    tasks = {}
    for part, twin, name in zip(run.parts, run.twins, run.names, strict=True):
        if name in parts:
            path = folder / f"{partial_name(name, kept_rows(run.nodes[: node.position], name))}.parquet"
            if path in gone:
                tasks[path] = PassTask(run.corpus.layout.of([part]), [(part, twin)], run.nodes[: node.position + 1], [("fit", node.position)], run.scratch)

    def make() -> None:
        with run.events.phase(f"fit {node.label}"):
            for results in run.engine.map("curate.passes:run_pass", list(tasks.values())):
                run.written |= {w.path: w for r in results for w in r.written}

    run.once(lambda: all(path.exists() for path in tasks), make)
    _tell(run, node)


def redraw(run: Run, node: Node) -> None:
    """Draw again the listing of a node's samples that is gone, where the same documents would be drawn from."""
    gone = lost(run, node)
    if not gone:
        return
    listing = sampling.listing_of(run, node)
    if listing in gone:
        run.once(listing.exists, lambda: run.draw(node, listing))
    _tell(run, node)


def _tell(run: Run, node: Node) -> None:
    gone = lost(run, node)
    if gone:
        run.say(node, f"{len(gone)} files of what its frozen state was fitted on are gone, and their parts are not as they were then; "
                "the state stands, but if it is lost too it is fitted anew: keep a copy of it")  # fmt: skip
