"""The records of a run folder: what was asked, what it resolved to, and which parts it is made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pyarrow as pa

from curate.corpus import Part, SourceFile
from curate.store import read_table, write_bytes, write_table

if TYPE_CHECKING:
    from curate.runner import Run


def write_lock(run: Run) -> None:
    """recipe.yaml, recipe.lock.json, parts.parquet, files.json: what was asked, and what it resolved to."""
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
        "versions": versions(), "store": str(run.store),
    }  # fmt: skip
    write_bytes(
        run.folder / "recipe.lock.json",
        msgspec.json.format(msgspec.json.encode(lock), indent=1),
        run.staging,
    )
    write_bytes(run.folder / "files.json", msgspec.json.encode(run.corpus.files), run.staging)


def known_files(folder: Path) -> list[SourceFile]:
    """What an earlier run of the folder recorded of the input files."""
    file = folder / "files.json"
    return msgspec.json.decode(file.read_bytes(), type=list[SourceFile]) if file.exists() else []


def numbered(parts: Sequence[Part], folder: Path) -> tuple[list[Part], int]:
    """Part numbers are append-only within a run folder: a part keeps the number it had. Also the next free one."""
    before: dict[tuple[Any, ...], list[int]] = {}
    taken = -1
    if (folder / "parts.parquet").exists():
        for row in read_table(folder / "parts.parquet").to_pylist():
            before.setdefault((row["file"], row["start"], row["stop"], row["fingerprint"]), []).append(
                row["part"]
            )
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


def write_parts(run: Run, rows: Mapping[int, int]) -> None:
    """parts.parquet: every part with its place, its rows and its fingerprint."""
    table = pa.table(
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
    write_table(run.folder / "parts.parquet", table, run.staging)


def versions() -> dict[str, str]:
    """The versions that produced bytes depend on."""
    from importlib.metadata import version

    from curate import __version__

    return {
        "curate": __version__,
        **{name: version(name) for name in ("pyarrow", "duckdb", "numpy", "xxhash")},
    }
