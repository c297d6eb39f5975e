"""Which language a document is in, and a verdict by language (docs/language.md).

The default model ships inside the package py3langid and is walked in C (curate.langid): no file, no download. A fastText
model (lid.176, GlotLID) is taken from a file that the user names, or fetched once with `curate fetch`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from curate import langid
from curate.errors import ConfigError
from curate.fasttextfile import ModelFile
from curate.registry import register
from curate.stage import TEXT, VALUE, Context, measure

SHIPPED = "py3langid"
NOTHING = "no language found"
#: What stands between two paragraphs: an empty line.
_BREAK = re.compile(r"\n[^\S\n]*\n\s*")
#: One paragraph: its place in the text's UTF-8, and what it is in.
PARAGRAPH = pa.struct([("start", pa.int64()), ("stop", pa.int64()), ("language", pa.string()), ("score", pa.float64())])


class LanguageParams(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`languages` and `min_score` are the verdict; `among` is what the model may choose from; `max_bytes` None reads all."""

    model: str = SHIPPED
    languages: tuple[str, ...] = ()
    min_score: float | None = None
    among: tuple[str, ...] = ()
    max_bytes: int | None = None
    paragraphs: bool = False

    def __post_init__(self) -> None:
        if self.min_score is not None and not 0 <= self.min_score <= 1:
            raise ConfigError(f"expected min_score from 0 to 1, got {self.min_score}")
        if self.max_bytes is not None and self.max_bytes < 1:
            raise ConfigError(f"expected max_bytes of 1 or more (null reads all), got {self.max_bytes}")
        if self.among and self.model != SHIPPED:
            raise ConfigError(f"among restricts model: {SHIPPED}; a fastText model chooses among all that it was trained on")
        if self.among:
            langid.check(self.among)
        if self.model == SHIPPED and self.languages:
            langid.check(self.languages)


@register("language")
class Language:
    """Adds `language` (code, null where none was found) and `language_score` (share of the best, in (0, 1])."""

    version = 1
    Params = LanguageParams
    judge_params = ("languages", "min_score")

    def __init__(self, params: LanguageParams, context: Context) -> None:
        self.params = params
        self._label = context.label
        self._file = None if params.model == SHIPPED else ModelFile(params.model, Path(context.base))

    def verbs(self) -> tuple[str, ...]:
        return ("apply", "judge") if self.params.languages or self.params.min_score is not None else ("apply",)

    def extra_key(self) -> str:
        """Another model, or another version of a library, may give other labels."""
        return langid.version() if self._file is None else self._file.key()

    def reads(self) -> list[str]:
        return [TEXT]

    def fields(self) -> pa.Schema:
        """value: the language; with paragraphs: each one's place and language, and the share of bytes in the document's."""
        own = [measure(VALUE, pa.string()), measure("score", pa.float64(), means="probability")]
        return pa.schema([*own, *([("paragraphs", pa.list_(PARAGRAPH)), ("share", pa.float64())] if self.params.paragraphs else [])])

    def apply(self, state: None, batch: pa.RecordBatch) -> pa.RecordBatch:
        text = batch.column(TEXT)
        found = self._identify(head(text, self.params.max_bytes))
        columns = [found.field("language"), found.field("score")]
        if self.params.paragraphs:
            columns += self._paragraphs(text, columns[0])
        return pa.record_batch(columns, schema=self.fields())

    def _identify(self, text: pa.Array) -> pa.StructArray:
        if self._file is None:
            return langid.identify(text, self.params.among)
        labels, scores = self._file.predict(text)
        return pa.StructArray.from_arrays([labels, scores], fields=list(langid.FOUND))

    def _paragraphs(self, text: pa.Array, languages: pa.Array) -> list[pa.Array]:
        places = [paragraphs(item or "") for item in text.to_pylist()]
        pieces = self._identify(pa.array([piece for row in places for _, _, piece in row], pa.large_string()))
        found = iter(pieces.to_pylist())
        rows: list[list[dict[str, Any]]] = [[{"start": start, "stop": stop, **next(found)} for start, stop, _ in row] for row in places]
        shares = [_share(row, language) for row, language in zip(rows, languages.to_pylist(), strict=True)]
        return [pa.array(rows, pa.list_(PARAGRAPH)), pa.array(shares, pa.float64())]

    def judge_reads(self) -> list[str]:
        return [self._label, f"{self._label}_score"]

    def judge(self, batch: pa.RecordBatch) -> tuple[pa.Array, pa.Array]:
        language, score = batch.columns
        reason = pc.if_else(pc.is_null(language), NOTHING, pa.scalar(None, pa.string()))
        if self.params.languages:
            other = pc.invert(pc.is_in(language, pa.array(self.params.languages, pa.string())))
            reason = pc.if_else(pc.and_(other, pc.is_null(reason)), f"not {', '.join(self.params.languages)}", reason)
        if self.params.min_score is not None:
            unsure = pc.less(pc.fill_null(score, 0.0), self.params.min_score)
            reason = pc.if_else(pc.and_(unsure, pc.is_null(reason)), f"language score below {self.params.min_score:g}", reason)
        return pc.is_null(reason), reason


def head(text: pa.Array, most: int | None) -> pa.Array:
    """The first `most` bytes of each text, cut in front of a character; None: the texts."""
    if most is None or not pc.any(pc.greater(pc.binary_length(text), most)).as_py():
        return text
    rows: list[str | None] = [None if item is None else item.encode()[:most].decode("utf-8", "ignore") for item in text.to_pylist()]
    return pa.array(rows, pa.large_string())


def paragraphs(text: str) -> list[tuple[int, int, str]]:
    """The text's pieces between empty lines, white space at their ends left out: start and stop in UTF-8, and the piece."""
    found, at, size, seen = [], 0, 0, 0  # size: bytes of text[:seen]
    for start, stop in [*((m.start(), m.end()) for m in _BREAK.finditer(text)), (len(text), len(text))]:
        piece = text[at:start].strip()
        if piece:
            first = text.index(piece, at)
            size += len(text[seen:first].encode())
            found.append((size, size + len(piece.encode()), piece))
            seen = first
        at = stop
    return found


def _share(row: Sequence[dict[str, Any]], language: str | None) -> float | None:
    """The share of a document's bytes in paragraphs, 0..1, that stand in paragraphs of the document's language."""
    whole = sum(p["stop"] - p["start"] for p in row)
    same = sum(p["stop"] - p["start"] for p in row if p["language"] == language)
    return same / whole if whole and language is not None else None


