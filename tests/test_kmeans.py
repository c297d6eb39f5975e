"""Spherical k-means: what it finds where the answer is plain, and that it is the same whatever the threads."""

from __future__ import annotations

import doctest
from pathlib import Path

import numpy as np
import pyarrow as pa

from curate import kmeans
from curate.vectors import VectorFile


def file_of(tmp_path: Path, rows: np.ndarray) -> VectorFile:
    file = VectorFile(tmp_path / "v", pa.list_(pa.float32(), rows.shape[1]), "v")
    file.add(pa.FixedSizeListArray.from_arrays(pa.array(rows.astype(np.float32).ravel()), rows.shape[1]))
    return file


def test_the_examples_of_the_module() -> None:
    assert doctest.testmod(kmeans).failed == 0


def test_directions_far_apart_are_clusters_and_lengths_do_not_matter(tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    group = random.integers(0, 4, 400)
    rows = np.eye(4)[group] + random.normal(size=(400, 4)) * 0.05
    rows *= random.uniform(0.1, 10, 400)[:, None]
    draw = random.integers(0, 2**63, 400).astype(np.uint64)
    # a start may lie badly; of these seeds one must find the four
    found = [kmeans.clustered(file_of(tmp_path, rows), np.arange(400), draw, 4, iterations=20, seed=s) for s in range(4)]
    right = [len({(g, c) for g, c in zip(group.tolist(), cluster.tolist(), strict=True)}) == 4 for cluster, _, _ in found]
    assert any(right)
    cluster, similarity, centroids = found[right.index(True)]
    assert np.abs(np.linalg.norm(centroids, axis=1) - 1).max() < 1e-6
    exact = (rows / np.linalg.norm(rows, axis=1)[:, None] * centroids[cluster]).sum(axis=1)
    assert np.abs(similarity - exact).max() < 2e-6
    assert (similarity * kmeans.GRID == np.round(similarity * kmeans.GRID)).all()


def test_threads_change_no_bit(tmp_path: Path) -> None:
    import faiss

    random = np.random.default_rng(2)
    rows = random.normal(size=(3000, 24))
    draw = random.integers(0, 2**63, 3000).astype(np.uint64)
    before = faiss.omp_get_max_threads()
    found = []
    try:
        for threads in (1, 4):
            faiss.omp_set_num_threads(threads)
            found.append(kmeans.clustered(file_of(tmp_path, rows), np.arange(3000), draw, 20, iterations=5, seed=1))
            assert faiss.omp_get_max_threads() == threads
    finally:
        faiss.omp_set_num_threads(before)
    assert all((a == b).all() for a, b in zip(*found, strict=True))


def test_more_clusters_than_directions_is_no_error(tmp_path: Path) -> None:
    file = file_of(tmp_path, np.ones((6, 3)))
    cluster, similarity, _ = kmeans.clustered(file, np.arange(6), np.arange(6, dtype=np.uint64), 6, iterations=3, seed=1)
    assert len(set(cluster.tolist())) == 1
    assert similarity.tolist() == [1.0] * 6
