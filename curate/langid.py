"""Which language a text is in, by the model of py3langid (139 languages), walked in C: its labels, at many times its speed.

The model ships inside the package py3langid and is loaded once for a process. A text is prepared as py3langid prepares it:
one without a lower-case letter is lowered, and all are composed (NFC, by this Python's tables). The share of the best
language is py3langid's `norm_probs` one: a softmax of the scores over the square root of the text's bytes, in (0, 1].

    >>> identify(pa.array(["The sea was calm that night.", "Das Meer war ruhig.", "..."])).to_pylist()
    [{'language': 'en', 'score': 0.99...}, {'language': 'de', 'score': 0.9...}, {'language': None, 'score': None}]

Lui and Baldwin, langid.py: An Off-the-shelf Language Identification Tool, ACL 2012.
"""

from __future__ import annotations

import unicodedata
from functools import cache
from typing import Any

import numpy as np
import pyarrow as pa

from curate import _native, ngrams
from curate.errors import ConfigError

#: What `identify` gives for each text.
FOUND = pa.struct([("language", pa.string()), ("score", pa.float64())])


#: The model's weights are float16 and, exactly, multiples of this (tests hold it), so that they are summed as integers.
UNIT = 2.0**-10


class Model:
    """The model in py3langid, as arrays that the kernel takes; `languages` restricts it to some codes."""

    def __init__(self, languages: tuple[str, ...] = ()) -> None:
        weights, prior, classes, nextmove, rows, outputs = _shipped()
        chosen = [i for i, name in enumerate(classes) if not languages or name in languages]
        self.labels = [classes[i] for i in chosen]
        first = [self.labels.index(name) for name in self.labels]
        scaled = weights[:, chosen].astype(np.float32) / UNIT
        whole = np.ascontiguousarray(scaled.astype(np.int16))
        if not (whole == scaled).all():
            raise ConfigError(f"expected a model as py3langid 0.4 has it, with weights that are multiples of {UNIT}, got {version()}; install py3langid 0.4")
        found = np.asarray(outputs, np.int32)
        self.kernel = _native.langid_model(
            np.array(nextmove, np.uint32), np.array(rows, np.uint32), np.where(found < 0, len(weights), found).astype(np.int32),
            whole, UNIT, np.ascontiguousarray(prior[chosen], np.float32), np.array(first, np.int32),
        )  # fmt: skip


def check(languages: tuple[str, ...]) -> None:
    """Raise a ConfigError for codes that the model does not know."""
    classes = _shipped()[2]
    unknown = sorted(set(languages) - set(classes))
    if unknown:
        raise ConfigError(f"py3langid has no language {', '.join(unknown)}; it has {', '.join(sorted(set(classes)))}")


@cache
def _shipped() -> tuple[Any, ...]:
    """(weights, prior, classes, next, rows, outputs) of the model that ships with py3langid."""
    from py3langid import langid, modelio

    return modelio.load_model(langid.MODEL_DIR / langid.MODEL_FILE)  # type: ignore[no-any-return]


@cache
def model(languages: tuple[str, ...] = ()) -> Model:
    """The model, made once for a process and set of languages."""
    return Model(languages)


def version() -> str:
    """The package and version that labels depend on."""
    from importlib.metadata import version as of

    return f"py3langid {of('py3langid')}"


def prepare(text: pa.Array) -> pa.Array:
    """The texts as the model was trained to see them; nulls stay."""
    changed = False
    found: list[str | None] = []
    for item in text.to_pylist():
        if item is None:
            found.append(None)
            continue
        ready = unicodedata.normalize("NFC", item.lower() if item.isupper() else item)
        changed |= ready is not item
        found.append(ready)
    return pa.array(found, pa.large_string()) if changed else text


def identify(text: pa.Array | pa.ChunkedArray, languages: tuple[str, ...] = ()) -> pa.StructArray:
    """Language (ISO 639) and its share, struct[n]; null and null where no feature of any language was seen, or no text."""
    known = model(languages)
    labels, shares = np.empty(len(text), np.int64), np.empty(len(text), np.float64)
    for start, chunk in ngrams.chunks(text):
        rows = slice(start, start + len(chunk))
        with ngrams.Blame(start):
            _native.langid_classify(prepare(chunk), known.kernel, ngrams.simd(), labels[rows], shares[rows])
    none = labels < 0
    names = pa.array(known.labels, pa.string()).take(pa.array(labels, mask=none))
    return pa.StructArray.from_arrays([names, pa.array(shares, mask=none)], fields=list(FOUND))
