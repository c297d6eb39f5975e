"""`curate split`: whole clusters, honest fractions, rows as they were, files that exist or do not."""

from __future__ import annotations

import gzip
import json
import random
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from curate.errors import ConfigError, DataError
from curate.split import assign, split_file

THIRDS = {"guide": 0.5, "tuning": 0.2, "test": 0.3}


def write_jsonl(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def rows_with_near_copies(count: int) -> list[dict[str, Any]]:
    """Texts of 40 words; every fourth is an edit of the one before, every tenth a copy of it."""
    draw = random.Random(5)
    rows: list[dict[str, Any]] = []
    for number in range(count):
        words = [f"word{draw.randrange(3000)}" for _ in range(40)]
        if number % 4 == 3:
            words = [*rows[-1]["text"].split()[:-2], "another", "end"]
        if number % 10 == 9:
            words = rows[-1]["text"].split()
        rows.append({"id": f"row {number}", "text": " ".join(words), "extra": {"n": [number, None]}})
    return rows


def lines_of(folder: Path, extension: str = ".jsonl") -> dict[str, list[str]]:
    return {
        name: (folder / f"{name}{extension}").read_text(encoding="utf-8").splitlines()
        for name in ("guide", "tuning", "test")
        if (folder / f"{name}{extension}").exists()
    }


def largest_index_between(splits: Mapping[str, Sequence[str]]) -> float:
    """All pairs, with sets of word 5-grams."""

    def grams(text: str) -> set[tuple[str, ...]]:
        words = re.findall(r"\w+", text.lower())
        return {tuple(words[i : i + 5]) for i in range(max(1, len(words) - 4))}

    sets = [(name, grams(text)) for name, texts in splits.items() for text in texts]
    pairs = [(a, b) for i, (x, a) in enumerate(sets) for (y, b) in sets[:i] if x != y]
    return max(len(a & b) / len(a | b) for a, b in pairs)


# Assignment


def test_one_cluster_goes_to_one_split() -> None:
    clusters = [0, 1, 1, 1, 4, 4, 6, 7, 8, 9] * 5
    clusters = [c + 10 * (i // 10) for i, c in enumerate(clusters)]
    split_of = assign(clusters, [f"id{i}" for i in range(50)], fractions=THIRDS, seed=1)
    for cluster in set(clusters):
        assert len({s for s, c in zip(split_of, clusters, strict=True) if c == cluster}) == 1


@pytest.mark.parametrize("count", [10, 100, 1001])
def test_single_documents_reach_the_fractions_to_within_one(count: int) -> None:
    split_of = assign(range(count), [str(i) for i in range(count)], fractions=THIRDS, seed=3)
    got = Counter(split_of)
    for name, fraction in THIRDS.items():
        assert abs(got[name] - fraction * count) <= 1


def test_every_split_gets_its_share_of_the_large_clusters() -> None:
    # 30 clusters of 4, then 300 single documents.
    clusters = [i // 4 for i in range(120)] + list(range(1000, 1300))
    split_of = assign(clusters, [str(i) for i in range(420)], fractions=THIRDS, seed=0)
    large = Counter(split_of[:120])
    assert [large[name] / 4 for name in THIRDS] == [15, 6, 9]


def test_the_order_of_the_rows_and_the_numbers_of_the_clusters_do_not_matter() -> None:
    draw = random.Random(2)
    clusters = [draw.randrange(60) for _ in range(100)]
    identities = [f"document {i}" for i in range(100)]
    before = dict(zip(identities, assign(clusters, identities, fractions=THIRDS, seed=9), strict=True))
    order = draw.sample(range(100), 100)
    renumbered = {c: 1000 - 7 * c for c in set(clusters)}
    after = assign(
        [renumbered[clusters[i]] for i in order], [identities[i] for i in order], fractions=THIRDS, seed=9
    )
    assert dict(zip([identities[i] for i in order], after, strict=True)) == before


def test_another_seed_is_another_split() -> None:
    identities = [str(i) for i in range(200)]
    first, second = (assign(range(200), identities, fractions=THIRDS, seed=seed) for seed in (0, 1))
    assert first != second
    assert Counter(first) == Counter(second)


def test_membership_is_drawn_and_not_taken_from_the_front() -> None:
    split_of = assign(range(1000), [f"{i:04d}" for i in range(1000)], fractions=THIRDS, seed=4)
    # 500 expected in either half; 100 is more than six standard deviations.
    assert abs(split_of[:500].count("guide") - 250) < 100


def test_equal_identities_stay_together() -> None:
    identities = [str(i % 50) for i in range(100)]
    split_of = assign(range(100), identities, fractions=THIRDS, seed=0)
    assert split_of[:50] == split_of[50:]


def test_one_fraction_takes_all() -> None:
    assert assign([0, 1, 1], ["a", "b", "c"], fractions={"test": 1.0}, seed=0) == ["test"] * 3


@pytest.mark.parametrize(
    ("fractions", "message"),
    [
        ({"guide": 0.5, "test": 0.4}, "sum of 1, got 0.9"),
        ({}, "sum of 1, got 0"),
        ({"guide": 1.5, "test": -0.5}, "fractions.guide: expected a number from 0 to 1, got 1.5"),
        ({"../guide": 1.0}, "names of lower-case letters"),
    ],
)
def test_fractions_that_cannot_be_are_refused(fractions: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        assign([0], ["a"], fractions=fractions, seed=0)


# Files


def test_lines_come_back_byte_for_byte_each_in_one_split(tmp_path: Path) -> None:
    rows = rows_with_near_copies(200)
    source = write_jsonl(tmp_path / "target.jsonl", rows)
    original = source.read_bytes().splitlines(keepends=True)
    report = split_file([source], tmp_path / "out")
    written = [
        line
        for name in ("guide", "tuning", "test")
        for line in (tmp_path / "out" / f"{name}.jsonl").read_bytes().splitlines(keepends=True)
    ]
    assert sorted(written) == sorted(original)
    assert {name: part.rows for name, part in report.splits.items()} == {
        name: len(lines) for name, lines in lines_of(tmp_path / "out").items()
    }
    assert abs(report.splits["guide"].rows - 80) <= 3
    assert abs(report.splits["tuning"].rows - 20) <= 3


def test_no_near_copy_stands_on_two_sides(tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "target.jsonl", rows_with_near_copies(200))
    report = split_file([source], tmp_path / "out")
    texts = {
        name: [json.loads(line)["text"] for line in lines]
        for name, lines in lines_of(tmp_path / "out").items()
    }
    expected = largest_index_between(texts)
    assert expected < 0.5
    assert report.largest_jaccard_between == expected
    # Rows 3, 7, 11, ... are edits and 9, 19, 29, ... copies: 50 + 20 rows, 10 of them both.
    assert report.clusters == 200 - 60
    assert report.largest_cluster > 1


def test_rows_keep_the_order_of_the_input(tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "target.jsonl", rows_with_near_copies(100))
    split_file([source], tmp_path / "out")
    for lines in lines_of(tmp_path / "out").values():
        numbers = [int(json.loads(line)["id"].removeprefix("row ")) for line in lines]
        assert numbers == sorted(numbers)


def test_shuffled_rows_fall_into_the_same_splits(tmp_path: Path) -> None:
    rows = rows_with_near_copies(120)
    shuffled = random.Random(0).sample(rows, len(rows))
    split_file([write_jsonl(tmp_path / "a.jsonl", rows)], tmp_path / "a", seed=11)
    split_file([write_jsonl(tmp_path / "b.jsonl", shuffled)], tmp_path / "b", seed=11)
    a, b = lines_of(tmp_path / "a"), lines_of(tmp_path / "b")
    assert {name: sorted(lines) for name, lines in a.items()} == {
        name: sorted(lines) for name, lines in b.items()
    }


def test_the_same_call_writes_the_same_bytes(tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "target.jsonl", rows_with_near_copies(60))
    for out in ("a", "b"):
        split_file([source], tmp_path / out)
    names = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert names == ["guide.jsonl", "split.json", "test.jsonl", "tuning.jsonl"]
    for name in names:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_parquet_stays_parquet_with_all_columns(tmp_path: Path) -> None:
    rows = rows_with_near_copies(60)
    table = pa.table(
        {
            "id": [row["id"] for row in rows],
            "text": pa.array([row["text"] for row in rows], type=pa.large_string()),
            "number": pa.array(range(60), type=pa.int16()),
            "tags": [["a", None], [], None] * 20,
        }
    )
    pq.write_table(table, tmp_path / "target.parquet")
    split_file([tmp_path / "target.parquet"], tmp_path / "out")
    parts = [pq.read_table(tmp_path / "out" / f"{name}.parquet") for name in ("guide", "tuning", "test")]
    whole = pa.concat_tables(parts)
    assert whole.schema.names == ["id", "text", "number", "tags"]
    assert whole.schema.field("number").type == pa.int16()
    assert whole.sort_by("number").to_pylist() == table.to_pylist()


def test_several_files_are_one_target(tmp_path: Path) -> None:
    rows = rows_with_near_copies(60)
    first = write_jsonl(tmp_path / "first.jsonl", rows[:30])
    second = tmp_path / "second.jsonl.gz"
    second.write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in rows[30:]).encode()))
    third = tmp_path / "third.jsonl.zst"
    third.write_bytes(zstandard.compress((json.dumps(rows[0]) + "\n").encode()))
    report = split_file([first, second, third], tmp_path / "out")
    assert report.rows == 61
    assert sum(len(lines) for lines in lines_of(tmp_path / "out").values()) == 61


def test_line_ends_and_blank_lines_are_no_part_of_a_row(tmp_path: Path) -> None:
    lines = [b'{"text": "%d words here"}' % number for number in range(10)]
    source = tmp_path / "target.jsonl"
    source.write_bytes(b"\r\n".join([*lines[:5], b"", *lines[5:]]))
    split_file([source], tmp_path / "out", fractions={"guide": 0.5, "test": 0.5})
    written = [line for part in lines_of(tmp_path / "out").values() for line in part]
    assert sorted(line.encode() for line in written) == lines


def test_the_text_may_be_a_template(tmp_path: Path) -> None:
    # The answers differ, the questions come in pairs: alone they would be split, as one text they are joined.
    rows = [{"q": f"question {i // 2} " * 10, "a": f"answer {i}"} for i in range(40)]
    source = write_jsonl(tmp_path / "target.jsonl", rows)
    report = split_file([source], tmp_path / "out", text="{q}\n{a}")
    assert report.clusters == 20


def test_split_json_says_what_was_done(tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "target.jsonl", rows_with_near_copies(100))
    report = split_file([source], tmp_path / "out", seed=42, threshold=0.4)
    facts = json.loads((tmp_path / "out" / "split.json").read_text())
    assert facts["inputs"][0]["file"] == "target.jsonl"
    assert re.fullmatch("[0-9a-f]{32}", facts["inputs"][0]["xxh3_128"])
    assert (facts["seed"], facts["threshold"], facts["shingle_words"], facts["rows"]) == (42, 0.4, 5, 100)
    assert facts["fractions"] == {"guide": 0.4, "tuning": 0.1, "test": 0.5}
    assert facts["largest_jaccard_between_splits"] == report.largest_jaccard_between < 0.4
    assert sum(part["rows"] for part in facts["splits"].values()) == 100
    assert facts["splits"]["guide"]["file"] == "guide.jsonl"
    assert str(tmp_path) not in json.dumps(facts)


def test_a_fraction_of_zero_writes_no_file(tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "target.jsonl", rows_with_near_copies(40))
    split_file([source], tmp_path / "out", fractions={"guide": 0.5, "tuning": 0.0, "test": 0.5})
    assert sorted(lines_of(tmp_path / "out")) == ["guide", "test"]


def test_an_earlier_split_is_not_overwritten_unasked(tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "target.jsonl", rows_with_near_copies(40))
    split_file([source], tmp_path / "out")
    before = lines_of(tmp_path / "out")
    with pytest.raises(ConfigError, match=r"no earlier split, got split\.json, guide\.jsonl"):
        split_file([source], tmp_path / "out", seed=1)
    assert lines_of(tmp_path / "out") == before
    split_file([source], tmp_path / "out", seed=1, overwrite=True)
    assert lines_of(tmp_path / "out") != before


def test_overwriting_leaves_nothing_of_the_earlier_split(tmp_path: Path) -> None:
    rows = rows_with_near_copies(40)
    pq.write_table(pa.table({"text": [row["text"] for row in rows]}), tmp_path / "target.parquet")
    split_file([tmp_path / "target.parquet"], tmp_path / "out")
    source = write_jsonl(tmp_path / "target.jsonl", rows)
    split_file([source], tmp_path / "out", fractions={"guide": 0.5, "tuning": 0, "test": 0.5}, overwrite=True)
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["guide.jsonl", "split.json", "test.jsonl"]


def test_too_few_documents_are_the_data_s_fault(tmp_path: Path) -> None:
    rows = [{"text": f"the same eleven words in every row of this small file {i}"} for i in range(20)]
    source = write_jsonl(tmp_path / "target.jsonl", rows)
    with pytest.raises(DataError, match="got 20 documents in 1 clusters"):
        split_file([source], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_missing_file_or_column_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.jsonl: expected a file to split, got no such file"):
        split_file([tmp_path / "nowhere.jsonl"], tmp_path / "out")
    with pytest.raises(ConfigError, match="got none"):
        split_file([], tmp_path / "out")
    source = write_jsonl(tmp_path / "target.jsonl", [{"body": "x"}])
    with pytest.raises(ConfigError, match="body"):
        split_file([source], tmp_path / "out")


def test_a_bad_row_leaves_nothing_behind(tmp_path: Path) -> None:
    source = tmp_path / "target.jsonl"
    source.write_text('{"text": "a"}\n{"text": null}\n{"text": "c"}\n')
    with pytest.raises(DataError, match=r"target\.jsonl"):
        split_file([source], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_write_that_fails_leaves_no_file_under_any_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write_jsonl(tmp_path / "target.jsonl", rows_with_near_copies(40))

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        split_file([source], tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


def test_the_report_reads_well(tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "target.jsonl", rows_with_near_copies(40))
    said = str(split_file([source], tmp_path / "out"))
    assert said.startswith("40 documents, ")
    assert "guide" in said
    assert "largest Jaccard index between splits: 0." in said
