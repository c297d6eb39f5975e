"""Text that a stage changes: everything behind it, the publication last, is as if the pool had held the changed text."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from run_folders import (
    Rows,
    call,
    docs,
    lasting,
    published_rows,
    recipe_for,
    run,
    small_rows,
    texts_read,
    write_recipe,
    write_rows,
)

from curate import spans
from curate.errors import ConfigError, StageError

FOOTERS = ["Copyright 2019 by the authors", "  ACCEPT  all cookies and go on", "Schön, dass Sie da sind — bis bald"]
CUT: dict[str, Any] = {"repeated_lines": {"min_documents": 30}}
BEHIND: list[dict[str, Any]] = [
    {"length": {"min_bytes": 25}},
    {"dedup_exact": {}},
    {"dsir": {}},
    {"select": {"by": "dsir", "how": "top_k", "budget": "8kB"}},
]


def dirty(rows: Rows) -> Rows:
    """The rows with a footer here and there, its year and its case changing, and copies that differ in it alone."""
    found = []
    for n, row in enumerate(rows):
        footer = FOOTERS[n % 3].replace("2019", str(1990 + n % 40))
        found.append(row | {"id": f"a{n}", "text": f"{row['text']}\n{footer.upper() if n % 5 == 0 else footer}" if n % 4 else row["text"]})
        if n % 7 == 0:
            found.append(row | {"id": f"b{n}", "text": f"{FOOTERS[(n + 1) % 3]}\n{row['text']}"})
    return found


def cleaned_by_hand(rows: Rows) -> Rows:
    """The slow way: split, normalise, count, leave out, join."""

    def normal(line: str) -> str:
        return re.sub(r"\d", "0", " ".join(line.split()).lower())

    documents = Counter(line for row in rows for line in {normal(line) for line in row["text"].split("\n")})
    cut = {line for line, n in documents.items() if n >= 30 and len(line.encode()) >= 10}
    assert 3 <= len(cut) <= 10
    cleaned = []
    for row in rows:
        kept = [line for line in re.findall(r"[^\n]*\n|[^\n]+", row["text"]) if normal(line) not in cut]
        cleaned.append(row | {"text": "".join(kept)})
    return cleaned


@pytest.fixture(scope="module")
def pools(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pools")
    rows = dirty(small_rows()[:400])
    for n in range(4):
        write_rows(folder / "pool" / f"{n}.parquet", rows[n::4])
        write_rows(folder / "clean" / f"{n}.parquet", cleaned_by_hand(rows)[n::4])
    run(recipe_for(folder, stages=[CUT, *BEHIND]), folder / "dirty")
    run(recipe_for(folder, paths=["clean/*"], stages=BEHIND), folder / "by hand")
    return folder


def test_what_is_published_is_what_a_pool_of_changed_texts_gives(pools: Path) -> None:
    own = {row["id"]: row for row in published_rows(pools / "dirty")}
    expected = {row["id"]: row for row in published_rows(pools / "by hand")}
    assert list(own) == list(expected)
    assert len(own) > 20
    for name, row in expected.items():
        assert {n: own[name][n] for n in row} == row


def test_every_column_behind_the_change_is_that_of_the_changed_text(pools: Path) -> None:
    own, expected = (t.sort_by("id") for t in (docs(pools / "dirty"), docs(pools / "by hand")))
    same = [n for n in expected.schema.names if n not in ("doc", "file", "row")]
    for name in same:
        assert own[name].to_pylist() == expected[name].to_pylist(), name
    assert sum(own["repeated_lines_cut"].to_pylist()) > 250


def test_workers_do_not_show(pools: Path) -> None:
    run(recipe_for(pools, stages=[CUT, *BEHIND]), pools / "two", workers=2)
    assert lasting(pools / "two") == lasting(pools / "dirty")


def test_sql_and_explain_show_the_changed_text(pools: Path) -> None:
    asked = call("sql", pools / "dirty", "SELECT id, text FROM docs JOIN texts USING (doc) ORDER BY id", "--format", "json")
    assert asked.returncode == 0, asked.stderr
    assert "all cookies" not in asked.stdout.lower()
    told = call("explain", pools / "dirty", "a1")
    assert told.returncode == 0
    assert "all cookies" not in told.stdout.lower()
    assert "repeated_lines_cut" in told.stdout


def test_random_draws_are_judged_by_the_changed_text(pools: Path) -> None:
    def figures(folder: str, recipe: dict[str, Any]) -> list[str]:
        done = call("compare", write_recipe(pools / f"{folder}.yaml", recipe), "--run", pools / folder, "--workers", 1, "-q")
        assert done.returncode == 0, done.stderr
        return [line for line in done.stdout.splitlines() if not line.startswith("choosing took")]

    own = figures("dirty", recipe_for(pools, stages=[CUT, *BEHIND]))
    assert own == figures("by hand", recipe_for(pools, paths=["clean/*"], stages=BEHIND))


def test_a_filter_loosened_before_the_change_gives_the_bytes_of_a_fresh_run(pools: Path) -> None:
    def recipe(least: int) -> dict[str, Any]:
        return recipe_for(pools, stages=[{"length": {"min_bytes": least, "as": "first"}}, CUT, *BEHIND])

    run(recipe(400), pools / "moved")
    run(recipe(100), pools / "moved")
    run(recipe(100), pools / "fresh")
    assert published_rows(pools / "moved") == published_rows(pools / "fresh")
    assert docs(pools / "moved").equals(docs(pools / "fresh"))
    run(recipe(100), pools / "moved")
    assert texts_read(pools / "moved") == {}


def test_a_changed_text_is_served_no_old_score(pools: Path) -> None:
    """What comes behind is keyed by what was cut."""
    run(recipe_for(pools, stages=[CUT, *BEHIND]), pools / "keyed")
    other = {"repeated_lines": {"min_documents": 90}}
    run(recipe_for(pools, stages=[other, *BEHIND]), pools / "keyed")
    run(recipe_for(pools, stages=[other, *BEHIND]), pools / "other")
    assert docs(pools / "keyed").equals(docs(pools / "other"))
    assert not docs(pools / "keyed").equals(docs(pools / "dirty"))


def test_text_put_together_from_columns_is_not_changed(pools: Path) -> None:
    recipe = recipe_for(pools, stages=[CUT], corpus={"text": "{source}: {text}"})
    with pytest.raises(ConfigError, match=r"changes text, and the pool's text is put together from its columns \(source, text\)"):
        run(recipe, pools / "template")


pieces = st.lists(st.tuples(st.text(max_size=5), st.text(max_size=5), st.text(max_size=3)), max_size=4)


@settings(deadline=None)
@given(st.lists(st.one_of(st.none(), pieces), max_size=5), st.booleans(), st.integers(0, 2))
def test_spans_are_carried_out(rows: list[Any], large: bool, offset: int) -> None:
    """Each row: what stays, what goes, what stands there instead."""
    old, new, lists = [], [], []
    for row in rows:
        before, after, own = "", "", []
        for stays, goes, comes in row or []:
            before += stays
            own.append({"start": len(before.encode()), "stop": len((before + goes).encode()), "text": comes})
            before, after = before + goes, after + stays + comes
        old.append(before)
        new.append(after)
        lists.append(None if row is None else own)
    text = pa.array(old, pa.large_string() if large else pa.string())[offset:]
    given_spans = pa.array(lists, spans.SPANS)[offset:]
    spans.check("own", text, given_spans)
    assert spans.applied(text, given_spans).to_pylist() == new[offset:]
    assert spans.applied(text, given_spans).type == text.type


@pytest.mark.parametrize("wrong", [[(2, 1)], [(-1, 2)], [(0, 9)], [(3, 4), (1, 2)], [(0, 3), (2, 4)], [(0, 2)], [(1, 1), (2, 3)]])
def test_spans_that_do_not_fit_are_refused(wrong: list[tuple[int, int]]) -> None:
    text = pa.array(["fine", "aédef"])  # the second character is the bytes 1 and 2
    row = [{"start": start, "stop": stop, "text": ""} for start, stop in wrong]
    with pytest.raises(StageError, match=r"stage 'own': expected spans .* in row 1 of a batch"):
        spans.check("own", text, pa.array([None, row], spans.SPANS))


@settings(max_examples=80, deadline=None)
@given(st.lists(st.none() | st.text(alphabet="aé漢👍\n", max_size=12), max_size=6), st.integers(0, 3), st.sampled_from([pa.string(), pa.large_string()]), st.data())
def test_spans_carried_out_are_slices_joined(texts: list[str | None], start: int, kind: pa.DataType, data: st.DataObject) -> None:
    rows: list[list[dict[str, Any]] | None] = []
    expected: list[str | None] = []
    for text in texts:
        if text is None:
            rows.append([])
            expected.append(None)
            continue
        edges = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=6)))
        pairs = list(zip(edges[::2], edges[1::2], strict=False))
        news = [data.draw(st.sampled_from(["", "x", "ü<>"])) for _ in pairs]
        at = [len(text[:edge].encode()) for edge in range(len(text) + 1)]
        rows.append([{"start": at[a], "stop": at[b], "text": new} for (a, b), new in zip(pairs, news, strict=True)] or data.draw(st.sampled_from([[], None])))
        left, done = "", 0
        for (a, b), new in zip(pairs, news, strict=True):
            left, done = left + text[done:a] + new, b
        expected.append(left + text[done:])
    found = spans.applied(pa.array(texts, kind)[start:], pa.array(rows, spans.SPANS)[start:])
    found.validate(full=True)
    assert found.type == kind
    assert found.to_pylist() == expected[start:]


@pytest.mark.parametrize("row", [[(0, 9)], [(2, 1)], [(-1, 1)], [(0, 2), (1, 3)]])
def test_spans_that_do_not_fit_are_never_carried_out(row: list[tuple[int, int]]) -> None:
    with pytest.raises(ValueError, match="sorted, disjoint"):
        spans.applied(pa.array(["x", "abcd"]), pa.array([[], [{"start": a, "stop": b, "text": ""} for a, b in row]], spans.SPANS))


def test_a_stage_that_changes_text_cannot_have_the_programs_fields(tmp_path: Path) -> None:
    source = "\n".join(
        [
            "import msgspec", "import pyarrow as pa", "from curate.spans import SPANS", "class Params(msgspec.Struct): pass", "class Cuts:", "    version = 1", "    Params = Params",
            "    def __init__(self, params, context): pass", "    def reads(self): return ['__text__']", "    def fields(self): return pa.schema([('words', pa.int64()), ('spans', SPANS)])",
            "    def apply(self, state, batch): return pa.record_batch([pa.array([1] * len(batch)), pa.array([[]] * len(batch), SPANS)], schema=self.fields())",
        ]
    )  # fmt: skip
    (tmp_path / "cuts.py").write_text(source)
    write_rows(tmp_path / "pool" / "0.parquet", small_rows()[:5])
    with pytest.raises(StageError, match="words for it, so its own field needs another name"):
        run(recipe_for(tmp_path, stages=[f"{tmp_path / 'cuts.py'}:Cuts"], target=False), tmp_path / "run")
