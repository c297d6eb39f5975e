"""MinHash: signatures and the whole de-duplication, beside datasketch and rensa.

    python benchmarks/bench_minhash.py --pool POOL [--pool POOL]... --peer PYTHON [--million] --json benchmarks/results/minhash.json

POOL is a folder of Parquet files with a column `text`; PYTHON is that of an environment with datasketch, rensa and
pyarrow. Speeds are MB of UTF-8 per CPU second of one process, medians, over the first pool; equal results are
checked before anything is timed. `--million` makes a million documents, twice, and measures time and memory.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import measure
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from curate import minhash, ngrams
from curate.minhash import MinhashSpec

ROUNDS = 5
LEVELS = ("scalar", "sse2", "avx2", "avx512")
THRESHOLD, HIGH = 0.7, 0.8
JUDGED = 5000

# Runs in the peers' environment, on one file: their signatures from text, and the same de-duplication by MinHashLSH.
PEERS = """
import json, sys, time
import pyarrow.parquet as pq
from datasketch import MinHash, MinHashLSH
import rensa
file, out = sys.argv[1:3]
def shingles(text):
    w = text.lower().split()
    return [" ".join(w[i:i + 5]) for i in range(len(w) - 4)] or ([" ".join(w)] if w else [])
def timed(work):
    start = time.process_time()
    found = work()
    return found, time.process_time() - start
texts = [t for t in pq.read_table(file)["text"].to_pylist()]
def by_datasketch(scheme):
    found = []
    for text in texts:
        m = MinHash(num_perm=128, seed=1, scheme=scheme)
        m.update_batch([s.encode() for s in shingles(text)])
        found.append(m)
    return found
def by_rensa():
    found = []
    for text in texts:
        m = rensa.RMinHash(num_perm=128, seed=1)
        m.update(shingles(text))
        found.append(m)
    return found
seconds, signatures = {}, {}
for scheme in ("affine32", "legacy"):
    found, seconds["datasketch " + scheme] = timed(lambda: by_datasketch(scheme))
    signatures[scheme] = [[int(v) for v in m.hashvalues] for m in found[:300]]
_, seconds["rensa"] = timed(by_rensa)
def whole():
    texts = pq.read_table(file)["text"].to_pylist()
    lsh, signed, sets = MinHashLSH(threshold=0.7, num_perm=128), [], []
    for i, text in enumerate(texts):
        grams = shingles(text)
        m = MinHash(num_perm=128)
        m.update_batch([s.encode() for s in grams])
        signed.append(m); sets.append(set(grams))
        if grams: lsh.insert(i, m)
    parent = list(range(len(texts)))
    def root(i):
        while parent[i] != i:
            parent[i] = parent[parent[i]]; i = parent[i]
        return i
    for i, m in enumerate(signed):
        if not sets[i]: continue
        for j in lsh.query(m):
            if j < i and root(i) != root(j) and len(sets[i] & sets[j]) >= 0.7 * len(sets[i] | sets[j]):
                parent[root(i)] = root(j)
    return [root(i) for i in range(len(texts))]
start = time.perf_counter()
clusters, seconds["whole"] = timed(whole)
json.dump({"seconds": seconds, "wall_whole": time.perf_counter() - start, "signatures": signatures, "duplicates": sum(c != i for i, c in enumerate(clusters))}, open(out, "w"))
"""

# A small process of its own: a child's peak is never below what its parent held when it was started.
MEASURED = """
import resource, subprocess, sys, time
start = time.perf_counter()
subprocess.run([sys.executable, *sys.argv[1:]], check=True)
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print(time.perf_counter() - start, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024)
"""


def read(pool: Path) -> pa.ChunkedArray:
    """All texts that are there, as one chunk."""
    column = ds.dataset(pool).to_table(columns=["text"])["text"]
    return pa.chunked_array([column.filter(pc.is_valid(column)).cast(pa.large_string()).combine_chunks()])


def bytes_of(text: pa.ChunkedArray) -> int:
    return int(ngrams.text_stats(text)[0].sum())


def speed(text: pa.ChunkedArray, work: Callable[[], object]) -> float:
    """MB per CPU second, the median."""
    work()
    times = []
    for _ in range(ROUNDS):
        start = time.process_time()
        work()
        times.append(time.process_time() - start)
    return round(bytes_of(text) / 1e6 / statistics.median(times), 1)


def kernels(text: pa.ChunkedArray) -> dict[str, dict[str, float]]:
    """Signatures by instruction set; equal bits are checked first."""
    specs = {
        "native": MinhashSpec(unit="scripts"), "native, unit: word": MinhashSpec(unit="word"), "native, 256 permutations": MinhashSpec(num_perm=256),
        "legacy permutations, fast hash": MinhashSpec(scheme="legacy", hash="mix64"), "affine32 with its SHA-1": MinhashSpec(scheme="affine32"),
        "legacy with its SHA-1": MinhashSpec(scheme="legacy"),
    }  # fmt: skip
    found: dict[str, dict[str, float]] = {}
    for name, spec in specs.items():
        found[name], bits = {}, set()
        for level in LEVELS:
            os.environ["CURATE_SIMD"] = level
            bits.add(minhash.signatures(text.slice(0, 2000), spec).values.tobytes())
            slow = level in ("scalar", "sse2") or "SHA-1" in name
            shown = text.slice(0, 6000) if slow else text
            found[name][level] = speed(shown, lambda shown=shown, spec=spec: minhash.signatures(shown, spec))  # type: ignore[misc]
        del os.environ["CURATE_SIMD"]
        if len(bits) != 1:
            raise SystemExit(f"{name}: the variants do not agree")
    found["sets of shingles, for verification"] = {"best": speed(text, lambda: minhash.shingle_sets(text, MinhashSpec()))}
    return found


def truth(texts: list[str]) -> dict[tuple[int, int], float]:
    """Jaccard indices of all pairs that share a word 5-gram held by fewer than 300."""
    sets: list[set[str]] = []
    holders: dict[str, list[int]] = defaultdict(list)
    for i, text in enumerate(texts):
        words = text.lower().split()
        sets.append({" ".join(words[k : k + 5]) for k in range(len(words) - 4)} or {" ".join(words)})
        for gram in sets[-1]:
            holders[gram].append(i)
    pairs = {(a, b) for held in holders.values() if len(held) < 300 for n, a in enumerate(held) for b in held[n + 1 :]}
    return {(a, b): len(sets[a] & sets[b]) / len(sets[a] | sets[b]) for a, b in pairs}


def judged(pool: Path) -> dict[str, Any]:
    """Recall, precision and the curve on 5,000 documents of a pool, with words as the unit."""
    texts = [t for t in read(pool).to_pylist() if t.strip()]
    texts = [texts[i] for i in np.random.default_rng(5).permutation(len(texts))[: 3 * JUDGED]]
    texts = sorted(texts, key=lambda t: t[:40])[:JUDGED]  # near ones stand together, so that there are pairs to find
    index = truth(texts)
    spec = MinhashSpec(unit="word")
    bands, rows = minhash.choose_bands(THRESHOLD, spec.num_perm)
    keys = minhash.band_keys(minhash.signatures(pa.array(texts), spec).values, bands, rows)
    near = [(a, b, j) for (a, b), j in index.items() if 0.4 <= j < 1.0]
    met = sum(bool((keys[a] == keys[b]).any()) for a, b, _ in near)
    chance = np.array([minhash.detection(j, bands, rows) for *_, j in near])
    spread = float(np.sqrt((chance * (1 - chance)).sum()))
    with tempfile.TemporaryDirectory() as folder:
        pq.write_table(pa.table({"text": texts}), f"{folder}/p.parquet")
        from curate import api

        api.dedup("minhash", f"{folder}/p.parquet", out=f"{folder}/o.parquet", settings={"unit": "word", "keep": "first"}, workers=1)
        said = pq.read_table(f"{folder}/o.parquet").to_pylist()
    cluster = clusters_of(said)
    high = [pair for pair, j in index.items() if j >= HIGH]
    joined = sum(cluster[a] is not None and cluster[a] == cluster[b] for a, b in high)
    false = sum(not supported(members, index) for members in members_of(cluster).values())
    return {
        "documents": len(texts), "pairs_at_0.8": len(high), "recall": round(joined / max(len(high), 1), 4), "clusters": len(members_of(cluster)),
        "clusters_that_pairs_at_0.7_do_not_join": false, "pairs_from_0.4": len(near), "met": met, "expected": round(float(chance.sum()), 1),
        "standard_deviation": round(spread, 1),
    }  # fmt: skip


def clusters_of(said: list[dict[str, Any]]) -> list[int | None]:
    """The cluster of each row, as a number: without ids, identity and size together tell clusters apart."""
    names: dict[str, int] = {}
    return [None if r["minhash_cluster"] is None else names.setdefault(r["minhash_cluster"], len(names)) for r in said]


def members_of(cluster: list[int | None]) -> dict[int, list[int]]:
    members: dict[int, list[int]] = defaultdict(list)
    for i, name in enumerate(cluster):
        if name is not None:
            members[name].append(i)
    return members


def supported(members: list[int], index: dict[tuple[int, int], float]) -> bool:
    """Whether pairs at the threshold connect all members."""
    reached, waiting = {members[0]}, [members[0]]
    while waiting:
        at = waiting.pop()
        for other in members:
            if other not in reached and index.get((min(at, other), max(at, other)), 0.0) >= THRESHOLD:
                reached.add(other)
                waiting.append(other)
    return len(reached) == len(members)


def whole(pool: Path, workers: int) -> dict[str, float]:
    """`curate dedup minhash` from start to end: wall and CPU seconds, and the largest process; its modules compiled, as installed."""
    with tempfile.TemporaryDirectory() as folder:
        surroundings = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        surroundings["PYTHONPYCACHEPREFIX"] = f"{folder}/compiled"
        words = ["-m", "curate", "dedup", "minhash", str(pool), "--workers", str(workers), "-q", "-o", f"{folder}/o.parquet"]
        walls, cpus, peaks = [], [], []
        for _ in range(3):
            done = subprocess.run([sys.executable, "-c", MEASURED, *words], check=True, capture_output=True, text=True, env=surroundings)
            wall, cpu, peak = map(float, done.stdout.split())
            walls.append(wall)
            cpus.append(cpu)
            peaks.append(peak)
    return {"wall_seconds": round(statistics.median(walls), 2), "cpu_seconds": round(statistics.median(cpus), 2), "largest_process_mb": round(max(peaks))}


def beside_the_peers(text: pa.ChunkedArray, python: str) -> dict[str, Any]:
    """The peers on a part of the pool; their signatures must be ours."""
    part = text.slice(0, 6000)
    with tempfile.TemporaryDirectory() as folder:
        pq.write_table(pa.table({"text": part}), f"{folder}/p.parquet", compression="zstd")
        (Path(folder) / "peers.py").write_text(PEERS)
        subprocess.run([python, f"{folder}/peers.py", f"{folder}/p.parquet", f"{folder}/peers.json"], check=True)
        said = json.loads((Path(folder) / "peers.json").read_text())
    for scheme, theirs in said["signatures"].items():
        ours = minhash.signatures(part.slice(0, 300), MinhashSpec(scheme=scheme, unit="word"))
        shown = np.flatnonzero(ours.shingles > 0)
        if ours.values[shown].tolist() != [theirs[i] for i in shown]:
            raise SystemExit(f"the signatures of datasketch's {scheme} differ from ours")
    size = bytes_of(part) / 1e6
    return {
        "documents": len(part), "mb": round(size, 1), "mb_per_cpu_second": {k: round(size / s, 2) for k, s in said["seconds"].items()},
        "wall_seconds_whole": round(said["wall_whole"], 2), "duplicates": said["duplicates"],
    }  # fmt: skip


def million(folder: Path, *, one: bool) -> None:
    """A million documents of 50 to 150 words; every fifth is like the one before it; with `one`, a tenth is one text."""
    draw = np.random.default_rng(0)
    letters = np.array(list("abcdefghijklmnopqrstuvwxyz"))
    words = pa.array(["".join(draw.choice(letters, size=draw.integers(2, 10))) for _ in range(30_000)])
    chance = np.cumsum(1 / np.arange(1, 30_001) ** 0.8)
    for number in range(20):
        lengths = draw.integers(50, 150, 50_000)
        lengths[1::5] = lengths[0::5]
        ends = np.r_[0, np.cumsum(lengths)].astype(np.int32)
        found = np.searchsorted(chance / chance[-1], draw.random(ends[-1])).astype(np.int32)
        for i in range(0, 50_000, 5):
            found[ends[i + 1] : ends[i + 2]] = found[ends[i] : ends[i + 1]]
            changed = draw.integers(0, 4)
            found[ends[i + 1] + draw.integers(0, lengths[i], changed)] = draw.integers(0, 30_000, changed)
        text = pc.binary_join(pa.ListArray.from_arrays(pa.array(ends), words.take(pa.array(found))), " ")
        if one:
            here = np.zeros(50_000, bool)
            here[draw.permutation(50_000)[:5000]] = True
            text = pc.if_else(pa.array(here), pa.scalar("All rights reserved. " * 30), text)
        names = pa.array([f"{number}-{i}" for i in range(50_000)])
        pq.write_table(pa.table({"id": names, "text": text}), folder / f"{number:02}.parquet", compression="zstd")


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--pool", type=Path, action="append", required=True)
    words.add_argument("--peer", help="the Python of an environment with datasketch, rensa and pyarrow")
    words.add_argument("--million", action="store_true")
    words.add_argument("--workers", type=int, default=2)
    words.add_argument("--json", type=Path)
    given = words.parse_args()
    text = read(given.pool[0])
    size, count = bytes_of(text), int(ngrams.text_stats(text)[1].sum())
    run = whole(given.pool[0], given.workers)
    result: dict[str, Any] = {
        "what": "MinHash, MB of UTF-8 per CPU second of one process, median; 128 permutations, 5 tokens a shingle",
        **measure.about(),
        "text": {"pool": given.pool[0].name, "documents": len(text), "bytes": size, "words": count},
        "mb_per_cpu_second": kernels(text),
        "whole": {**run, "workers": given.workers, "mb": round(size / 1e6, 1), "mb_per_cpu_second": round(size / 1e6 / run["cpu_seconds"], 1)},
        "judged": {pool.name: judged(pool) for pool in given.pool},
    }
    if given.peer:
        peers = result["peers"] = beside_the_peers(text, given.peer)
        result["whole"]["times_datasketch"] = round((size / 1e6 / run["wall_seconds"]) / (peers["mb"] / peers["wall_seconds_whole"]), 1)
    if given.million:
        result["million"] = {}
        for name, one in (("a million documents", False), ("a million, of which 100,000 are one text", True)):
            with tempfile.TemporaryDirectory() as folder:
                million(Path(folder), one=one)
                there = read(Path(folder))
                run = whole(Path(folder), given.workers)
                result["million"][name] = {**run, "mb": round(bytes_of(there) / 1e6, 1)}
                result["million"][name]["mb_per_cpu_second"] = round(bytes_of(there) / 1e6 / run["cpu_seconds"], 1)
                if given.peer:
                    theirs = beside_the_peers(there, given.peer)
                    ratio = (bytes_of(there) / 1e6 / run["wall_seconds"]) / (theirs["mb"] / theirs["wall_seconds_whole"])
                    result["million"][name]["datasketch_mb_per_cpu_second"] = theirs["mb_per_cpu_second"]["whole"]
                    result["million"][name]["times_datasketch"] = round(ratio, 1)
    report = json.dumps(result, indent=1)
    print(report)
    if given.json:
        given.json.write_text(report + "\n", "utf-8")


if __name__ == "__main__":
    main()
