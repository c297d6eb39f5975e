"""Licences: what is on the list passes, everything else is dropped with its value said, and all are counted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from run_folders import counts, published_rows, recipe_for, run, write_rows

from curate.errors import ConfigError
from curate.licenses import counts as counted
from curate.licenses import folded

VALUES: list[str | None] = ["MIT", " mit\n", "Apache-2.0", "apache 2.0", "GPL-3.0", "gpl-3.0", "MIT OR GPL-3.0", None, "", "  "]


@pytest.fixture
def pool(tmp_path: Path) -> Path:
    rows = [{"id": f"d{i}", "source": "web", "text": f"document {i} " * (i + 1), "terms": value} for i, value in enumerate(VALUES)]
    write_rows(tmp_path / "pool" / "a.parquet", rows[:4])
    write_rows(tmp_path / "pool" / "b.jsonl", rows[4:])
    return tmp_path


def kept(pool: Path, *, license: str | None = "terms", licenses: list[Any] | None = None) -> list[str]:
    corpus: dict[str, Any] = {} if license is None else {"license": license}
    if licenses is not None:
        corpus["licenses"] = licenses
    run(recipe_for(pool, stages=[], target=False, corpus=corpus), pool / "run")
    return sorted(row["id"] for row in published_rows(pool / "run"))


def test_only_what_is_listed_passes_and_each_value_is_counted(pool: Path) -> None:
    assert kept(pool, licenses=["mit", "APACHE-2.0 "]) == ["d0", "d1", "d2"]
    assert counts(pool / "run") == {
        ("kept", None): 3,
        ("license", "license 'apache 2.0' is not allowed"): 1,
        ("license", "license 'gpl-3.0' is not allowed"): 2,
        ("license", "license 'mit or gpl-3.0' is not allowed"): 1,
        ("license", "no license"): 3,
    }


def test_documents_without_a_license_pass_only_where_null_is_listed(pool: Path) -> None:
    assert kept(pool, licenses=["gpl-3.0", None]) == ["d4", "d5", "d7", "d8", "d9"]


def test_a_column_without_a_list_drops_nothing_and_is_counted(pool: Path) -> None:
    assert len(kept(pool)) == len(VALUES)
    sizes = [len((f"document {i} " * (i + 1)).encode()) for i in range(len(VALUES))]
    assert counted(pool / "run" / "docs", "terms", "curate_keep") == [
        (None, 3, 3, sum(sizes[7:])), ("gpl-3.0", 2, 2, sizes[4] + sizes[5]), ("mit", 2, 2, sizes[0] + sizes[1]),
        ("apache 2.0", 1, 1, sizes[3]), ("apache-2.0", 1, 1, sizes[2]), ("mit or gpl-3.0", 1, 1, sizes[6]),
    ]  # fmt: skip


def test_a_longer_list_reads_no_text_again(pool: Path) -> None:
    kept(pool, licenses=["mit"])
    first = published_rows(pool / "run")
    assert kept(pool, licenses=["mit", "gpl-3.0"]) == ["d0", "d1", "d4", "d5"]
    assert kept(pool, licenses=["mit"]) == sorted(row["id"] for row in first)


@pytest.mark.parametrize(
    ("corpus", "said"),
    [
        ({"licenses": ["mit"]}, "name the column with license: COLUMN"),
        ({"license": "terms", "licenses": []}, "nothing could pass"),
        ({"license": "term"}, "expected a column 'term' for corpus.license"),
        ({"license": "number", "licenses": ["mit"]}, "expected one license for each document as text in the column 'number', got int64"),
    ],
)
def test_a_list_that_cannot_be_meant_is_refused(pool: Path, corpus: dict[str, Any], said: str) -> None:
    write_rows(pool / "pool" / "c.parquet", [{"id": "x", "source": "web", "text": "a text", "terms": "MIT", "number": 1}])
    with pytest.raises(ConfigError, match=said):
        run(recipe_for(pool, stages=[], target=False, corpus=corpus), pool / "run")


def test_folding_is_case_and_white_space_and_nothing_else() -> None:
    assert [folded(v) for v in ("\tCC-BY-SA-4.0 ", "STRASSE", "straße", "", None, "cc by")] == ["cc-by-sa-4.0", "strasse", "strasse", None, None, "cc by"]
