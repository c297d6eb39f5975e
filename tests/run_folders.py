"""Small pools and recipes, runs of them, and what a run left, for the tests that prove a run from the outside."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

import curate
from curate.api import Result
from curate.recipe import Recipe

SMALL = Path(__file__).parent.parent / "data_samples" / "small"
Rows = list[dict[str, Any]]

#: The stages of the recipe that every description of the program shows.
STAGES: list[dict[str, Any]] = [
    {"length": {"min_bytes": 20}},
    {"dedup_exact": {}},
    {"dsir": {}},
    {"select": {"by": "dsir", "how": "resample", "budget": "10%"}},
]


def small_rows() -> Rows:
    """The committed sample's pool: 599 documents, some texts more than once, under different ids and sources."""
    return [row for file in sorted((SMALL / "pool").glob("*.parquet")) for row in pq.read_table(file).to_pylist()]


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]], *, schema: pa.Schema | None = None, row_group: int = 50) -> Path:
    """Write rows as parquet or jsonl, by the file's name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(list(rows), schema), path, row_group_size=row_group)
    else:
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def write_pool(folder: Path, files: int = 3) -> Path:
    """The sample's pool in some files under `folder`, which is returned."""
    rows = small_rows()
    for n in range(files):
        write_rows(folder / "pool" / f"{n}.parquet", rows[n::files])
    return folder


def recipe_for(
    folder: Path, *, paths: Sequence[str] = ("pool/*",), stages: Sequence[Mapping[str, Any]] | None = None, ids: bool = True,
    target: bool = True, **more: Any,
) -> dict[str, Any]:  # fmt: skip
    """A recipe as plain mappings over a pool in `folder`, aimed at the sample's word problems."""
    corpus: dict[str, Any] = {"paths": [str(folder / p) for p in paths], "source": "source"}
    if ids:
        corpus["id"] = "id"
    corpus |= more.pop("corpus", {})
    recipe: dict[str, Any] = {"name": "proof", "corpus": corpus, "seed": 7, "stages": list(STAGES if stages is None else stages)}
    if target:
        recipe["targets"] = {"maths": {"guide": [str(SMALL / "guide.jsonl")], "test": [str(SMALL / "test.jsonl")]}}
    return recipe | more


def write_recipe(file: Path, recipe: Mapping[str, Any]) -> Path:
    """Write a recipe as YAML (JSON is YAML)."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(recipe, indent=1), encoding="utf-8")
    return file


def run(recipe: Mapping[str, Any] | Recipe, folder: Path, *, workers: int = 1, **more: Any) -> Result:
    return curate.run(recipe, run=folder, workers=workers, **more)


def command(*words: object) -> list[str]:
    return [sys.executable, "-m", "curate", *[str(word) for word in words]]


def call(*words: object, timeout: float = 120, **environment: object) -> subprocess.CompletedProcess[str]:
    """Run the command in a session of its own, so that a test can end the whole group; more in its environment."""
    surroundings = os.environ | {name: str(value) for name, value in environment.items()}
    return subprocess.run(command(*words), capture_output=True, text=True, timeout=timeout, start_new_session=True, check=False, env=surroundings)


def end_group(process: subprocess.Popen[Any], number: int = signal.SIGKILL) -> None:
    """Send a signal to a process and all it started; it must have been given its own session."""
    if process.poll() is None:
        os.killpg(process.pid, number)


def published(folder: Path) -> dict[str, str]:
    """The current publication: the SHA-256 of every file, by its path inside."""
    root = (folder / "mixture").resolve(strict=True)
    return {str(f.relative_to(root)): hashlib.sha256(f.read_bytes()).hexdigest() for f in sorted(root.rglob("*")) if f.is_file()}


def published_rows(folder: Path) -> Rows:
    files = sorted((folder / "mixture" / "data").glob("*.parquet"))
    return [row for file in files for row in pq.read_table(file).to_pylist()]


def chosen_texts(folder: Path) -> list[str]:
    return sorted(row["text"] for row in published_rows(folder))


def docs(folder: Path) -> pa.Table:
    """The wide table, in input order."""
    return pa.concat_tables([pq.read_table(f) for f in sorted((folder / "docs").glob("docs-*.parquet"))])


def docs_without_place(folder: Path) -> list[str]:
    """The wide table's rows without doc, file and row, in an order that is no place."""
    return sorted(repr(row) for row in docs(folder).drop_columns(["doc", "file", "row"]).to_pylist())


def funnel(folder: Path) -> Rows:
    rows: Rows = pq.read_table(folder / "funnel.parquet").to_pylist()
    return rows


def counts(folder: Path) -> dict[tuple[str, str | None], int]:
    """Documents by (stage, reason), over all sources."""
    found: dict[tuple[str, str | None], int] = {}
    for row in funnel(folder):
        key = (row["stage"], row["reason"])
        found[key] = found.get(key, 0) + row["documents"]
    return found


def lasting(folder: Path) -> dict[str, str]:
    """SHA-256 of everything that is promised byte for byte: sidecars, states, docs, funnel, parts, mixture."""
    found = {f"mixture/{k}": v for k, v in published(folder).items()}
    roots = [folder / "store", (folder / "docs").resolve(strict=True)]
    files = [f for root in roots for f in sorted(root.rglob("*")) if f.is_file() and f.parent.name != ".lease"]
    for file in [*files, folder / "funnel.parquet", folder / "parts.parquet", folder / "stages.parquet"]:
        found[str(file.relative_to(folder.resolve()))] = hashlib.sha256(file.read_bytes()).hexdigest()
    return found


def leftovers(folder: Path) -> list[str]:
    """What a finished run must not leave: temporary files and half-made folders."""
    found = []
    for path in folder.rglob("*"):
        unfinished = "making" in path.name or (path.name.startswith(".") and path.name not in (".lease", ".docs"))
        if unfinished or (path.parent.parent.name == "tmp" and path.is_file()):
            found.append(str(path.relative_to(folder)))
    return sorted(found)


def check_final_names(folder: Path) -> None:
    """Whatever stands under a final name must be whole, at any moment."""
    for path in folder.rglob("*"):
        inside = path.relative_to(folder).parts
        if path.is_dir() or any("making" in part or part == "tmp" for part in inside):
            continue
        if path.suffix == ".parquet":
            pq.read_table(path)
        elif path.suffix == ".json":
            json.loads(path.read_text())
    for name in ("docs", "mixture"):
        if (folder / name).is_symlink():
            assert (folder / name).resolve(strict=True).is_dir()
    if (folder / "mixture").is_symlink():
        manifest = json.loads((folder / "mixture" / "manifest.json").read_text())
        for file in manifest["files"]:
            assert hashlib.sha256((folder / "mixture" / file["file"]).read_bytes()).hexdigest() == file["sha256"]


def phases(folder: Path) -> list[dict[str, Any]]:
    """The phases of the last run of a folder, from its events."""
    events = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
    last = max(i for i, event in enumerate(events) if event["event"] == "started")
    return [event for event in events[last:] if event["event"] == "phase"]


def texts_read(folder: Path) -> dict[str, int]:
    """For each pass of the last run that read texts, how many."""
    return {phase["phase"]: phase["documents"] for phase in phases(folder) if phase["documents"]}
