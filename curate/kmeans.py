"""Spherical k-means by FAISS, the same for any order of the documents, number of workers and cut into files.

Centroids are trained on at most SAMPLE documents for each, drawn by a hash of the identity, and every document goes to
the centroid of the largest inner product. All runs in one thread, and blocks of rows are cut in the order of identities:
a product's last bit may depend on where in a block a row stands, and so it always stands in the same place. Another
version of FAISS, or a processor with other instructions, may place a document that is as near to two centroids elsewhere.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt

from curate.vectors import Float32, Float64, Int64, VectorFile, unit

Int32 = npt.NDArray[np.int32]

#: Documents that a centroid is trained on; FAISS's own bound.
SAMPLE = 256
#: So many documents or fewer are one cluster: comparing all of them costs less than a second.
ONE = 4096
#: Rows that are held at once while documents are assigned.
_ROWS = 16384
#: Similarities to a centroid that are equal after rounding to 1 / GRID are ties: beyond it float32 is noise.
GRID = float(2**20)


def choose_k(documents: int) -> int:
    """The number of clusters for so many documents: 1 up to ONE, then the square root.

    >>> [choose_k(n) for n in (0, 4096, 4097, 200_000, 2_000_000)]
    [1, 1, 64, 447, 1414]
    """
    return 1 if documents <= ONE else round(math.sqrt(documents))


def version() -> str:
    """FAISS's version: another one may place centroids elsewhere."""
    from importlib.metadata import version as of

    return of("faiss-cpu")


@contextmanager
def one_thread() -> Iterator[None]:
    """One thread in every library of linear algebra: how they share a product among threads would show in its last bits."""
    import faiss  # noqa: F401 - its libraries must be there to be limited
    from threadpoolctl import threadpool_limits

    with threadpool_limits(limits=1):
        yield


def train(sample: Float32, k: int, *, iterations: int, seed: int) -> Float32:
    """Centroids float32[k, d] of length 1, of unit vectors float32[n, d] with n >= k."""
    import faiss

    with one_thread():
        means = faiss.Kmeans(
            sample.shape[1], k, niter=iterations, seed=seed & 0x7FFFFFFF, spherical=True, min_points_per_centroid=1, max_points_per_centroid=max(SAMPLE, -(-len(sample) // k))
        )  # fmt: skip
        means.train(np.ascontiguousarray(sample, np.float32))
        return np.array(means.centroids, np.float32)


def assign(file: VectorFile, slots: Int64, centroids: Float32) -> tuple[Int32, Float64]:
    """Each document's centroid, and its cosine with it, rounded to 1 / GRID; `slots` in an order of identities."""
    import faiss

    cluster, similarity = np.empty(len(slots), np.int32), np.empty(len(slots))
    with one_thread():
        index = faiss.IndexFlatIP(centroids.shape[1])
        index.add(np.ascontiguousarray(centroids))
        for start in range(0, len(slots), _ROWS):
            found, place = index.search(unit(file.take(slots[start : start + _ROWS])), 1)
            cluster[start : start + _ROWS] = place[:, 0]
            similarity[start : start + _ROWS] = np.round(found[:, 0].astype(np.float64) * GRID) / GRID
    return cluster, similarity


def clustered(file: VectorFile, slots: Int64, draw: npt.NDArray[np.uint64], k: int, *, iterations: int, seed: int) -> tuple[Int32, Float64, Float32]:
    """Train on a sample and assign all: (cluster, similarity, centroids).

    `slots` are in an order of identities, `draw` is a random number of each document: the SAMPLE * k least are the sample,
    in their order.
    """
    wanted = min(len(slots), SAMPLE * k)
    chosen = np.argsort(draw, kind="stable")[:wanted]
    centroids = train(unit(file.take(slots[chosen])), k, iterations=iterations, seed=seed)
    return *assign(file, slots, centroids), centroids
