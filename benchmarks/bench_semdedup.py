"""SemDeDup beside what it cannot avoid: FAISS's own k-means, the assignment, and the bare products within clusters.

    OMP_NUM_THREADS=1 python benchmarks/bench_semdedup.py [--documents 200000] [--dim 384] --json benchmarks/results/semdedup.json

Vectors are drawn around a few thousand directions, a tenth of them near another one. Ours is the whole finish: the spool
of vectors, DuckDB's order of identities, k-means, ranking, comparing, the answer. The peer is FAISS on the same sample with
the same settings, its search, and one float32 product X X^T for each cluster, its maxima not even looked at; vectors in
memory already. CPU seconds of one process, both in the same run; ours in a process of its own for its peak. Before anything
is timed, the result of a smaller pool is held against every pair of each cluster.
"""

from __future__ import annotations

import argparse
import itertools
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import measure
import numpy as np
import pyarrow as pa

from curate import kmeans, randomness
from curate.frame import Frame
from curate.pipelines.semdedup import Semdedup, SemdedupParams
from curate.stage import IDENTITY, KEY, Context
from curate.vectors import VectorFile, unit

BATCH = 8192


def drawn(documents: int, dim: int) -> Iterator[np.ndarray]:
    """Batches of unit vectors, float16."""
    random = np.random.default_rng(11)
    centres = random.normal(size=(max(16, documents // 60), dim)).astype(np.float32)
    for start in range(0, documents, BATCH):
        count = min(BATCH, documents - start)
        rows = centres[random.integers(0, len(centres), count)] + 0.9 * random.normal(size=(count, dim)).astype(np.float32)
        near = np.arange(1, count, 10)
        rows[near] = rows[near - 1] + 0.05 * random.normal(size=(len(near), dim)).astype(np.float32)
        yield unit(rows).astype(np.float16)


def batches(documents: int, dim: int) -> Iterator[pa.RecordBatch]:
    at = 0
    for rows in drawn(documents, dim):
        identity = pa.array([f"{randomness.stream(1, str(i)):016x}" for i in range(at, at + len(rows))])
        at += len(rows)
        vector = pa.FixedSizeListArray.from_arrays(pa.array(rows.ravel()), dim)
        yield pa.record_batch([pa.array(np.arange(at - len(rows), at)), vector, identity, pa.array(randomness.keys_of(identity))], names=["doc", "v", IDENTITY, KEY])


def ours(documents: int, dim: int, scratch: Path) -> tuple[pa.Table, float]:
    """The answer and the CPU seconds of the finish, without the drawing of the pool."""
    made = list(batches(documents, dim))
    params = SemdedupParams(vector="v")
    stage = Semdedup(params, Context("semdedup"))
    start = time.process_time()
    file = VectorFile(scratch / "vectors", made[0].schema.field("v").type, "v")
    frame = Frame(file.spooled_schema(made[0].schema), (file.spooled(b) for b in made), lambda docs: pa.table({}), vectors=[file], scratch=scratch, threads=1)
    answer = stage.finish(frame).read_all()
    seconds = time.process_time() - start
    frame.close()
    return answer, seconds


def bare(documents: int, dim: int) -> dict[str, float]:
    """CPU seconds of what cannot be avoided."""
    import faiss

    rows = np.concatenate(list(drawn(documents, dim))).astype(np.float32)
    k = kmeans.choose_k(documents)
    with kmeans.one_thread():
        start = time.process_time()
        means = faiss.Kmeans(dim, k, niter=SemdedupParams().iterations, seed=1234, spherical=True, min_points_per_centroid=1)
        means.train(rows)
        trained = time.process_time()
        _, cluster = means.index.search(rows, 1)
        assigned = time.process_time()
        order = np.argsort(cluster[:, 0], kind="stable")
        starts = np.searchsorted(cluster[order, 0], np.arange(k + 1))
        grouped = rows[order]
        begun = time.process_time()
        for a, b in itertools.pairwise(starts.tolist()):
            grouped[a:b] @ grouped[a:b].T
        done = time.process_time()
    return {"train": trained - start, "assign": assigned - trained, "products": done - begun}


def check(dim: int) -> None:
    """Every pair within each cluster, in float64."""
    with tempfile.TemporaryDirectory() as folder:
        answer, _ = ours(6000, dim, Path(folder))
    rows = np.concatenate(list(drawn(6000, dim))).astype(np.float64)
    rows /= np.linalg.norm(rows, axis=1)[:, None]
    names = pa.chunked_array([b.column(IDENTITY) for b in batches(6000, dim)]).to_pylist()
    cluster, nearness, found = (np.array(answer[n].to_numpy()) for n in ("cluster", "centroid_similarity", "similarity"))
    for c in range(int(cluster.max()) + 1):
        members = sorted(np.flatnonzero(cluster == c).tolist(), key=lambda i: (nearness[i], names[i]))
        if members:
            products = np.tril(rows[members] @ rows[members].T, -1)
            wanted = np.maximum(0, products.max(axis=1)) if len(members) > 1 else np.zeros(1)
            assert np.abs(found[members] - wanted).max() < 1e-12


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--documents", type=int, default=200_000)
    parser.add_argument("--dim", type=int, default=384)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--ours", action="store_true", help="only ours, its seconds and peak as JSON")
    args = parser.parse_args()
    if args.ours:
        with tempfile.TemporaryDirectory() as folder:
            answer, seconds = ours(args.documents, args.dim, Path(folder))
        dropped = int(np.sum(np.array(answer["similarity"].to_numpy()) > 0.95))
        print(json.dumps({"seconds": seconds, "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, "dropped_at_0.05": dropped}))
        return
    check(args.dim)
    rounds: list[dict[str, Any]] = []
    for _ in range(args.rounds):
        command = [sys.executable, __file__, "--ours", "--documents", str(args.documents), "--dim", str(args.dim)]
        mine = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        peer = bare(args.documents, args.dim)
        rounds.append({"ours": mine, "bare": peer, "ratio": mine["seconds"] / sum(peer.values())})
    ratios = sorted(r["ratio"] for r in rounds)
    result = {**measure.about(), "documents": args.documents, "dim": args.dim, "clusters": kmeans.choose_k(args.documents), "faiss": kmeans.version(),
              "rounds": rounds, "ratio_median": ratios[len(ratios) // 2], "peak_mb": max(r["ours"]["peak_mb"] for r in rounds)}  # fmt: skip
    print(json.dumps(result, indent=1))
    if args.json:
        args.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
