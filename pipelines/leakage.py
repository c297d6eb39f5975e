"""Leakage: what of a test set stands in a training set, exactly, nearly, in part, or by meaning.

    found = leakage(["train/*.parquet"], ["test.jsonl"])
    found.exact, found.near, found.share          items, items, their share of the test set

Words and shares are those of decontamination (curate.contamination), with rarity counted in the training set.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from curate import contamination
from curate.contamination import Found, Index
from curate.corpus import TEXT, Corpus, CorpusSpec, load_table, open_corpus, read_part
from curate.errors import ConfigError

#: How an item is found, the surest first.
KINDS = ("exact", "near", "part", "meaning")
#: Test vectors that are multiplied with a batch of documents at a time.
_BLOCK = 4096
#: Characters of a text that an example shows.
_HEAD = 160


class Example(msgspec.Struct, frozen=True, kw_only=True):
    """A test item and the training document that holds most of it; rows from 0. `shared` is the passage, or a head of the document."""

    kind: str
    share: float
    test_row: int
    train_file: str
    train_row: int
    test_text: str
    shared: str


class Leakage(msgspec.Struct, frozen=True, kw_only=True):
    """Test items by the surest kind that finds them; `not_checkable` of the clean ones are too short for more than equality.

    exact: a document has the item's words and no others; near: it holds `near_from` (a share by weight) or more of the
    item's 5-grams or 13-grams; part: a 13-gram, or a share of `part_from`; meaning: a cosine of `similarity_from`, where
    an embedder was asked. `share` is that of exact and near, and meaning, among all items.
    """

    train_documents: int
    items: int
    exact: int
    near: int
    part: int
    meaning: int
    clean: int
    not_checkable: int
    share: float
    near_from: float
    part_from: float
    similarity_from: float | None
    examples: list[Example]


def leakage(
    train: Sequence[str],
    test: Sequence[str],
    *,
    text: str = "text",
    test_text: str | None = None,
    near: float = 0.5,
    part: float = 0.15,
    embed: Mapping[str, Any] | None = None,
    similarity: float = 0.9,
    examples: int = 3,
    base: Path | None = None,
) -> Leakage:
    """Hold every document of `train` against every item of `test` (files, folders, globs).

    `text` is a column, a template or a kind of instruction data, `test_text` the test's where it is another; `embed` are
    settings of the stage embed ({} for its default), None compares no meaning. Reads `train` twice. Raises ConfigError
    and DataError as a run does.
    """
    for name, value in (("near", near), ("part", part), ("similarity", similarity)):
        if not 0 < value <= 1:
            raise ConfigError(f"expected {name} of more than 0 and at most 1, got {value}")
    if near < part:
        raise ConfigError(f"expected near of at least part, got {near} and {part}")
    base = base or Path.cwd()
    items = load_table(test, base=base, text=test_text or text)[TEXT].combine_chunks()
    corpus = open_corpus(CorpusSpec(paths=list(train), text=text), base)
    return _Audit(items, corpus, near, part, similarity, embed, base).result(examples)


class _Audit:
    """The best find of every item so far: its kind (a place in KINDS, len(KINDS) for none), share and place."""

    def __init__(self, items: pa.Array, corpus: Corpus, near: float, part: float, similarity: float, embed: Mapping[str, Any] | None, base: Path) -> None:
        self.items, self.corpus = items, corpus
        self.near, self.part, self.similarity = near, part, similarity
        self.index = Index(items)
        self.kind = np.full(len(items), len(KINDS))
        self.share = np.zeros(len(items))
        self.seen: list[tuple[str, int, str] | None] = [None] * len(items)
        self.documents = 0
        self.embedder = None
        if embed is not None:
            from curate.scorers.embed import EmbedParams, TextVectors

            self.embedder = TextVectors(msgspec.convert(dict(embed), EmbedParams), str(base))
            self.vectors, self.known = self.embedder.vectors(items)
        wholes: dict[tuple[int, int], list[int]] = {}
        for i, (size, whole) in enumerate(zip(self.index.sizes.tolist(), self.index.whole.tolist(), strict=True)):
            if size:
                wholes.setdefault((size, whole), []).append(i)
        self.wholes = wholes
        self.known_wholes = np.unique(self.index.whole)
        self._go_through()

    def _batches(self) -> Iterator[tuple[str, int, pa.Array]]:
        """File, number of the first row in it, texts."""
        for part in self.corpus.parts:
            row = part.first_row
            for batch in read_part(self.corpus.layout, part):
                yield part.file, row, batch.column(TEXT)
                row += batch.num_rows

    def _go_through(self) -> None:
        counts = np.zeros(len(self.index.grams), np.int64)
        for _, _, text in self._batches():
            counts += self.index.count(text)
            self.documents += len(text)
        weighed = self.index.weigh(counts, self.documents, flag=self.part)
        for file, row, text in self._batches():
            found = weighed.match(text)
            self._equal(found, file, row, text)
            shares = np.maximum(found.overlap, found.containment)
            for i, passage in enumerate(contamination.passages(text, found)):
                kind = 0 if found.exact[i] else 1 if shares[i] >= self.near else 2
                self._tell(int(found.item[i]), kind, 1.0 if kind == 0 else float(shares[i]), file, row + int(found.row[i]), passage)
            if self.embedder is not None:
                self._near_in_meaning(file, row, text)

    def _equal(self, found: Found, file: str, first: int, text: pa.Array) -> None:
        """Documents whose words are an item's, of whatever length."""
        for row in np.flatnonzero(np.isin(found.whole, self.known_wholes) & (found.words > 0)).tolist():
            for item in self.wholes.get((int(found.words[row]), int(found.whole[row])), ()):
                self._tell(item, 0, 1.0, file, first + row, _head(text[row].as_py()))

    def _near_in_meaning(self, file: str, first: int, text: pa.Array) -> None:
        assert self.embedder is not None
        rows, known = self.embedder.vectors(text)
        open_items = np.flatnonzero(self.known & (self.kind >= 2))
        for start in range(0, len(open_items), _BLOCK):
            block = open_items[start : start + _BLOCK]
            cosines: npt.NDArray[np.float32] = rows @ self.vectors[block].T
            cosines[~known] = -1
            best = cosines.argmax(axis=0) if len(rows) else np.zeros(0, np.int64)
            for item, row, cosine in zip(block.tolist(), best.tolist(), cosines.max(axis=0, initial=-1).tolist(), strict=True) if len(rows) else ():
                if cosine >= self.similarity:
                    self._tell(item, 3, min(1.0, cosine), file, first + row, _head(text[row].as_py()))

    def _tell(self, item: int, kind: int, share: float, file: str, row: int, shared: str) -> None:
        """Keep the surer kind, of equals the larger share, then the first; meaning is surer than a part."""
        if (_SURE[kind], -share) < (_SURE[int(self.kind[item])], -self.share[item]):
            self.kind[item], self.share[item], self.seen[item] = kind, share, (file, row, shared)

    def result(self, examples: int) -> Leakage:
        counts = [int((self.kind == k).sum()) for k in range(len(KINDS) + 1)]
        shown = []
        for kind, name in enumerate(KINDS):
            for item in np.flatnonzero(self.kind == kind)[:examples].tolist():
                file, row, shared = self.seen[item] or ("", -1, "")
                shown.append(Example(kind=name, share=round(float(self.share[item]), 4), test_row=item, train_file=file, train_row=row,
                                     test_text=_head(self.items[item].as_py()), shared=shared))  # fmt: skip
        total = len(self.items)
        return Leakage(
            train_documents=self.documents, items=total, exact=counts[0], near=counts[1], part=counts[2], meaning=counts[3], clean=counts[4],
            not_checkable=int((~self.index.checkable & (self.kind == len(KINDS))).sum()), share=(counts[0] + counts[1] + counts[3]) / max(1, total),
            near_from=self.near, part_from=self.part, similarity_from=self.similarity if self.embedder is not None else None, examples=shown,
        )  # fmt: skip


#: How sure a kind is, by its place in KINDS; none last.
_SURE = (0, 1, 3, 2, 4)


def _head(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _HEAD else line[:_HEAD] + "…"
