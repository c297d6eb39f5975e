"""A whole `curate run` (zstd Parquet in; fit, score, resample; Parquet out) beside merely reading the text twice, and
beside data-selection end to end. Equality first, then time; rounds in turn, so that a noisy machine hurts all alike.

    python benchmarks/bench_run.py --pool DIR_OF_PARQUET --guide FILE.jsonl [--mb 500] [--big-mb 2000] [--peer PYTHON] --json OUT

The pool's rows are repeated, each copy marked, until there are --mb of text. --peer is a Python that has
data-selection 1.0.3; it works on --peer-mb of the same rows (its MB/s does not depend on how many).
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
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
import pyarrow.compute as pc
import pyarrow.parquet as pq

READ_TWICE = """
import sys, time, pyarrow as pa, pyarrow.parquet as pq
pa.set_cpu_count(2)
files = sys.argv[1:]
start = time.perf_counter()
for _ in range(2):
    for file in files:
        pq.read_table(file, columns=["text"], use_threads=True)
print(time.perf_counter() - start)
"""
PEER = """
import sys, time, numpy as np
from data_selection import HashedNgramDSIR
pool, guide, folder = sys.argv[1:]
start = time.perf_counter()
dsir = HashedNgramDSIR([pool], [guide], cache_dir=folder + "/cache", num_proc=2, min_example_length=1)
dsir.fit_importance_estimator(num_tokens_to_fit="all")
dsir.compute_importance_weights()
dsir.resample(out_dir=folder + "/out", num_to_sample=200, cache_dir=folder + "/resampled")
print(time.perf_counter() - start)
"""


def main() -> None:
    """Measure and write the result."""
    words = argparse.ArgumentParser()
    words.add_argument("--pool", required=True)
    words.add_argument("--guide", required=True)
    words.add_argument("--mb", type=int, default=500)
    words.add_argument("--big-mb", type=int, default=0)
    words.add_argument("--peer")
    words.add_argument("--peer-mb", type=int, default=20)
    words.add_argument("--rounds", type=int, default=5)
    words.add_argument("--json", required=True)
    given = words.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-run-") as scratch:
        folder = Path(scratch)
        result: dict[str, Any] = {"what": "whole curate run", **measure.about()}
        shutil.copy(given.guide, folder / "guide.jsonl")
        megabytes = grow(Path(given.pool), folder / "pool", given.mb)
        result["text_mb"] = round(megabytes, 1)
        result |= run_against_reading(folder, given.rounds)
        result["run_mb_per_s"] = round(megabytes / result["run_seconds"], 1)
        if given.peer:
            result |= against_peer(folder, given.peer, given.peer_mb, result["run_mb_per_s"])
        if given.big_mb:
            shutil.rmtree(folder / "pool")
            big = grow(Path(given.pool), folder / "pool", given.big_mb)
            _, seconds, peak = run_once(folder)
            result |= {"big_text_mb": round(big, 1), "big_seconds": round(seconds, 2), "big_worker_peak_mb": round(peak / 1e6, 1),
                       "big_over_small_peak": round(peak / 1e6 / result["worker_peak_mb"], 3)}  # fmt: skip
    Path(given.json).write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


def grow(source: Path, out: Path, megabytes: int) -> float:
    """Write the pool's rows again and again, shuffled, each copy marked, until there is enough text; return its MB."""
    out.mkdir()
    tables = [pq.read_table(f, columns=["text", "source"]) for f in sorted(source.rglob("*.parquet"))]
    rows = pa.concat_tables(tables).combine_chunks()
    each = pc.sum(pc.binary_length(rows["text"])).as_py() / 1e6
    total, copy = 0.0, 0
    while total < megabytes:
        order = np.random.default_rng(copy).permutation(rows.num_rows)
        mixed = rows.take(pa.array(order))
        text = pc.binary_join_element_wise(mixed["text"], pa.scalar(f"copy {copy}"), " ")
        table = pa.table({"id": [f"{copy}-{i}" for i in range(rows.num_rows)], "text": text, "source": mixed["source"]})
        for part in range(2):
            piece = table.slice(part * (rows.num_rows // 2), rows.num_rows // 2)
            pq.write_table(piece, out / f"part-{copy:03d}-{part}.parquet", compression="zstd", row_group_size=16384)
        total += each
        copy += 1
    return total


def run_once(folder: Path, *more: str) -> tuple[float, float, int]:
    """One run in a fresh folder: CPU seconds, wall seconds, the largest worker's peak bytes."""
    recipe = folder / "recipe.yaml"
    recipe.write_text(
        "corpus: {paths: [pool], text: text, id: id, source: source}\ntargets: {t: {guide: [guide.jsonl]}}\nseed: 7\n"
        "stages: [{dsir: {}}, {select: {by: dsir, how: resample, budget: 5%}}]\n"
    )
    out = folder / "run"
    shutil.rmtree(out, ignore_errors=True)
    before = children()
    start = time.perf_counter()
    subprocess.run([sys.executable, "-m", "curate", "run", str(recipe), "--run", str(out), "--workers", "2", "-q", *more], check=True)
    seconds = time.perf_counter() - start
    events = [json.loads(line) for line in (out / "events.jsonl").read_text().splitlines()]
    finished = next(e for e in events if e["event"] == "finished")
    published = sum(pq.read_metadata(f).num_rows for f in (out / "mixture" / "data").glob("*.parquet"))
    assert published == finished["kept"] == finished["documents"] * 5 // 100, "the run did not publish what it chose"
    return children() - before, seconds, finished["worker_peak_bytes"]


def children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def run_against_reading(folder: Path, rounds: int) -> dict[str, Any]:
    """Read twice and run, in turn."""
    files = [str(f) for f in sorted((folder / "pool").glob("*.parquet"))]
    reads, runs, cpu, peaks = [], [], [], []
    for _ in range(rounds):
        reads.append(float(subprocess.run([sys.executable, "-c", READ_TWICE, *files], check=True, capture_output=True).stdout))
        used, seconds, peak = run_once(folder)
        runs.append(seconds)
        cpu.append(used)
        peaks.append(peak)
    return {
        "read_twice_seconds": round(statistics.median(reads), 3), "run_seconds": round(statistics.median(runs), 3),
        "run_cpu_seconds": round(statistics.median(cpu), 3),
        "run_over_read_twice": round(statistics.median(r / b for r, b in zip(runs, reads, strict=True)), 2),
        "rounds": [[round(b, 3), round(r, 3)] for b, r in zip(reads, runs, strict=True)],
        "worker_peak_mb": round(max(peaks) / 1e6, 1),
    }  # fmt: skip


def against_peer(folder: Path, peer: str, megabytes: int, ours: float) -> dict[str, Any]:
    """The peer end to end on the first rows; its weights equal ours with sha256 before its time counts."""
    table = pq.read_table(folder / "pool" / "part-000-0.parquet")
    sizes = np.cumsum(pc.binary_length(table["text"]).to_numpy())
    table = table.slice(0, int(np.searchsorted(sizes, megabytes * 1e6)))
    taken = pc.sum(pc.binary_length(table["text"])).as_py() / 1e6
    with open(folder / "peer.jsonl", "w") as file:
        file.writelines(json.dumps({"text": text}) + "\n" for text in table["text"].to_pylist())
    words = [peer, "-c", PEER, str(folder / "peer.jsonl"), str(folder / "guide.jsonl"), str(folder)]
    seconds = float(subprocess.run(words, check=True, capture_output=True).stdout.split()[-1])
    shards = sorted((folder / "cache" / "log_importance_weights").glob("*.npy"), key=lambda f: int(f.stem))
    theirs = np.empty(table.num_rows)
    for number, file in enumerate(shards):
        theirs[number :: len(shards)] = np.load(file)
    out = folder / "scores.parquet"
    subprocess.run([sys.executable, "-m", "curate", "score", "dsir", str(folder / "peer.jsonl"), "--target", str(folder / "guide.jsonl"),
                    "--set", "hash=sha256", "-o", str(out), "-q"], check=True)  # fmt: skip
    mine = pq.read_table(out)["dsir"].to_numpy()
    known = ~np.isnan(mine)
    worst = float(np.max(np.abs(mine - theirs)[known] / np.maximum(1, np.abs(theirs[known]))))
    assert worst < 1e-9, f"scores differ from data-selection's by {worst}"
    return {
        "peer": "data-selection 1.0.3, num_proc=2, fit all, score, resample", "peer_text_mb": round(taken, 1),
        "peer_mb_per_s": round(taken / seconds, 3), "run_over_peer": round(ours / (taken / seconds), 1), "largest_relative_difference": worst,
    }  # fmt: skip


if __name__ == "__main__":
    main()
