"""The targets of a run: their files, read and checked, and what they share with one another and with the pool."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from curate import documents
from curate.corpus import TEXT, load_table
from curate.errors import ConfigError, DataError
from curate.filenames import list_files
from curate.plan import kept_rows, stored_column
from curate.store import digest
from curate.textview import View

if TYPE_CHECKING:
    from curate.params import Problems
    from curate.recipe import Recipe, TargetSpec
    from curate.runner import Run

SPLITS = ("guide", "tuning", "test")


@dataclass(frozen=True)
class Targets:
    """All targets' splits; `documents` has a row per distinct target document (hash, place), `key` names their content."""

    splits: dict[str, dict[str, pa.Table]]
    documents: pa.Table
    key: str

    def guides(self) -> dict[str, pa.ChunkedArray]:
        """Each target's guide texts."""
        return {name: splits["guide"][TEXT] for name, splits in self.splits.items()}


def load_targets(recipe: Recipe, pool: set[Path], problems: Problems) -> Targets:
    """Read the targets' files; guide and test must share no document, and neither may be a pool file."""
    targets: dict[str, dict[str, pa.Table]] = {}
    rows: list[tuple[bytes, str]] = []
    for name, spec in recipe.targets.items():
        splits: dict[str, pa.Table] = {}
        for split in SPLITS:
            files = spec.files(split)
            both = [file for file in files if _stands_in(recipe, file, pool)]
            for file in both:
                problems.add(
                    f"targets.{name}.{split}",
                    f"{file} is a file of the pool too; a target's files must lie outside it",
                )
            if files and not both:
                _load_split(recipe, name, split, splits, problems)
        for split, table in splits.items():
            hashes = documents.text_hashes(table[TEXT].combine_chunks()).to_pylist()
            rows += [(h, f"{split} of {name}") for h in sorted(set(hashes))]
        targets[name] = splits
    if not problems.found:
        _check_splits(rows)
    first: dict[bytes, str] = {}
    for value, place in sorted(rows, key=lambda row: (row[1].startswith("guide"), row[1], row[0])):
        first.setdefault(value, place)
    found = pa.table(
        {"hash": pa.array(list(first), pa.binary(16)), "place": pa.array(list(first.values()), pa.string())}
    )
    return Targets(targets, found, key_of(targets))


def key_of(targets: Mapping[str, Mapping[str, pa.Table]]) -> str:
    """A digest of all splits' texts, in any order; a text that repeats weighs more, so it is another key."""
    counted: list[list[str]] = []
    for name, splits in targets.items():
        for split, table in splits.items():
            hashes = documents.text_hashes(table[TEXT].combine_chunks()).to_pylist()
            counted += [[h.hex(), f"{split} of {name}"] for h in sorted(hashes)]
    return digest(counted)


def load_splits(spec: TargetSpec, base: Path, text: str, view: View) -> dict[str, pa.Table]:
    """A target's files as they are now, by split; `text` is the corpus's, for a target that names none."""
    return {split: load_table(spec.files(split), base=base, text=spec.text or text, view=view) for split in SPLITS if spec.files(split)}


def _stands_in(recipe: Recipe, path: str, pool: set[Path]) -> bool:
    """Whether a target's file, or one of its folder or glob, is one of the pool's."""
    try:
        return any(Path(file).resolve() in pool for file, _ in list_files([path], recipe.base, None))
    except (ConfigError, DataError):
        return False  # loading says what is wrong with it


def _load_split(
    recipe: Recipe, name: str, split: str, splits: dict[str, pa.Table], problems: Problems
) -> None:
    spec, corpus = recipe.targets[name], recipe.corpus
    try:
        splits[split] = load_table(
            spec.files(split), base=recipe.base, text=spec.text or corpus.text, view=corpus.view
        )
    except ConfigError as error:
        problems.add(f"targets.{name}.{split}", str(error))


def _check_splits(rows: list[tuple[bytes, str]]) -> None:
    """A document that steers must not judge: guide, tuning and test of all targets share none."""
    places: dict[bytes, list[str]] = {}
    for value, place in rows:
        places.setdefault(value, []).append(place)
    mixed: dict[str, int] = {}
    for found in places.values():
        kinds = {place.split(" ")[0] for place in found}
        if len(kinds) > 1:
            mixed[" and ".join(found)] = mixed.get(" and ".join(found), 0) + 1
    if mixed:
        lines = "; ".join(f"{count} in {where}" for where, count in sorted(mixed.items()))
        raise DataError(
            f"targets: documents stand in more than one split: {lines}; a document that steers a selection cannot judge it: remove them from one (curate split makes disjoint files)"
        )


def warn_of_overlaps(run: Run) -> None:
    """Say how many pool documents a target holds too: a guide's score high for that alone, a test's were dropped."""
    node = next((n for n in run.nodes if n.label == documents.OVERLAP), None)
    if node is None or run.targets.documents.num_rows == 0:
        return
    counts: dict[str, int] = {}
    for name in run.names:
        shown = pa.array(kept_rows(run.nodes[: node.position], name))
        for value in stored_column(node, name, "place").filter(shown).drop_null().to_pylist():
            counts[value] = counts.get(value, 0) + 1
    for place, count in sorted(counts.items()):
        if place.startswith("guide "):
            note = f"{count} pool documents stand in the {place} too; they will score high for that alone"
        else:
            note = (
                f"{count} pool documents equal a document of the {place}; the pool's copies are dropped"
            )
        run.warnings.append(note)
        run.events.emit("warning", text=note)
