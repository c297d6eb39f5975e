"""What a run did: the parts it found and what had become of them, the work of each stage, and the counts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from curate.corpus import Part

if TYPE_CHECKING:
    from curate.plan import Node
    from curate.runner import Run


class PartChanges(msgspec.Struct, frozen=True):
    """The parts of a run beside those of the run before it in the folder; the first five add up.

    `unchanged`: same file, range and content. `renamed`: same content in another file. `changed`: other content in a
    file that was there. `new`: in a file that was not. `removed`: those of before that are none of these any more.
    """

    unchanged: int
    renamed: int
    changed: int
    new: int
    removed: int


class StageWork(msgspec.Struct, frozen=True):
    """What a run did for one stage; the counts are of parts, the rest was there already.

    `state`: "fitted" now, "reused" from an earlier fit on the same documents, "frozen" (kept whatever was added), or
    None for a stage without one. `finish`: "anew" over all documents, "reused", or None for a stage without it.
    """

    label: str
    stage: str
    measured: int
    judged: int
    fitted: int
    state: Literal["fitted", "reused", "frozen"] | None
    finish: Literal["anew", "reused"] | None


@dataclass
class Outcome:
    """What a run did; `published` is None where nothing was emitted, `unchanged` says that there was nothing to do."""

    folder: Path
    documents: int
    kept: int
    text_bytes: int
    computed_parts: int
    published: Path | None
    warnings: list[str]
    seconds: float
    parts: PartChanges
    stages: list[StageWork]
    unchanged: bool = False
    rows: int | None = None  # of the publication: more than documents were kept where a mixture takes some more than once


def part_changes(parts: Sequence[Part], before: Iterable[tuple[str, int, int, str]]) -> PartChanges:
    """Compare parts with those of the run before: (file, start, stop, fingerprint) of each."""
    old = Counter(before)
    fresh: list[Part] = []
    for part in parts:
        place = (part.file, part.start, part.stop, part.fingerprint)
        if old[place]:
            old[place] -= 1
        else:
            fresh.append(part)
    gone = Counter({place: count for place, count in old.items() if count})
    contents: Counter[str] = Counter()
    files: Counter[str] = Counter()
    for (file, _, _, fingerprint), count in gone.items():
        contents[fingerprint] += count
        files[file] += count
    homes: dict[str, list[str]] = {}
    for file, _, _, fingerprint in gone.elements():
        homes.setdefault(fingerprint, []).append(file)
    renamed = changed = 0
    others = []
    for part in fresh:
        if contents[part.fingerprint]:
            contents[part.fingerprint] -= 1
            files[homes[part.fingerprint].pop()] -= 1
            renamed += 1
        else:
            others.append(part)
    for part in others:
        if files[part.file] > 0:
            files[part.file] -= 1
            changed += 1
    return PartChanges(
        unchanged=len(parts) - len(fresh), renamed=renamed, changed=changed, new=len(others) - changed,
        removed=sum(gone.values()) - renamed - changed,
    )  # fmt: skip


def stage_work(run: Run) -> list[StageWork]:
    """What was written for each stage by this run, in order; a stage reads and writes nothing where all was there."""
    folders = Counter(str(Path(path).parent) for path in run.written)
    return [_work_of(run, node, folders) for node in run.nodes]


def _work_of(run: Run, node: Node, folders: Counter[str]) -> StageWork:
    state: Literal["fitted", "reused", "frozen"] | None = None
    if node.verbs & {"fit", "sample"}:
        kept = getattr(node.stage, "frozen", False) and node.partials is None
        state = "frozen" if kept else "fitted" if str(node.state) in run.written else "reused"
    finish: Literal["anew", "reused"] | None = None
    if "finish" in node.verbs:
        finish = "anew" if folders[str(node.finished)] else "reused"
    return StageWork(
        node.label, node.stage.name, folders[str(node.measures)], folders[str(node.verdicts)], folders[str(node.partials)] if "fit" in node.verbs else 0, state, finish
    )


def summary(outcome: Outcome, funnel: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The outcome as plain values, for machines; `funnel` are the rows of funnel.parquet."""
    dropped: dict[tuple[str, str | None], int] = {}
    for row in funnel:
        if row["stage"] != "kept":
            key = (row["stage"], row["reason"])
            dropped[key] = dropped.get(key, 0) + row["documents"]
    return {
        "run": str(outcome.folder), "unchanged": outcome.unchanged, "documents": outcome.documents, "kept": outcome.kept,
        "rows": outcome.rows, "bytes": outcome.text_bytes, "parts": {"read": outcome.computed_parts, **msgspec.to_builtins(outcome.parts)},
        "stages": msgspec.to_builtins(outcome.stages),
        "dropped": [{"stage": stage, "reason": reason, "documents": count} for (stage, reason), count in dropped.items()],
        "published": str(outcome.published) if outcome.published else None, "warnings": outcome.warnings,
        "seconds": round(outcome.seconds, 3),
    }  # fmt: skip
