"""Where a publication comes from, for its data card: licences, cuts, overlap with the targets, fingerprints, how to make it again.

Nothing here depends on how the input was cut into files or where it stood; so the pool's fingerprint is one of its
documents, not of its files (the run folder's recipe.lock.json has the hash of each file).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import yaml

from curate import copies, documents, licenses
from curate.docs import DROP_STAGE, KEPT, Wide
from curate.pipelines.decontaminate import HOW, Decontaminate
from curate.plan import stored_columns
from curate.recipe import EmitSpec
from curate.stage import KEEP, KEY, TEXT_HASH

if TYPE_CHECKING:
    from curate.runner import Run

#: Licences that the card lists; the others are added up.
LISTED = 50


def cell(value: Any) -> str:
    """A value as a cell of a table: on one line, its bars escaped."""
    return " ".join(str(value).split()).replace("|", "\\|")


def licences(run: Run, wide: Wide) -> list[str]:
    """Documents by license, where the corpus names the column."""
    corpus = run.recipe.corpus
    if corpus.license is None:
        return []
    rows = licenses.counts(wide.folder, corpus.license, KEPT)
    lines = ["", "## Licences", ""]
    if corpus.licenses is None:
        lines.append(f"Column `{cell(corpus.license)}`, counted and not enforced.")
    else:
        allowed = ", ".join("(none)" if value is None else cell(value) for value in corpus.licenses)
        lines.append(f"Column `{cell(corpus.license)}`; allowed: {allowed}.")
    lines += ["", "| license | read | kept | kept MB |", "|---|---:|---:|---:|"]
    lines += [f"| {'(none)' if value is None else cell(value[: licenses.SHOWN])} | {read:,} | {kept:,} | {size / 1e6:,.2f} |" for value, read, kept, size in rows[:LISTED]]
    if len(rows) > LISTED:
        read, kept, size = (sum(row[i] for row in rows[LISTED:]) for i in (1, 2, 3))  # type: ignore[misc]
        lines.append(f"| ({len(rows) - LISTED:,} others) | {read:,} | {kept:,} | {size / 1e6:,.2f} |")
    return lines


def _columns(wide: Wide, names: list[str]) -> Iterator[pa.RecordBatch]:
    for file in sorted(wide.folder.glob("docs-*.parquet")):
        with pq.ParquetFile(file, pre_buffer=False, page_checksum_verification=True) as source:
            yield from source.iter_batches(65536, columns=names, use_threads=False)


def cuts(run: Run, wide: Wide) -> list[str]:
    """For each selection, the range of what it ranked by among the documents that it chose: its threshold, found or given."""
    found = {node.label: (node.column(KEEP), node.column("score")) for node in run.nodes if getattr(node.stage, "by_score", False)}
    if not found:
        return []
    ranges: dict[str, list[float]] = {label: [] for label in found}
    for batch in _columns(wide, [name for pair in found.values() for name in pair]):
        for label, (keep, score) in found.items():
            chosen = batch.column(score).filter(pc.fill_null(batch.column(keep), False))
            ends = pc.min_max(chosen)
            if ends["min"].is_valid:
                ranges[label] = [min([ends["min"].as_py(), *ranges[label]]), max([ends["max"].as_py(), *ranges[label]])]
    lines = [f"`{label}` chose what it ranked (of a resample with its noise) from {ends[0]:.6g} to {ends[-1]:.6g}." for label, ends in ranges.items() if ends]
    return ["", "## Thresholds", "", *lines, "Those that were set, not found, stand in the recipe below."] if lines else []


def mixture(run: Run, wide: Wide) -> list[str]:
    """What stands how often in the publication, by stage or band and by source, where a stage says how often documents are taken."""
    said = copies.said_by(copies.arranging(run.nodes))
    if said is None:
        return []
    rows = copies.shares(wide.folder, said, run.recipe.corpus.source, run.scratch, run.workers)
    wholes: dict[int | None, int] = {}
    for group, _, _, _, size in rows:
        wholes[group] = wholes.get(group, 0) + size
    grouped = len(said.published) > 1
    head, line = (f"| `{said.published[1]}` ", "|---:") if grouped else ("", "")
    lines = ["", "## Mixture", "", "A document that is taken more than once is a row each time.", "", f"{head}| source | documents | rows | MB | share of MB |", f"{line}|---|---:|---:|---:|---:|"]
    for group, name, count, taken, size in rows[:LISTED]:
        own = f"| {group} " if grouped else ""
        lines.append(f"{own}| {'(none)' if name is None else cell(name)} | {count:,} | {taken:,} | {size / 1e6:,.2f} | {size / max(1, wholes[group]):.1%} |")
    return [*lines, f"({len(rows) - LISTED:,} more lines are left out.)"] if len(rows) > LISTED else lines


def overlaps(run: Run, wide: Wide) -> list[str]:
    """How many documents of the pool equal one of a target's split, and what became of them."""
    if not run.targets.splits:
        return []
    name = f"{documents.OVERLAP}_place"
    read: dict[str, int] = {}
    kept: dict[str, int] = {}
    for batch in _columns(wide, [name, KEPT, DROP_STAGE]):
        for counts, column in ((read, batch.column(name)), (kept, batch.column(name).filter(batch.column(KEPT)))):
            for row in pc.value_counts(column.drop_null()).to_pylist():
                counts[row["values"]] = counts.get(row["values"], 0) + row["counts"]
    lines = ["", "## Overlap with the targets", "", "Documents of the pool whose text equals one of a target's files. Copies of a test or a tuning file are dropped.", "",
             "| target | split | its documents | in the pool | kept |", "|---|---|---:|---:|---:|"]  # fmt: skip
    for target, splits in run.targets.splits.items():
        for split, table in splits.items():
            place = f"{split} of {target}"
            lines.append(f"| {target} | {split} | {table.num_rows:,} | {read.get(place, 0):,} | {kept.get(place, 0):,} |")
    return lines


def audits(run: Run) -> dict[str, dict[str, Any]]:
    """By stage and set, what the pool was held against: rows, checkable ones, and a hash of the set's content."""
    return {node.label: {name: audit._asdict() for name, audit in node.stage.audit().items()} for node in run.nodes if isinstance(node.stage, Decontaminate)}


def contamination(run: Run) -> list[str]:
    """For each evaluation set its items, how many can be checked, how many the pool holds, and the documents dropped and flagged.

    An item is counted once, by what told of it first: exact before a 13-gram before containment.
    """
    lines: list[str] = []
    for node in run.nodes:
        if not isinstance(node.stage, Decontaminate):
            continue
        best: dict[tuple[str, int], int] = {}
        documents: dict[tuple[str, bool], int] = {}
        for name in run.names:
            wanted = {item: (node, item) for item in ("matches", "set", *([KEEP] if node.decides() else []))}
            stored = stored_columns(wanted, name)
            held = pc.is_valid(stored["set"])
            keep = stored[KEEP].filter(held).to_pylist() if KEEP in stored else [True] * (pc.sum(held).as_py() or 0)
            for sets, kept, matches in zip(stored["set"].filter(held).to_pylist(), keep, stored["matches"].filter(held).to_pylist(), strict=True):
                documents[sets, kept] = documents.get((sets, kept), 0) + 1
                for match in matches:
                    place = (match["set"], match["row"])
                    best[place] = min(best.get(place, len(HOW)), HOW.index(match["how"]))
        n = node.stage.params.ngram
        lines += ["", f"## Contamination: {node.label}" if node.label != "decontaminate" else "## Contamination", "",
                  f"Documents that hold items of evaluation sets; a document counts for the set it holds most of. Not checkable are items of under {node.stage.params.min_words} words.", "",
                  f"| set | items | checkable | exact | by {n}-gram | by containment | documents dropped | flagged | content |", "|---|---:|---:|---:|---:|---:|---:|---:|---|"]  # fmt: skip
        for name, audit in node.stage.audit().items():
            found = [sum(how == i for (owner, _), how in best.items() if owner == name) for i in range(len(HOW))]
            cells = [audit.rows, audit.checkable, *found, documents.get((name, False), 0), documents.get((name, True), 0)]
            lines.append(f"| {cell(name)} | {' | '.join(f'{count:,}' for count in cells)} | `{audit.fingerprint}` |")
    return lines


def warnings(run: Run) -> list[str]:
    """What the guards had to say."""
    return ["", "## Warnings", "", *(f"- {cell(text)}" for text in run.guarded)] if run.guarded else []


def fingerprint(run: Run, wide: Wide) -> str:
    """32 hex digits of the pool's documents, ids and texts, in whatever files and order they stand.

    Sums modulo 2^64 of hashes of the identity, of the text (two halves), and of both multiplied, which binds them.
    """
    total = np.zeros(4, np.uint64)
    for name in run.names:
        pair = run.nodes[0].sidecars().read(name, [KEY, TEXT_HASH])
        assert pair is not None
        table = pair[0]
        fine = pc.and_(pc.is_valid(table[KEY]), pc.is_valid(table[TEXT_HASH]))
        table = table.filter(fine).combine_chunks()
        key = table[KEY].to_numpy()
        hashes = table[TEXT_HASH].combine_chunks()
        raw = b"".join(hashes.to_pylist()) if isinstance(hashes, pa.ChunkedArray) else hashes.buffers()[1].to_pybytes()[16 * hashes.offset : 16 * (hashes.offset + len(hashes))]
        halves = np.frombuffer(raw, "<u8").reshape(-1, 2)
        with np.errstate(over="ignore"):
            total += np.array([key.sum(dtype=np.uint64), halves[:, 0].sum(), halves[:, 1].sum(), ((key | np.uint64(1)) * halves[:, 0]).sum()], np.uint64)
    return hashlib.blake2b(total.tobytes() + str(wide.documents).encode(), digest_size=16).hexdigest()


def making(run: Run, wide: Wide, spec: EmitSpec, stages: list[dict[str, Any]], versions: dict[str, str], pool: str) -> list[str]:
    """The recipe with every setting, words for files in it; what it was run on; the command."""
    recipe = run.recipe
    corpus = {k: v for k, v in msgspec.to_builtins(recipe.corpus).items() if k not in ("paths", "part_bytes", "format")}
    targets = {}
    for name, target in recipe.targets.items():
        files = {split: [f"{split.upper()}_OF_{name.upper()}"] for split in run.targets.splits[name]}
        targets[name] = {**files, "weight": target.weight, **({"text": target.text} if target.text else {})}
    asked: dict[str, Any] = {"name": recipe.name, "corpus": {"paths": ["POOL"], **corpus}}
    if targets:
        asked["targets"] = targets
    asked |= {"seed": recipe.seed, "stages": stages, "emit": msgspec.to_builtins(spec), "guards": msgspec.to_builtins(recipe.guards)}
    lines = ["", "## How", "", f"Seed {recipe.seed}. The recipe, with every setting; words in capitals stand for files:", "", "```yaml",
             yaml.safe_dump(asked, sort_keys=False, allow_unicode=True).strip(), "```", "",
             f"Pool: {wide.documents:,} documents, fingerprint `{pool}` (of their ids and texts, whatever files hold them)."]  # fmt: skip
    if targets:
        counts = ", ".join(f"{name} ({run.targets.splits[name]['guide'].num_rows:,} guide documents)" for name in targets)
        lines.append(f"Targets: {counts}; fingerprint `{run.targets.key}`.")
    if run.listed is not None:
        lines.append(f"Takedowns: the list `{run.listed.key}` was obeyed; `curate takedown` makes one.")
    lines += ["", "Versions: " + ", ".join(f"{name} {value}" for name, value in versions.items()) + ".", "",
              f"Made by `curate run recipe.yaml`, with the recipe above as `recipe.yaml`; curate {versions['curate']} and these libraries give the same bytes on the same platform."]  # fmt: skip
    return lines
