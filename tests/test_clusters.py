"""The largest clusters of a run, and what differs between their texts."""

from __future__ import annotations

import doctest
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from run_folders import call, recipe_for, run, write_rows

from curate import clusters
from curate.catalog import OpenRun
from curate.errors import ConfigError

PAGE = " ".join(f"word{i}" for i in range(60))


def changed(*at: int) -> str:
    return " ".join(f"other{i}" if i in at else f"word{i}" for i in range(60))


POOL = {
    "a1": PAGE, "a2": changed(3), "a3": changed(3, 40), "a4": PAGE + " end", "a5": PAGE.upper(),
    "b1": "one two three four five six", "b2": "One  two three four five\nsix",
    "c": "alone and like nothing else in the whole pool",
}  # fmt: skip


def made(folder: Path, stages: list[dict[str, object]], pool: dict[str, str] | None = None) -> Path:
    rows = [{"id": id, "text": text, "source": "s"} for id, text in (pool or POOL).items()]
    write_rows(folder / "pool/0.parquet", rows)
    run(recipe_for(folder, stages=stages, target=False), folder / "run")
    return folder / "run"


def test_the_largest_come_first_and_in_them_what_stays_then_what_is_least_like_it(tmp_path: Path) -> None:
    found = clusters.largest(OpenRun(made(tmp_path, [{"minhash": {"threshold": 0.6}}])))
    assert [(c.identity, c.size) for c in found] == [("a1", 5), ("b1", 2)]
    assert found[0].bytes == sum(len(text) for id, text in POOL.items() if id.startswith("a"))
    assert [m.identity for m in found[0].members] == ["a1", "a3", "a2", "a4", "a5"]
    stays, a3, a2, a4, a5 = found[0].members
    assert (stays.difference, stays.jaccard, stays.row, stays.bytes) == (None, None, 0, len(PAGE))
    assert a2.difference == "word0 word1 word2 [-word3-] {+other3+} word4 word5 word6 word7 ..."
    assert a3.difference == (
        "word0 word1 word2 [-word3-] {+other3+} word4 word5 word6 word7 ... word36 word37 word38 word39 [-word40-] {+other40+} word41 word42 word43 word44 ..."
    )
    assert a4.difference == "... word56 word57 word58 word59 {+end+}"
    assert (a5.jaccard, a2.jaccard, a4.jaccard) == (1.0, 52 / 60, 56 / 57)
    assert found[1].members[1].difference == "[-one-] {+One+} two three four five ..."


def test_top_and_members_bound_what_is_shown(tmp_path: Path) -> None:
    (found,) = clusters.largest(OpenRun(made(tmp_path, [{"minhash": {"threshold": 0.6}}])), top=1, members=1)
    assert (found.size, [m.identity for m in found.members]) == (5, ["a1", "a3"])


def test_the_command_prints_them(tmp_path: Path) -> None:
    folder = made(tmp_path, [{"minhash": {"as": "near", "threshold": 0.6}}])
    done = call("clusters", folder, "--members", "2", "--stage", "near")
    assert done.returncode == 0, done.stderr
    file = tmp_path / "pool/0.parquet"
    assert done.stdout == (
        f"5 documents, {sum(len(t) for i, t in POOL.items() if i[0] == 'a'):,} bytes: a1\n"
        f"  stays  a1  409 bytes  {file} row 0\n"
        f"  0.723  a3  411 bytes  {file} row 2\n"
        "         word0 word1 word2 [-word3-] {+other3+} word4 word5 word6 word7 ... word36 word37 word38 word39 [-word40-] {+other40+} word41 word42 "
        "word43 word44 ...\n"
        f"  0.867  a2  410 bytes  {file} row 1\n"
        "         word0 word1 word2 [-word3-] {+other3+} word4 word5 word6 word7 ...\n"
        "  and 2 more\n"
        "\n"
        "2 documents, 55 bytes: b1\n"
        f"  stays  b1  27 bytes  {file} row 5\n"
        f"  1.000  b2  28 bytes  {file} row 6\n"
        "         [-one-] {+One+} two three four five ...\n"
    )


def test_a_run_without_clusters_or_with_several_says_what_to_do(tmp_path: Path) -> None:
    none = OpenRun(made(tmp_path / "none", [{"dedup_exact": {}}]))
    with pytest.raises(ConfigError, match="got 0; its recipe needs a stage that does, such as minhash"):
        clusters.largest(none)
    two = OpenRun(made(tmp_path / "two", [{"minhash": {"as": "wide"}}, {"minhash": {"as": "narrow", "threshold": 0.9}}]))
    with pytest.raises(ConfigError, match="--stage: wide, narrow"):
        clusters.largest(two)
    with pytest.raises(ConfigError, match="got 'dedup_exact'; those that do: wide, narrow"):
        clusters.largest(two, "dedup_exact")
    assert clusters.largest(two, "narrow") == []
    done = call("clusters", tmp_path / "two/run", "--stage", "narrow")
    assert (done.returncode, done.stdout) == (0, "no document is near to another\n")
    assert call("clusters", tmp_path / "none/run").returncode == 2


@pytest.mark.parametrize(
    ("left", "right", "shown"),
    [
        ("a b c", "a b c", "the same text"),
        ("a b c", " a\tb  c\n", "no difference but in white space"),
        ("", "a b", "{+a b+}"),
        ("a b", "", "[-a b-]"),
        ("a a a", "a a", "a a [-a-]"),
        ("你好世界欢迎", "你好北京欢迎", "你好 [-世界-] {+北京+} 欢迎"),
        ("x\x1b[31mred y", "x y", "[-x\ufffd[31mred-] {+x+} y"),
    ],
)
def test_differences_written_by_hand(left: str, right: str, shown: str) -> None:
    assert clusters.difference(left, right) == shown


def test_a_difference_is_bounded_however_long_the_texts_are() -> None:
    left = " ".join(f"l{i}" for i in range(50_000))
    for right in (" ".join(f"r{i}" for i in range(50_000)), left.replace("7", "8"), left + " z" * 9, "x" * 1_000_000):
        shown = clusters.difference(left, right)
        assert len(shown) < 5000
    assert shown.endswith("(the first 1,500 words behind what is common were compared)")
    assert "more changes" in clusters.difference(left, left.replace("7", "8"))
    far = left.split()
    far[49_000] = "changed"
    assert clusters.difference(left, " ".join(far)) == "... l48996 l48997 l48998 l48999 [-l49000-] {+changed+} l49001 l49002 l49003 l49004 ..."


@settings(max_examples=100, deadline=None)
@given(st.text("ab 你\n", max_size=30), st.text("ab 你\n", max_size=30))
def test_short_texts_are_told_apart_exactly_where_their_words_differ(left: str, right: str) -> None:
    same = clusters._TOKEN.sub(lambda m: m.group().strip() + " ", left).split() == clusters._TOKEN.sub(lambda m: m.group().strip() + " ", right).split()
    shown = clusters.difference(left, right)
    assert same == ("[-" not in shown and "{+" not in shown)


def test_the_examples_of_the_docstrings_hold() -> None:
    assert doctest.testmod(clusters).failed == 0
