"""gzip and k nearest neighbours: labels by compression distance to labelled texts.

Jiang et al. 2023, "Low-Resource" Text Classification: A Parameter-Free Classification Method with Compressors. The targets are the labels, their guides the labelled texts. Each document's NCD to every one of them is taken; the k nearest
vote. The authors' code counts a tie as right if any of the tied labels is; here a tie goes to the label whose nearest voter
is nearer, then to the one whose voters are nearer together, then to the first by name, and no true label is ever looked at.
Smaller distances are nearer.
"""

from __future__ import annotations

from typing import Literal

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from curate import deflate, guidetexts
from curate.errors import ConfigError
from curate.registry import register
from curate.stage import REASON, TEXT, VALUE, Context, measure

#: Distances held at once, documents times labelled texts: 8 MB.
_CELLS = 1 << 20


class GzipKnnParams(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The defaults are the authors': gzip at level 9, two neighbours, document, a space, labelled text."""

    k: int = 2
    compressor: Literal["gzip", "zlib", "deflate", "zstd", "lz4"] = "gzip"
    level: int = 9
    order: Literal["document_first", "target_first"] = "document_first"
    separator: str = " "
    max_targets: int | None = None

    def __post_init__(self) -> None:
        guidetexts.check(self)
        if self.k < 1:
            raise ConfigError(f"expected k of 1 or more, got {self.k}")


@register("gzip_knn")
class GzipKnn(guidetexts.GuideTexts):
    """Adds the mean distance to the k nearest of each target, the label that the k nearest of all give, and its votes."""

    version = 1
    Params = GzipKnnParams
    scores = True

    def __init__(self, params: GzipKnnParams, context: Context) -> None:
        super().__init__(
            "gzip_knn", params, context,
            needs="targets, one for each label: in a recipe targets: {code: {guide: [code.jsonl]}, prose: {guide: [prose.jsonl]}}",
        )  # fmt: skip
        self.params = params

    def reads(self) -> list[str]:
        return [TEXT]

    def fields(self) -> pa.Schema:
        names = [VALUE] if len(self.names) == 1 else self.names
        means = [measure(name, pa.float64(), means="distance", larger_is_better=False) for name in names]
        return pa.schema([*means, ("label", pa.string()), ("votes", pa.int64()), (REASON, pa.string())])

    def apply(self, state: pa.Table, batch: pa.RecordBatch) -> pa.RecordBatch:
        text = batch.column(TEXT)
        guides = self.texts(state)
        owner = np.repeat(np.arange(len(guides)), [len(g) for g in guides])
        means = np.empty((len(text), len(guides)))
        labels, votes = np.empty(len(text), np.int64), np.empty(len(text), np.int64)
        everything = pa.concat_arrays(guides)
        step = max(1, _CELLS // len(everything))
        for at in range(0, len(text), step):
            found = deflate.distances(
                text.slice(at, step), everything, self.compressor, separator=self.params.separator, target_first=self.params.order == "target_first"
            )  # fmt: skip
            rows = slice(at, at + len(found))
            for i in range(len(guides)):
                means[rows, i] = _mean_of_nearest(found[:, owner == i], self.params.k)
            labels[rows], votes[rows] = vote(found, owner, self.params.k, self.names)
        is_empty = pc.equal(pc.binary_length(text), 0)
        empty = is_empty.to_numpy(zero_copy_only=False)
        named = pa.array(self.names, pa.string()).take(pa.array(labels, mask=empty))
        reason = pc.if_else(is_empty, "empty text", pa.scalar(None, pa.string()))
        columns = [*(pa.array(np.ascontiguousarray(m), mask=empty) for m in means.T), named, pa.array(votes, mask=empty), reason]
        return pa.record_batch(columns, schema=self.fields())


def _mean_of_nearest(distances: npt.NDArray[np.float64], k: int) -> npt.NDArray[np.float64]:
    """The mean of the k smallest of each row, of all where there are fewer; added from the smallest up."""
    nearest = np.sort(distances, axis=1)[:, :k]
    total = np.zeros(len(nearest))
    for column in nearest.T:
        total += column
    return np.asarray(total / max(1, nearest.shape[1]))


def vote(
    distances: npt.NDArray[np.float64], owner: npt.NDArray[np.int64], k: int, names: list[str]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """For each row the label of most of its k nearest and how many these are: int64[n], int64[n].

    Texts at the distance of the k-th vote too, all of them: which of equals stands first must not decide. At equal votes
    the label with the nearest voter wins, then the one with the smaller sum of its voters' distances, then the first by name.
    """
    within = np.sort(distances, axis=1)[:, min(k, distances.shape[1]) - 1]
    voting = distances <= within[:, None]
    by_name = sorted(range(len(names)), key=names.__getitem__)
    keys = []
    for i in by_name:
        own = owner == i
        among = np.where(voting[:, own], distances[:, own], np.inf)
        total = np.zeros(len(distances))
        for column in np.sort(among, axis=1).T:
            total += np.where(np.isinf(column), 0, column)
        keys.append((-voting[:, own].sum(axis=1), among.min(axis=1), total))
    best = np.zeros(len(distances), np.int64)
    for place in range(1, len(by_name)):
        less, equal = np.zeros(len(distances), bool), np.ones(len(distances), bool)
        for part in range(3):
            mine = np.array([keys[b][part][row] for row, b in enumerate(best)])
            less |= equal & (keys[place][part] < mine)
            equal &= keys[place][part] == mine
        best[less] = place
    votes = np.array([-keys[b][0][row] for row, b in enumerate(best)], np.int64)
    return np.array(by_name, np.int64)[best], votes
