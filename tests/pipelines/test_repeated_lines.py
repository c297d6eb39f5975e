"""Boilerplate lines: which are counted, which are cut, and that what stays is what was there."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curate import spans
from curate.errors import ConfigError
from curate.pipelines.repeated_lines import RepeatedLines, RepeatedLinesParams
from curate.stage import TEXT, Context


def cut(texts: list[str], **settings: Any) -> list[str]:
    stage = RepeatedLines(RepeatedLinesParams(**settings), Context("lines"))
    batches = [pa.record_batch([pa.array(texts[i : i + 2], pa.string())], names=[TEXT]) for i in range(0, len(texts), 2)]
    half = len(batches) // 2
    merged = stage.merge([stage.fit_part(iter(batches[:half])), stage.fit_part(iter(batches[half:]))])
    state = stage.close(merged, {})
    found = []
    for batch in batches:
        out = stage.apply(state, batch)
        spans.check("lines", batch.column(0), out.column(spans.FIELD))
        new = spans.applied(batch.column(0), out.column(spans.FIELD)).to_pylist()
        gone = [len(a.encode()) - len(b.encode()) for a, b in zip(batch.column(0).to_pylist(), new, strict=True)]
        assert gone == out.column("cut_bytes").to_pylist()
        found += new
    return found


def test_a_line_of_many_documents_goes_from_all_of_them() -> None:
    assert cut(["one\nAll rights reserved\ntwo", "All  rights RESERVED", "three\nall rights reserved\n", "four"], min_documents=3) == [
        "one\ntwo",
        "",
        "three\n",
        "four",
    ]


def test_a_line_that_one_document_repeats_is_no_boilerplate() -> None:
    texts = ["the same line\n" * 9, "the same line", "another line here"]
    assert cut(texts, min_documents=3) == texts


def test_what_normalize_leaves_out_tells_lines_apart() -> None:
    texts = ["Page 1 of 10 in all", "Page 2 of 10 in all", "PAGE 3 of 10 in all"]
    assert cut(texts, min_documents=3) == ["", "", ""]
    assert cut(texts, min_documents=2, normalize=["digits"]) == ["", "", texts[2]]
    assert cut(texts, min_documents=2, normalize=[]) == texts


def test_short_lines_stay_by_their_bytes() -> None:
    assert cut(["äöüäö", "äöüäö"], min_documents=2) == ["", ""]
    assert cut(["äöüä }", "äöüä }"], min_documents=2, min_bytes=11) == ["äöüä }", "äöüä }"]
    assert cut(["}\n}\n", "}\n"], min_documents=2) == ["}\n}\n", "}\n"]


def test_a_paragraph_goes_with_the_empty_lines_behind_it() -> None:
    notice = "We use cookies.\nGo on and accept."
    assert cut([f"first\n\n{notice}\n \nsecond", f"{notice}", f"{notice}\n\n\nthird"], unit="paragraph", min_documents=3) == ["first\n\nsecond", "", "third"]


@given(st.text(alphabet="ab \n\r\t\u2028\u3000é", max_size=40), st.sampled_from(["line", "paragraph"]))
def test_units_tile_the_text(text: str, unit: Any) -> None:
    stage = RepeatedLines(RepeatedLinesParams(unit=unit, min_bytes=0), Context("lines"))
    at = 0
    for start, stop, _ in stage._hashed(text):
        assert start == at < stop
        at = stop
    assert at == len(text.encode())


def test_a_line_of_one_document_cannot_be_asked_for() -> None:
    with pytest.raises(ConfigError, match="min_documents of at least 2"):
        RepeatedLinesParams(min_documents=1)
