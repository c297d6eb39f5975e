"""C4's rules (Raffel et al. 2020, section 2.2): lines that are no sentences go, and pages of placeholder text or code."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa

from curate import linerules, spans, textrules
from curate.errors import ConfigError
from curate.registry import register
from curate.stage import TEXT, Context
from curate.textrules import Rule


class C4Params(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Numbers: null is off. `min_sentences`, `lorem_ipsum`, `curly_bracket` and `max_bad_words` are the verdict only."""

    end_marks: bool = True
    min_words: int | None = 5
    max_word_chars: int | None = 1000
    javascript: bool = True
    policy: bool = True
    citations: bool = True
    bad_words: str | None = None
    min_sentences: int | None = 3
    lorem_ipsum: bool = True
    curly_bracket: bool = True
    max_bad_words: int = 0

    def __post_init__(self) -> None:
        for name in ("min_words", "max_word_chars", "min_sentences", "max_bad_words"):
            value = getattr(self, name)
            if value is not None and value < 0:
                raise ConfigError(f"expected {name} of 0 or more (null is off), got {value}")


@register("c4")
class C4:
    """Cuts lines without an end mark, of few words, about JavaScript or policies; drops by what is left; changes text."""

    version = 1
    Params = C4Params
    judge_params = ("min_sentences", "lorem_ipsum", "curly_bracket", "max_bad_words")

    def __init__(self, params: C4Params, context: Context) -> None:
        self.params = params
        self._label = context.label
        self._words = None if params.bad_words is None else _BadWords(Path(context.base) / params.bad_words)

    def extra_key(self) -> str:
        return "" if self._words is None else self._words.key

    def reads(self) -> list[str]:
        return [TEXT]

    def fields(self) -> pa.Schema:
        """Counts of lines by the rule that cut them, citations, sentences that are left, and spans; cut_bytes of UTF-8."""
        names = [*linerules.C4, "cut_bytes", *([] if self._words is None else ["bad_words"])]
        return pa.schema([*((name, pa.int64()) for name in names), (spans.FIELD, spans.SPANS)])

    def apply(self, state: None, batch: pa.RecordBatch) -> pa.RecordBatch:
        p = self.params
        text = batch.column(0)
        flags = (p.end_marks * linerules.END_MARKS + p.javascript * linerules.JAVASCRIPT
                 + p.policy * linerules.POLICY + p.citations * linerules.CITATIONS)  # fmt: skip
        found = linerules.c4(text, min_words=p.min_words or 0, max_word_chars=p.max_word_chars or 0, flags=flags)
        columns = [*(found.counts[name] for name in linerules.C4), found.cut_bytes]
        if self._words is not None:
            columns.append(self._words.counts(spans.applied(text, found.spans)))
        return pa.record_batch([*map(pa.array, columns), found.spans], schema=self.fields())

    def _rules(self) -> list[Rule]:
        p = self.params
        rules = [
            Rule("lorem_ipsum", "lorem ipsum", most=0 if p.lorem_ipsum else None),
            Rule("curly_bracket", "curly bracket", most=0 if p.curly_bracket else None),
            Rule("sentences", "too few sentences", least=p.min_sentences),
        ]
        return rules if self._words is None else [*rules, Rule("bad_words", "bad words", most=p.max_bad_words)]

    def judge_reads(self) -> list[str]:
        return [f"{self._label}_{rule.column}" for rule in self._rules()]

    def judge(self, batch: pa.RecordBatch) -> tuple[pa.Array, pa.Array]:
        return textrules.verdict(batch, self._rules())


class _BadWords:
    """A user's list, one word or phrase a line: found in any case, between characters that are of no word."""

    def __init__(self, path: Path) -> None:
        try:
            content = path.read_bytes()
            words = sorted({line.strip().lower() for line in content.decode().splitlines()} - {""})
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"expected bad_words to name a file of UTF-8 with one word a line, got {path}: {error}") from error
        if not words:
            raise ConfigError(f"expected at least one word in the file of bad_words, got none in {path}")
        self.key = hashlib.blake2b(content, digest_size=16).hexdigest()
        # a script without spaces has no border to ask for; its words begin with none of \w's ASCII or Latin letters
        loose = [re.escape(w) for w in words if _UNSPACED.match(w)]
        tight = [re.escape(w) for w in words if not _UNSPACED.match(w)]
        self._pattern = re.compile("|".join([*([rf"(?<!\w)(?:{'|'.join(tight)})(?!\w)"] if tight else []), *loose]))

    def counts(self, text: pa.Array) -> np.ndarray[Any, np.dtype[np.int64]]:
        found = (sum(1 for _ in self._pattern.finditer((t or "").lower())) for t in text.to_pylist())
        return np.fromiter(found, np.int64, len(text))


#: Thai to Myanmar, Khmer, kana, Han.
_UNSPACED = re.compile("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\U00020000-\U0003ffff]")
