"""What rules for source code measure: lines, letters and digits, comments by language, and whether Python parses."""

from __future__ import annotations

import ast
import sys
import warnings

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from curate import _native, ngrams, spans

#: The kernel's columns, in its order.
COLUMNS = ("chars", "lines", "max_line_chars", "line_chars", "alnum", "comment_chars", "head_bytes")
Int64 = NDArray[np.int64]

_HASH, _SLASHES, _BLOCK, _DASHES, _PERCENT, _MARKUP, _SINGLE, _DOUBLE, _BACKTICK, _PYTHON = (1 << bit for bit in range(10))
_QUOTES = _SINGLE | _DOUBLE
_C = _SLASHES | _BLOCK | _DOUBLE
#: How languages write comments and strings (native/codelines.h), by name in small letters.
SYNTAX: dict[str, int] = {
    "python": _PYTHON | _HASH | _QUOTES,
    **dict.fromkeys(("shell", "bash", "sh", "ruby", "perl", "r", "julia", "yaml", "toml", "makefile", "dockerfile", "cmake", "elixir", "powershell"), _HASH | _QUOTES),
    **dict.fromkeys(("c", "c++", "cpp", "c#", "csharp", "c-sharp", "java", "kotlin", "swift", "scala", "dart", "objective-c", "cuda"), _C | _SINGLE),
    **dict.fromkeys(("javascript", "typescript", "jsx", "tsx", "go"), _C | _SINGLE | _BACKTICK),
    "rust": _C,  # a ' also begins a lifetime
    "php": _C | _SINGLE | _HASH,
    "css": _BLOCK | _QUOTES,
    "scss": _SLASHES | _BLOCK | _QUOTES,
    "sql": _DASHES | _BLOCK | _QUOTES,
    **dict.fromkeys(("lua", "ada"), _DASHES | _QUOTES),
    "haskell": _DASHES | _DOUBLE,  # a ' also ends a name
    **dict.fromkeys(("tex", "latex"), _PERCENT),
    **dict.fromkeys(("matlab", "erlang", "prolog"), _PERCENT | _DOUBLE),
    **dict.fromkeys(("html", "xml", "vue", "svelte", "markdown"), _MARKUP),
}  # fmt: skip


def syntax_of(languages: pa.Array) -> NDArray[np.uint16]:
    """uint16[n]: the syntax of each name of a language, in any case; 0 for null and for one that is not known."""
    return np.fromiter((SYNTAX.get((name or "").lower(), 0) for name in languages.to_pylist()), np.uint16, len(languages))


def count(text: pa.Array, syntax: NDArray[np.uint16], head_lines: int = 5) -> dict[str, Int64]:
    """int64[n] by name; zeros for null texts, and no comments where `syntax` (uint16[n]) is 0."""
    found = np.empty((len(COLUMNS), len(text)), np.int64)
    with ngrams.Blame(0):
        text.validate()
        _native.lines_code(text, np.ascontiguousarray(syntax, np.uint16), head_lines, found)
    return dict(zip(COLUMNS, found, strict=True))


def heads(text: pa.Array, head_bytes: Int64) -> pa.Array:
    """The first bytes of each text."""
    sizes = np.asarray(ngrams.text_stats(text)[0], np.int64)
    return spans.applied(text, spans.cuts(np.arange(len(text) + 1), head_bytes, np.maximum(head_bytes, sizes)))


def parses(source: str) -> bool:
    """Whether the Python that runs reads a text as a module. Nothing of it is run."""
    try:
        with warnings.catch_warnings(action="ignore"):
            ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return True


def grammar() -> str:
    """Whose grammar `parses` asks."""
    return "python {}.{}".format(*sys.version_info[:2])
