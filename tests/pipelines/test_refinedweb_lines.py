"""RefinedWeb's lines as a stage: which settings cut what, and the verdict by the share of words that went."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from run_folders import docs, published_rows, recipe_for, run, write_rows

from curate import spans
from curate.errors import ConfigError
from curate.pipelines.refinedweb_lines import RefinedwebLines, RefinedwebLinesParams
from curate.stage import TEXT, Context


def judged(text: str, **params: Any) -> tuple[str | None, str, dict[str, Any]]:
    """The reason of one text, what is left of it, and its columns."""
    stage = RefinedwebLines(RefinedwebLinesParams(**params), Context("r"))
    column = pa.array([text])
    found = stage.apply(None, pa.record_batch([column], names=[TEXT]))
    columns = [found.column(name.removeprefix("r_")) for name in stage.judge_reads()]
    keep, reason = stage.judge(pa.record_batch(columns, names=[str(i) for i in range(len(columns))]))
    assert keep[0].as_py() == (reason[0].as_py() is None)
    return reason[0].as_py(), spans.applied(column, found.column("spans"))[0].as_py(), found.to_pylist()[0]


BODY = "a line of ten words that is in no menu\n"  # ten words


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (BODY * 10 + "Home", None),
        (BODY * 10 + "3 likes\n12 345\nHome", None),  # 5 of 105
        (BODY * 9 + "one two three four\n3 likes\n12 345\nHome", "too many words in cut lines"),  # 5 of 99
        ("Home\n", "too many words in cut lines"),
        ("", None),
        (" \n\n", None),
    ],
)
def test_the_verdict_at_and_beyond_its_threshold(text: str, reason: str | None) -> None:
    assert judged(text)[0] == reason


def test_each_rule_can_be_turned_off() -> None:
    text = BODY + "BIG NEWS\n12\n3 likes\nHome\nmore read more...\n"
    off: dict[str, Any] = {"max_uppercase_ratio": None, "numeric": False, "counters": False, "min_words": None, "max_edit_words": None}
    assert judged(text, **off)[1] == text
    left = {
        "max_uppercase_ratio": BODY + "12\n3 likes\nHome\nmore read more...\n",
        "numeric": BODY + "BIG NEWS\n3 likes\nHome\nmore read more...\n",
        "counters": BODY + "BIG NEWS\n12\nHome\nmore read more...\n",
        "min_words": BODY + "BIG NEWS\n3 likes\nmore read more...\n",
        "max_edit_words": BODY + "BIG NEWS\n12\n3 likes\nHome\nmore\n",
    }
    published = RefinedwebLinesParams()
    for name, expected in left.items():
        assert judged(text, **{**off, name: getattr(published, name)})[1] == expected


def test_the_columns() -> None:
    _, left, found = judged(BODY + "BIG NEWS\n3 likes\n")
    assert left == BODY
    assert {n: found[n] for n in ("lines", "uppercase", "numeric", "counters", "few_words", "edited", "text_words", "words_cut", "cut_bytes")} == {
        "lines": 3, "uppercase": 1, "numeric": 0, "counters": 1, "few_words": 0, "edited": 0, "text_words": 14, "words_cut": 4, "cut_bytes": 17,
    }  # fmt: skip
    assert found["words_cut_ratio"] == 4 / 14


def test_a_run_goes_on_with_what_is_left(tmp_path: Path) -> None:
    rows = [{"id": "a", "text": f"Home\n{BODY * 10}", "source": "s"}, {"id": "b", "text": "MENU\n" + BODY, "source": "s"}]
    write_rows(tmp_path / "pool" / "0.parquet", rows)
    run(recipe_for(tmp_path, stages=[{"refinedweb_lines": {}}], target=False), tmp_path / "run")
    assert [row["text"] for row in published_rows(tmp_path / "run")] == [BODY * 10]
    told = {row["id"]: row for row in docs(tmp_path / "run").to_pylist()}
    assert (told["b"]["refinedweb_lines_reason"], told["a"]["refinedweb_lines_text_words"], told["a"]["curate_words"]) == ("too many words in cut lines", 101, 100)


def test_a_negative_number_is_refused() -> None:
    with pytest.raises(ConfigError, match="max_words_cut_ratio of 0 or more"):
        RefinedwebLinesParams(max_words_cut_ratio=-0.1)
