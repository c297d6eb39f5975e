"""Measure the DSIR kernels per core, beside data-selection's featuriser on the same text.

    python benchmarks/bench_ngrams.py [--pool FOLDER_OF_PARQUET] [--mb 50] [--peer PYTHON] [--peer-mb 4]
        [--callgrind] [--json benchmarks/results/ngrams.json]

Without --pool the text is the source of Python's standard library. --peer is the Python of an environment with
data-selection 1.0.3 and nltk 3.8.1; its weights must be ours before anything is timed. MB are 10^6 bytes of UTF-8,
times CPU seconds of one thread, the median of seven. --callgrind counts instructions with valgrind.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import measure
import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds

from curate import ngrams
from curate.ngrams import NgramSpec

ROUNDS = 7
LEVELS = ("scalar", "sse2", "avx2", "sha")

# Runs in the peer's environment: weights of every text by its own estimator, then its featuriser's CPU seconds.
PEER = """
import json, sys, time
from data_selection import HashedNgramDSIR
folder, rounds = sys.argv[1], int(sys.argv[2])
texts = [json.loads(line)["text"] for line in open(folder + "/pool.jsonl", encoding="utf-8")]
dsir = HashedNgramDSIR([folder + "/pool.jsonl"], [folder + "/target.jsonl"], cache_dir=folder + "/cache", num_proc=1)
dsir.fit_importance_estimator(num_tokens_to_fit="all")
seconds = []
for _ in range(rounds):
    start = time.process_time()
    weights = [float(dsir.importance_estimator(dsir.featurizer(text))) for text in texts]
    seconds.append(time.process_time() - start)
json.dump({"weights": weights, "seconds": seconds}, open(folder + "/peer.json", "w"))
"""

# Runs under callgrind, which counts inside the kernel only.
COUNTED = """
import sys
import numpy as np, pyarrow as pa
from curate import ngrams
text = pa.array([open(sys.argv[1], encoding="utf-8").read()])
spec = ngrams.NgramSpec()
ngrams.score(text, spec, np.zeros((1, spec.buckets)))
"""


def read(pool: Path | None, limit_bytes: int) -> list[str]:
    """Documents of at most `limit_bytes` in all, in a fixed shuffled order."""
    if pool is None:
        files = sorted(Path(sysconfig.get_paths()["stdlib"]).rglob("*.py"))
        texts = [file.read_text("utf-8", "ignore") for file in files if "site-packages" not in file.parts]
    else:
        texts = [text for text in ds.dataset(pool).to_table(columns=["text"])["text"].to_pylist() if text]
    kept, total = [], 0
    for i in np.random.default_rng(3).permutation(len(texts)):
        size = len(texts[i].encode())
        if total + size <= limit_bytes:
            kept.append(texts[i])
            total += size
    return kept


def speed(text: pa.Array, work: Callable[[], object]) -> float:
    """MB per CPU second; short work is repeated until it takes a tenth of a second."""
    size = int(ngrams.text_stats(text)[0].sum())
    start = time.process_time()
    work()
    turns = max(1, int(0.1 / max(time.process_time() - start, 1e-6)))
    times = []
    for _ in range(ROUNDS):
        start = time.process_time()
        for _ in range(turns):
            work()
        times.append((time.process_time() - start) / turns)
    return round(size / 1e6 / statistics.median(times), 1)


def ours(text: pa.Array) -> dict[str, float]:
    ratio = np.random.default_rng(0).normal(size=(8, 10_000))
    mix, sha = NgramSpec(), NgramSpec(hash="sha256")
    return {
        "score_mix64": speed(text, lambda: ngrams.score(text, mix, ratio[:1])),
        "count_mix64": speed(text, lambda: ngrams.count(text, mix)),
        "score_mix64_8_targets": speed(text, lambda: ngrams.score(text, mix, ratio)),
        "score_mix64_unigrams": speed(text, lambda: ngrams.score(text, NgramSpec(ngrams=1), ratio[:1])),
        "score_mix64_trigrams": speed(text, lambda: ngrams.score(text, NgramSpec(ngrams=3), ratio[:1])),
        "score_mix64_chars": speed(text, lambda: ngrams.score(text, NgramSpec(tokenizer="chars"), ratio[:1])),
        "score_sha256": speed(text, lambda: ngrams.score(text, sha, ratio[:1])),
        "count_sha256": speed(text, lambda: ngrams.count(text, sha)),
        "text_stats": speed(text, lambda: ngrams.text_stats(text)),
    }


def by_level(text: pa.Array) -> dict[str, dict[str, float]]:
    """The same kernels held to older processors; equal bits are checked first."""
    import os

    ratio = np.random.default_rng(0).normal(size=(1, 10_000))
    found: dict[str, dict[str, float]] = {}
    results = set()
    for level in LEVELS:
        os.environ["CURATE_SIMD"] = level
        results.add(ngrams.score(text, NgramSpec(), ratio)[0].tobytes())
        found[level] = {
            "score_mix64": speed(text, lambda: ngrams.score(text, NgramSpec(), ratio)),
            "score_sha256": speed(text, lambda: ngrams.score(text, NgramSpec(hash="sha256"), ratio)),
        }
    del os.environ["CURATE_SIMD"]
    if len(results) != 1:
        raise SystemExit("the variants do not agree")
    return found


def beside_the_peer(texts: list[str], python: str) -> dict[str, Any]:
    """The peer's weights must be ours to 1e-9 relative; then both on the same documents."""
    target = [text[:2000] for text in texts[:20]]
    with tempfile.TemporaryDirectory() as folder:
        for name, rows in (("pool", texts), ("target", target)):
            lines = "".join(json.dumps({"text": row}) + "\n" for row in rows)
            (Path(folder) / f"{name}.jsonl").write_text(lines, "utf-8")
        subprocess.run([python, "-c", PEER, folder, "5"], check=True, capture_output=True)
        peer = json.loads((Path(folder) / "peer.json").read_text())
    spec, text = NgramSpec(hash="sha256"), pa.array(texts)
    pool_counts, target_counts = ngrams.count(text, spec)[0], ngrams.count(pa.array(target), spec)[0]
    ratio = np.log(target_counts / target_counts.sum() + 1e-8) - np.log(
        pool_counts / pool_counts.sum() + 1e-8
    )
    weights = ngrams.score(text, spec, ratio[None])[0][:, 0]
    difference = np.nanmax(np.abs(weights - peer["weights"]) / np.maximum(np.abs(peer["weights"]), 1.0))
    if not difference < 1e-9:
        raise SystemExit(f"the peer's weights differ by {difference}")
    size = sum(len(row.encode()) for row in texts)
    peer_speed = size / 1e6 / statistics.median(peer["seconds"])
    same = {
        "score_mix64": speed(text, lambda: ngrams.score(text, NgramSpec(), ratio[None])),
        "score_sha256": speed(text, lambda: ngrams.score(text, spec, ratio[None])),
    }
    return {
        "peer": "data-selection 1.0.3, nltk 3.8.1: featurizer and importance_estimator",
        "documents": len(texts),
        "bytes": size,
        "largest_relative_difference": float(difference),
        "peer_mb_per_cpu_second": round(peer_speed, 3),
        "mb_per_cpu_second": same,
        "times_the_peer": {name: round(value / peer_speed, 1) for name, value in same.items()},
    }


def instructions_per_byte(text: str) -> float:
    """Instructions inside ngrams_score, scoring one document with mix64, n = 2."""
    with tempfile.TemporaryDirectory() as folder:
        sample = Path(folder) / "sample.txt"
        sample.write_text(text, "utf-8")
        command = [
            "valgrind",
            "--tool=callgrind",
            "--toggle-collect=ngrams_score",
            "--callgrind-out-file=/dev/null",
        ]
        done = subprocess.run(
            [*command, sys.executable, "-c", COUNTED, str(sample)], check=True, capture_output=True, text=True
        )
    found = re.search(r"Collected : (\d+)", done.stderr)
    if found is None:
        raise SystemExit("callgrind did not say what it collected")
    return round(int(found[1]) / len(text.encode()), 2)


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--pool", type=Path)
    words.add_argument("--mb", type=float, default=50)
    words.add_argument("--peer", help="the Python of an environment with data-selection")
    words.add_argument("--peer-mb", type=float, default=4)
    words.add_argument("--callgrind", action="store_true")
    words.add_argument("--json", type=Path)
    given = words.parse_args()
    texts = read(given.pool, int(given.mb * 1e6))
    text = pa.array(texts, pa.large_string())
    size = int(ngrams.text_stats(text)[0].sum())
    result: dict[str, Any] = {
        "what": "DSIR kernels, MB of UTF-8 per CPU second of one core, median; n = 2, 10,000 buckets",
        **measure.about(),
        "text": {
            "pool": given.pool.name if given.pool else "stdlib",
            "documents": len(texts),
            "bytes": size,
            "tokens": int(ngrams.score(text, NgramSpec(), np.zeros((1, 10_000)))[1].sum()),
        },
        "mb_per_cpu_second": ours(text),
        "by_instruction_set": by_level(text),
    }
    if given.callgrind and shutil.which("valgrind"):
        result["instructions_per_byte"] = instructions_per_byte("\n".join(texts)[:1_000_000])
    if given.peer:
        result["same_text"] = beside_the_peer(read(given.pool, int(given.peer_mb * 1e6)), given.peer)
    report = json.dumps(result, indent=1)
    print(report)
    if given.json:
        given.json.write_text(report + "\n", "utf-8")


if __name__ == "__main__":
    main()
