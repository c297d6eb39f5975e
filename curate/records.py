"""The records of a run folder: what was asked, what it resolved to, and which parts it is made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pyarrow as pa
import xxhash

from curate import copies, registry
from curate.corpus import Part, SourceFile
from curate.errors import DataError
from curate.store import (
    damaged,
    digest,
    read_sealed,
    read_table,
    write_bytes,
    write_sealed,
)

if TYPE_CHECKING:
    from curate.runner import Run


def write_lock(run: Run) -> None:
    """recipe.yaml and recipe.lock.json: what was asked, and what it resolved to. Written with the results, not before:

    a run that fails leaves the folder saying what made the results that are in it.
    """
    import yaml

    from curate import __version__
    from curate.catalog import readable

    recipe = run.recipe
    write_bytes(
        run.folder / "recipe.yaml",
        yaml.safe_dump(recipe.raw, sort_keys=False, allow_unicode=True).encode(),
        run.staging,
    )
    lock = {
        "curate": __version__, "name": recipe.name, "base": str(recipe.base), "seed": recipe.seed,
        "corpus": msgspec.to_builtins(recipe.corpus),
        "targets": {n: msgspec.to_builtins(t) for n, t in recipe.targets.items()},
        "stages": [{"stage": s.stage, "as": s.label, **msgspec.to_builtins(s.params)} for s in recipe.stages],
        "emit": msgspec.to_builtins(recipe.emit), "compare": msgspec.to_builtins(recipe.compare),
        "text": {"kind": run.corpus.layout.text_kind, "readable": readable(run.corpus.layout, run.nodes), "columns": list(run.corpus.layout.text_columns)},
        "inputs": [[f.path, f.size, f.content] for f in run.corpus.files], "targets_key": run.targets.key,
        "against": {
            run.nodes[at].label: [[r.name, r.key, [[f.path, f.size, f.content] for f in r.corpus.files]] for r in found]
            for at, found in run.against.items()
        },
        "copies": msgspec.to_builtins(copies.said_by(copies.arranging(run.nodes))), "versions": versions(), "store": str(run.store),
    }  # fmt: skip
    write_bytes(
        run.folder / "recipe.lock.json",
        msgspec.json.format(msgspec.json.encode(lock), indent=1),
        run.staging,
    )


def plan_key(run: Run) -> str:
    """Everything that a run's results depend on, in one key: while it and the files stand, there is nothing to do."""
    nodes = [
        [n.label, n.stage.name, n.stage.version, registry.source_hash(type(n.stage)), n.spec.params,
         getattr(n.stage, "extra_key", lambda: "")()]
        for n in run.nodes
    ]  # fmt: skip
    recipe = run.recipe
    return digest(
        versions(), _software(), recipe.raw, str(recipe.base), recipe.name, recipe.seed, recipe.corpus, recipe.targets, recipe.emit, nodes,
        run.targets.key, [[f.path, f.content] for f in run.corpus.files], str(run.store), run.publish,
        [[at, [[r.name, r.key] for r in found]] for at, found in sorted(run.against.items())],
    )  # fmt: skip


@cache
def _software() -> str:
    """The program itself: a version that is worked on changes without another number."""
    package = Path(__file__).parent
    folders = (package, package / "scorers", package / "pipelines")
    files = sorted(f for folder in folders for f in folder.iterdir() if f.suffix in (".py", ".so"))
    return digest([[f.name, xxhash.xxh3_128_hexdigest(f.read_bytes())] for f in files])


def write_files(run: Run) -> None:
    """files.json: the input files as they are, so that they need not be opened again while they stay so."""
    if not run.files_known or run.corpus.files != run.files_known:
        write_sealed(run.folder / "files.json", run.corpus.files, run.staging)


def known_files(folder: Path) -> list[SourceFile]:
    """What an earlier run of the folder recorded of the input files; nothing where that is damaged: they are read again."""
    try:
        return read_sealed(folder / "files.json", list[SourceFile])
    except (FileNotFoundError, DataError):
        return []


def parts_before(folder: Path) -> list[dict[str, Any]]:
    """The rows of parts.parquet that the last finished run left; none in a new folder."""
    file = folder / "parts.parquet"
    if not file.exists():
        return []
    table = read_table(file)
    if not {"file", "start", "stop", "fingerprint", "part", "next"} <= set(table.schema.names):
        raise damaged(file, f"expected the columns of parts.parquet, got {table.schema.names}")
    return table.to_pylist()  # type: ignore[no-any-return]


def numbered(parts: Sequence[Part], rows: Sequence[Mapping[str, Any]]) -> tuple[list[Part], int]:
    """Part numbers are append-only within a run folder: a part keeps the number it had (`rows`). Also the next free one."""
    before: dict[tuple[Any, ...], list[int]] = {}
    taken = -1
    for row in rows:
        before.setdefault((row["file"], row["start"], row["stop"], row["fingerprint"]), []).append(row["part"])
        taken = max(taken, row["next"] - 1)
    found = []
    for part in parts:
        olds = before.get((part.file, part.start, part.stop, part.fingerprint))
        if olds:
            number = olds.pop(0)
        else:
            taken += 1
            number = taken
        found.append(msgspec.structs.replace(part, number=number))
    return found, max([taken, *[p.number for p in found]], default=-1) + 1


def parts_table(run: Run, rows: Mapping[int, int]) -> pa.Table:
    """What parts.parquet holds: every part with its place, its rows and its fingerprint."""
    return pa.table(
        {
            "part": pa.array([p.number for p in run.parts], pa.int64()),
            "file": pa.array([p.file for p in run.parts], pa.string()),
            "format": pa.array([p.format for p in run.parts], pa.string()),
            "start": pa.array([p.start for p in run.parts], pa.int64()),
            "stop": pa.array([p.stop for p in run.parts], pa.int64()),
            "first_row": pa.array([p.first_row for p in run.parts], pa.int64()),
            "rows": pa.array([rows[p.number] for p in run.parts], pa.int64()),
            "bytes": pa.array([p.bytes for p in run.parts], pa.int64()),
            "fingerprint": pa.array([p.fingerprint for p in run.parts], pa.string()),
            "next": pa.array([run.next_part] * len(run.parts), pa.int64()),
        }
    )


def versions() -> dict[str, str]:
    """The versions that produced bytes depend on."""
    from importlib.metadata import version

    from curate import __version__

    return {
        "curate": __version__,
        **{name: version(name) for name in ("pyarrow", "duckdb", "numpy", "xxhash")},
    }
