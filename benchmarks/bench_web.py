"""The shipped recipe for web text from Parquet to Parquet, with two workers: wall and CPU seconds, by phase.

    python benchmarks/bench_web.py --pool FOLDER_OF_PARQUET [--mb 400] [--json benchmarks/results/web.json]

The pool's rows are repeated, each copy marked and shuffled, until there are --mb of text (10^6 bytes of UTF-8). On a machine that others
use, `mb_per_cpu_second` says more than the wall clock: two idle cores would do at most twice that.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import measure
from bench_run import grow


def children() -> float:
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    return spent.ru_utime + spent.ru_stime


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("--pool", type=Path, required=True)
    words.add_argument("--mb", type=int, default=400)
    words.add_argument("--recipe", default="web")
    words.add_argument("--json", type=Path)
    given = words.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-web-") as scratch:
        folder = Path(scratch)
        result: dict[str, Any] = {"what": "curate run web, two workers", "about": measure.about()}
        size = grow(given.pool, folder / "pool", given.mb)
        before, started = children(), time.perf_counter()
        command = [sys.executable, "-m", "curate", "run", given.recipe, "--run", "run", "--workers", "2", "-q", "--set", "corpus.paths=[pool]"]
        subprocess.run(command, check=True, cwd=folder)
        wall, spent = time.perf_counter() - started, children() - before
        events = [json.loads(line) for line in (folder / "run" / "events.jsonl").read_text().splitlines()]
        finished = next(e for e in events if e["event"] == "finished")
        result |= {
            "text_mb": round(size, 1), "documents": finished["documents"], "kept": finished["kept"], "seconds": round(wall, 1), "cpu_seconds": round(spent, 1),
            "mb_per_second": round(size / wall, 1), "mb_per_cpu_second": round(size / spent, 1), "worker_peak_bytes": finished["worker_peak_bytes"],
            "phases": [{k: e[k] for k in ("phase", "seconds", "documents", "bytes") if k in e} for e in events if e["event"] == "phase" and "seconds" in e],
        }  # fmt: skip
    print(json.dumps(result, indent=1))
    if given.json:
        given.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
