"""`curate verify` of a run beside merely hashing the same files once, with xxh3-128 and with SHA-256, in one process each.

    python benchmarks/bench_verify.py --pool DIR_OF_PARQUET --guide FILE.jsonl [--mb 500] [--keep 30%] --json OUT

MB are those of the files on the disk: what the run refers to and its inputs. Rounds in turn, the page cache warm.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import measure
from bench_run import children, grow

HASH = """
import hashlib, sys, time, xxhash
made = {"xxh3": xxhash.xxh3_128, "sha256": hashlib.sha256}[sys.argv[1]]
buffer = memoryview(bytearray(4 << 20))
start = time.perf_counter()
for name in sys.stdin.read().splitlines():
    hasher = made()
    with open(name, "rb", buffering=0) as file:
        while size := file.readinto(buffer):
            hasher.update(buffer[:size])
print(time.perf_counter() - start)
"""


def main() -> None:
    """Measure and write the result."""
    words = argparse.ArgumentParser()
    words.add_argument("--pool", required=True)
    words.add_argument("--guide", required=True)
    words.add_argument("--mb", type=int, default=500)
    words.add_argument("--keep", default="30%")
    words.add_argument("--rounds", type=int, default=5)
    words.add_argument("--json", required=True)
    given = words.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-verify-") as scratch:
        folder = Path(scratch)
        result: dict[str, Any] = {"what": "curate verify beside hashing its files", **measure.about()}
        result["text_mb"] = round(grow(Path(given.pool), folder / "pool", given.mb), 1)
        shutil.copy(given.guide, folder / "guide.jsonl")
        recipe = folder / "recipe.yaml"
        recipe.write_text(
            "corpus: {paths: [pool], id: id, source: source}\ntargets: {t: {guide: [guide.jsonl]}}\nseed: 7\n"
            f"stages: [{{dedup_exact: {{}}}}, {{dsir: {{}}}}, {{select: {{by: dsir, how: top_k, budget: {given.keep}}}}}]\n"
        )
        run = folder / "run"
        curate("run", str(recipe), "--run", str(run), "--workers", "2", "-q")
        result |= rounds(run, given.rounds)
    Path(given.json).write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


def curate(*words: str) -> str:
    """Call the command."""
    return subprocess.run([sys.executable, "-m", "curate", *words], check=True, capture_output=True, text=True).stdout


def rounds(run: Path, count: int) -> dict[str, Any]:
    """Verify and hash, in turn; the verification must hold."""
    from curate import ledger

    found = ledger.read(run)
    assert found is not None
    lock = json.loads((run / "recipe.lock.json").read_text())
    files = [str(found.path(entry)) for entry in found.entries] + [path for path, _, _ in lock["inputs"]]
    seconds: dict[str, list[float]] = {"verify": [], "xxh3": [], "sha256": []}
    report: dict[str, Any] = {}
    cpu = []
    for _ in range(count):
        start, used = time.perf_counter(), children()
        report = json.loads(curate("verify", str(run), "--workers", "2", "--json"))
        seconds["verify"].append(time.perf_counter() - start)
        cpu.append(children() - used)
        assert report["holds"]
        for name in ("xxh3", "sha256"):
            done = subprocess.run([sys.executable, "-c", HASH, name], input="\n".join(files), check=True, capture_output=True, text=True)
            seconds[name].append(float(done.stdout))
    megabytes = report["bytes"] / 1e6
    assert sum(Path(file).stat().st_size for file in files) == report["bytes"], "other files were hashed than verified"
    median = {name: statistics.median(found) for name, found in seconds.items()}
    return {
        "files": len(files), "file_mb": round(megabytes, 1), "verify_cpu_seconds": round(statistics.median(cpu), 3),
        **{f"{name}_seconds": round(value, 3) for name, value in median.items()},
        **{f"{name}_mb_per_s": round(megabytes / value, 1) for name, value in median.items()},
        "rounds": {name: [round(value, 3) for value in found] for name, found in seconds.items()},
        "checks": [check["what"] for check in report["checks"]],
    }  # fmt: skip


if __name__ == "__main__":
    main()
