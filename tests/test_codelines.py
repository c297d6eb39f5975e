"""What rules for code measure: by hand, against the twin, and against Python's own tokenizer."""

from __future__ import annotations

import io
import tokenize
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from twins_textrules import code

from curate import codelines

PIECES = ["x", "r", "U", "= 1", "é", "漢", "٣", "_", "#", "//", "/*", "*/", "*", "/", '"', "'", '"""', "'''", "\\", "\n", "\n\n", "  ", "\t", "(", ")", "[", "]", "}", "\x0c", "\u3000", "a line", "# note\n"]
SOURCES = st.lists(st.sampled_from(PIECES), max_size=40).map("".join)


def one(source: str, language: str | None = None, head_lines: int = 5) -> dict[str, int]:
    text = pa.array([source])
    return {name: int(column[0]) for name, column in codelines.count(text, codelines.syntax_of(pa.array([language], pa.string())), head_lines).items()}


@settings(max_examples=400, deadline=None)
@given(SOURCES, st.sampled_from(["python", "c", None]), st.integers(0, 4))
def test_the_kernel_counts_what_the_twin_counts(source: str, language: str | None, head_lines: int) -> None:
    assert one(source, language, head_lines) == code(source, head_lines, language)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.none() | SOURCES, max_size=8), st.integers(0, 8), st.sampled_from([pa.string(), pa.large_string()]))
def test_slices_and_nulls(sources: list[str | None], start: int, kind: pa.DataType) -> None:
    text = pa.array(sources, kind)[start:]
    found = codelines.count(text, np.full(len(text), codelines.SYNTAX["c"], np.uint16), 2)
    for row, source in enumerate(sources[start:]):
        assert {name: int(column[row]) for name, column in found.items()} == (dict.fromkeys(codelines.COLUMNS, 0) if source is None else code(source, 2, "c"))
    heads = codelines.heads(text, found["head_bytes"])
    assert heads.to_pylist() == [None if s is None else "\n".join(s.split("\n")[:2]) + ("\n" if s.count("\n") >= 2 else "") for s in sources[start:]]


@pytest.mark.parametrize(
    ("language", "source", "comments"),
    [
        ("python", '"""Doc."""\nx = "# no"  # yes\n', ['"""Doc."""', "# yes"]),
        ("python", "def f():\n    r'''Doc\n    of f.'''\n    return '''no'''\n", ["r'''Doc\n    of f.'''"[1:]]),
        ("python", "f(\n'no',\n)\n", []),
        ("javascript", "x = `// no\n`; // yes", ["// yes"]),
        ("C++", "/* one\ntwo */ char c = '\"'; // three\n", ["/* one\ntwo */", "// three"]),
        ("rust", "fn f<'a>() {} // yes", ["// yes"]),
        ("php", "# one\n// two\n/* three */ '# no'", ["# one", "// two", "/* three */"]),
        ("sql", "select '-- no' -- yes\n", ["-- yes"]),
        ("tex", "50\\% % yes", ["% % yes"]),
        ("html", "<p>no</p><!-- yes\nit is -->", ["<!-- yes\nit is -->"]),
        ("cobol", "# no", []),
    ],
)
def test_comments_by_hand(language: str, source: str, comments: list[str]) -> None:
    assert one(source, language)["comment_chars"] == sum(map(len, comments))


def test_comments_of_this_file_are_those_of_pythons_tokenizer() -> None:
    source = Path(__file__).read_text(encoding="utf-8")
    tokens = list(tokenize.generate_tokens(io.StringIO(source).readline))
    comments = sum(len(t.string) for t in tokens if t.type == tokenize.COMMENT)
    before = [tokenize.NEWLINE, tokenize.NL, tokenize.INDENT, tokenize.DEDENT, tokenize.COMMENT, tokenize.ENCODING]
    docstrings = sum(len(t.string) for last, t in zip([None, *tokens], tokens, strict=False) if t.type == tokenize.STRING and (last is None or last.type in before) and t.start[1] == 0)
    assert docstrings > 0  # a comment of its own, so that there is one
    assert one(source, "python")["comment_chars"] == comments + docstrings


@pytest.mark.parametrize(("source", "answer"), [("x = 1", True), ("", True), ("print 'x'", False), ("\x00", False), ("(" * 5000, False), ("'\\d'", True), ("-" * 100_000 + "x", False)])
def test_what_parses(source: str, answer: bool) -> None:
    assert codelines.parses(source) is answer
