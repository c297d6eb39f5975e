"""What a nightly run costs: CPU seconds until it says that there is nothing to do, and what it reads when a file was added.

    python benchmarks/bench_nightly.py --json OUT

Two pools of 1,000 parts each: 1,000 files, and one file of 1,000 row groups; length, exact duplicates, DSIR with a
frozen state, a choice. CPU is that of the whole process and its children, from its start.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import measure
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

PARTS = 1000
DOCUMENTS = 50  # in a part
WORDS = 60  # in a document
#: Longer than the time for which a file that has just been written is in doubt.
SETTLE_SECONDS = 2.5


def main() -> None:
    """Measure and write the result."""
    words = argparse.ArgumentParser()
    words.add_argument("--rounds", type=int, default=5)
    words.add_argument("--json", required=True)
    given = words.parse_args()
    found: dict[str, Any] = {"what": "nightly runs over 1,000 parts: CPU seconds of the whole process, median", **measure.about()}
    with tempfile.TemporaryDirectory() as scratch:
        for shape in ("files", "row_groups"):
            found[shape] = nightly(Path(scratch) / shape, shape, given.rounds)
    Path(given.json).write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(found, indent=1))


def nightly(folder: Path, shape: str, rounds: int) -> dict[str, Any]:
    """A first run, runs with nothing to do, and a run with one file more."""
    make_pool(folder, shape)
    recipe = folder / "r.yaml"
    recipe.write_text(
        f"corpus: {{paths: ['{folder}/pool/*.parquet'], id: id, part_bytes: {20_000 if shape == 'row_groups' else 64_000_000}}}\n"
        f"targets: {{t: {{guide: ['{folder}/guide.jsonl']}}}}\n"
        "stages: [{length: {min_words: 5}}, {dedup_exact: {}}, {dsir: {state: frozen}}, {select: {by: dsir, budget: 500}}]\n"
    )
    time.sleep(SETTLE_SECONDS)
    first_cpu, first = run(recipe, folder)
    quiet = [run(recipe, folder) for _ in range(rounds)]
    assert all(told["unchanged"] and told["parts"]["unchanged"] == PARTS for _, told in quiet)
    write(folder / "pool" / "more.parquet", np.random.default_rng(99), 1, PARTS)
    added_cpu, added = run(recipe, folder)
    read = texts_read(folder / "run" / "events.jsonl")
    return {
        "parts": first["parts"]["new"], "documents": first["documents"],
        "first_cpu_seconds": round(first_cpu, 2), "first_seconds": first["seconds"],
        "nothing_to_do_cpu_seconds": round(statistics.median(cpu for cpu, _ in quiet), 3),
        "nothing_to_do_cpu_seconds_all": [round(cpu, 3) for cpu, _ in quiet],
        "ledger_files": pq.read_metadata(folder / "run" / "ledger.parquet").num_rows,
        "one_file_added": {
            "cpu_seconds": round(added_cpu, 2), "seconds": added["seconds"], "parts": added["parts"], "documents_in_it": DOCUMENTS,
            "documents_read_by_pass": read,
            "stages": {s["label"]: {k: s[k] for k in ("measured", "judged", "fitted", "state", "finish")} for s in added["stages"]},
        },
    }  # fmt: skip


def make_pool(folder: Path, shape: str) -> None:
    """1,000 parts of text drawn from 2,000 words, and a guide."""
    (folder / "pool").mkdir(parents=True)
    random = np.random.default_rng(1)
    if shape == "files":
        for n in range(PARTS):
            write(folder / "pool" / f"{n:04d}.parquet", random, 1, n)
    else:
        write(folder / "pool" / "all.parquet", random, PARTS, 0)
    texts = documents(random, 200)
    (folder / "guide.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))


def write(path: Path, random: np.random.Generator, groups: int, first: int) -> None:
    """Row groups of documents; ids go on from part `first`."""
    count = groups * DOCUMENTS
    ids = [f"d{first * DOCUMENTS + i}" for i in range(count)]
    pq.write_table(pa.table({"id": ids, "text": documents(random, count)}), path, row_group_size=DOCUMENTS)


def documents(random: np.random.Generator, count: int) -> list[str]:
    """Texts of WORDS words."""
    return [" ".join(f"w{w}" for w in row) for row in random.integers(0, 2000, (count, WORDS)).tolist()]


def run(recipe: Path, folder: Path) -> tuple[float, dict[str, Any]]:
    """CPU seconds of a run, and its summary."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    words = [sys.executable, "-m", "curate", "run", str(recipe), "--run", str(folder / "run"), "--summary-json", str(folder / "s.json"), "-q"]
    subprocess.run(words, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return cpu, json.loads((folder / "s.json").read_text())


def texts_read(events: Path) -> dict[str, int]:
    """How many documents' texts each pass of the last run read."""
    told = [json.loads(line) for line in events.read_text().splitlines()]
    last = max(i for i, event in enumerate(told) if event["event"] == "started")
    return {event["phase"]: event["documents"] for event in told[last:] if event["event"] == "phase" and event["documents"]}


if __name__ == "__main__":
    main()
