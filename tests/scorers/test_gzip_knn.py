"""Distances by the authors' code, in both of its orders; votes and ties by hand and by brute force."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from curate import deflate
from curate.deflate import Compressor
from curate.errors import ConfigError, DataError
from curate.scorers.gzip_knn import GzipKnn, GzipKnnParams, vote
from curate.stage import TEXT, Context, Target, meaning

TEXTS = [
    "The quick brown fox jumps over the lazy dog. The dog barks; the fox runs away.",
    "def add(a, b):\n    return a + b\n\n\ndef mul(a, b):\n    return a * b\n",
    "Theorem 1. For every n >= 0, n*(n+1)/2 is an integer. Proof: by induction on n.",
    "Café MÜNCHEN naïve — 你好，世界! 😀 100% snake_case x_1\r\n\tdon't",
    "",
]
LABELLED = [
    "def sub(a, b):\n    return a - b\n",
    "def div(a, b):\n    if b == 0:\n        raise ZeroDivisionError\n    return a / b\n",
    "for i in range(10):\n    print(add(i, i + 1))\n",
]
#: npc_gzip's numbers, gzip level 9, a space between: its paper's code puts the query first, its package the labelled text.
PAPER = [
    [0.719101123596, 0.606741573034, 0.685393258427], [0.396825396825, 0.563218390805, 0.571428571429],
    [0.708333333333, 0.614583333333, 0.6875], [0.80612244898, 0.795918367347, 0.80612244898], [0.62, 0.781609195402, 0.693548387097],
]  # fmt: skip
PACKAGE = [
    [0.674157303371, 0.595505617978, 0.696629213483], [0.396825396825, 0.574712643678, 0.555555555556],
    [0.708333333333, 0.614583333333, 0.6875], [0.80612244898, 0.795918367347, 0.80612244898], [0.62, 0.781609195402, 0.693548387097],
]  # fmt: skip


@pytest.mark.parametrize(("target_first", "expected"), [(False, PAPER), (True, PACKAGE)])
def test_distances_are_the_references(target_first: bool, expected: list[list[float]]) -> None:
    gzip9 = Compressor("gzip", 9)
    found = deflate.distances(pa.array(TEXTS), pa.array(LABELLED), gzip9, separator=" ", target_first=target_first)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)


def knn(texts: Sequence[str] = TEXTS, targets: dict[str, list[str]] | None = None, **settings: Any) -> pa.RecordBatch:
    guides = targets or {"function": LABELLED[:2], "loop": LABELLED[2:]}
    stage = GzipKnn(GzipKnnParams(**settings), Context("gzip_knn", 0, tuple(Target(name) for name in guides)))
    state = stage.close(None, {n: pa.chunked_array([pa.array(g, pa.string())]) for n, g in guides.items()})
    return stage.apply(state, pa.record_batch([pa.array(texts)], names=[TEXT]))


def test_labels_and_means_by_the_references_distances() -> None:
    found = knn()
    np.testing.assert_allclose(found["function"].to_pylist()[:4], [sum(row[:2]) / 2 for row in PAPER[:4]], atol=1e-12)
    np.testing.assert_allclose(found["loop"].to_pylist()[:4], [row[2] for row in PAPER[:4]], atol=1e-12)
    # nearest two: div and for; sub and div; div and for; div, then sub and for at one distance: all three vote
    assert found["label"].to_pylist() == ["function", "function", "function", "function", None]
    assert found["votes"].to_pylist() == [1, 2, 1, 2, None]
    assert found["reason"].to_pylist() == [None] * 4 + ["empty text"]


def test_the_order_is_an_option() -> None:
    found = knn(order="target_first")
    assert found["loop"].to_pylist()[0] == pytest.approx(PACKAGE[0][2], abs=1e-12)
    assert knn(separator="")["loop"].to_pylist()[0] != pytest.approx(PAPER[0][2], abs=1e-12)


def test_one_target_has_the_column_that_is_called_by_the_label() -> None:
    found = knn(targets={"code": LABELLED}, k=1)
    assert found.schema.names == ["value", "label", "votes", "reason"]
    assert meaning(found.schema.field("value")) == ("distance", False)
    np.testing.assert_allclose(found["value"].to_pylist()[:4], [min(row) for row in PAPER[:4]], atol=1e-12)


def test_a_tie_goes_to_the_nearest_voter_and_never_to_the_true_label() -> None:
    names = ["zero", "one"]
    distances, owner = np.array([[0.1, 0.2, 0.9]]), np.array([1, 0, 1])
    assert [int(v[0]) for v in vote(distances, owner, 2, names)] == [1, 1]
    assert [int(v[0]) for v in vote(np.array([[0.2, 0.1, 0.9]]), owner, 2, names)] == [0, 1]


def test_ties_by_hand() -> None:
    owner, names = np.array([0, 0, 1, 1]), ["b", "a"]
    for row, k, label, votes in [
        ([0.1, 0.4, 0.1, 0.3], 4, 1, 2),  # two each, one nearest distance: the smaller sum
        ([0.1, 0.3, 0.1, 0.3], 4, 1, 2),  # all equal: by name, a is the second
        ([0.5, 0.5, 0.5, 0.9], 1, 0, 2),  # three at the distance of the first: they all vote
        ([0.1, 0.9, 0.2, 0.3], 3, 1, 2),
        ([0.1, 0.9, 0.2, 0.3], 99, 0, 2),  # all vote: the nearest one
    ]:
        assert [int(v[0]) for v in vote(np.array([row]), owner, k, names)] == [label, votes], row


def by_brute_force(row: list[float], owner: list[int], k: int, names: list[str]) -> tuple[int, int]:
    within = sorted(row)[min(k, len(row)) - 1]
    voters = {i: sorted(d for d, o in zip(row, owner, strict=True) if o == i and d <= within) for i in set(owner)}
    best = min(voters, key=lambda i: (-len(voters[i]), voters[i][0] if voters[i] else 9, sum(voters[i]), names[i]))
    return best, len(voters[best])


def test_votes_are_those_of_brute_force() -> None:
    draw = random.Random(6)
    names = ["c", "a", "b"]
    owner = [0, 1, 2, *draw.choices([0, 1, 2], k=9)]
    rows = [[draw.randint(1, 6) / 8 for _ in owner] for _ in range(300)]
    for k in (1, 2, 3, 7):
        labels, votes = vote(np.array(rows), np.array(owner), k, names)
        assert list(zip(labels.tolist(), votes.tolist(), strict=True)) == [by_brute_force(r, owner, k, names) for r in rows]


def test_the_order_of_the_labelled_texts_does_not_show() -> None:
    swapped = {"loop": LABELLED[2:], "function": LABELLED[1::-1]}
    first, second = knn(), knn(targets=swapped)
    for name in ("function", "loop", "label", "votes"):
        assert first[name].equals(second[name])


def test_settings_that_mean_nothing_are_refused() -> None:
    for settings, words in [({"level": 0}, "level 0 stores"), ({"k": 0}, "k of 1 or more"), ({"max_targets": 0}, "max_targets of 1")]:
        with pytest.raises(ConfigError, match=words):
            GzipKnnParams(**settings)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="one for each label"):
        GzipKnn(GzipKnnParams(), Context("gzip_knn"))
    with pytest.raises(DataError, match="gzip_knn: the guide of target 'a' holds no text"):
        knn(targets={"a": []})
