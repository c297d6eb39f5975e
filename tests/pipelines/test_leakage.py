"""The audit of two sets: overlaps that are planted are counted to the item, by kind, with examples; and its exit code."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from planted_items import KINDS, inside, sentence, text
from run_folders import write_rows

from curate.cli import main
from curate.errors import ConfigError
from curate.pipelines.leakage import leakage


def sets(folder: Path, share: float, items: int = 50) -> tuple[list[str], list[str]]:
    """A test set of which `share` stands in the training set word for word, among other documents."""
    draw = random.Random(3)
    test = [text(draw, draw.randint(1, 4)) for _ in range(items)]
    train = [text(draw, 3) for _ in range(40)] + test[: round(share * items)]
    draw.shuffle(train)
    write_rows(folder / "test.jsonl", [{"text": t} for t in test])
    for i in range(2):
        write_rows(folder / "train" / f"{i}.parquet", [{"text": t} for t in train[i::2]])
    return train, test


@pytest.mark.parametrize("share", [0.0, 0.24, 0.9, 1.0])
def test_the_overlap_that_is_there_is_the_one_that_is_told(tmp_path: Path, share: float) -> None:
    sets(tmp_path, share)
    found = leakage(["train/*.parquet"], ["test.jsonl"], base=tmp_path)
    assert (found.items, found.exact, found.near, found.part, found.clean) == (50, round(50 * share), 0, 0, 50 - round(50 * share))
    assert found.share == share


@pytest.mark.parametrize("kind", KINDS)
def test_every_way_of_leaking_is_found(tmp_path: Path, kind: str) -> None:
    draw = random.Random(4)
    test = [text(draw, 4) for _ in range(20)]
    write_rows(tmp_path / "test.jsonl", [{"text": t} for t in test])
    write_rows(tmp_path / "train.jsonl", [{"text": t} for t in [KINDS[kind](item, draw) for item in test[:7]] + [text(draw, 6) for _ in range(30)]])
    found = leakage(["train.jsonl"], ["test.jsonl"], base=tmp_path)
    equal = kind in ("verbatim", "re-cased", "re-punctuated")
    assert (found.exact, found.near + found.part) == ((7, 0) if equal else (0, 7))
    assert found.clean == 13


def test_examples_name_rows_and_the_passage(tmp_path: Path) -> None:
    draw = random.Random(6)
    item, other = sentence(draw, 20), sentence(draw, 20)
    write_rows(tmp_path / "test.jsonl", [{"text": other}, {"text": item}, {"text": "yes"}, {"text": "no"}])
    write_rows(tmp_path / "train.jsonl", [{"text": "x"}, {"text": inside(item, draw)}, {"text": "Yes!"}])
    found = leakage(["train.jsonl"], ["test.jsonl"], base=tmp_path)
    assert (found.exact, found.near, found.clean, found.not_checkable) == (1, 1, 2, 1)
    exact, near = found.examples
    assert (exact.kind, exact.test_row, exact.train_row, exact.shared) == ("exact", 2, 2, "Yes!")
    assert (near.kind, near.test_row, near.train_row, near.share) == ("near", 1, 1, 1.0)
    assert near.shared == item.lower().rstrip(".")


def test_meaning_is_compared_where_it_is_asked(tmp_path: Path) -> None:
    """With words in another order no n-gram is shared; the default vectors, which know pairs of words, see a text of short swaps."""
    words = sentence(random.Random(8), 60).rstrip(".").split()
    moved = [w for i in range(0, 60, 4) for w in words[i : i + 4][::-1]]
    write_rows(tmp_path / "test.jsonl", [{"text": " ".join(words)}])
    write_rows(tmp_path / "train.jsonl", [{"text": " ".join(moved)}, {"text": sentence(random.Random(1), 60)}])
    settings = {"method": "ngrams", "ngram": 1}
    found = leakage(["train.jsonl"], ["test.jsonl"], base=tmp_path, embed=settings, similarity=0.95)
    assert (found.exact, found.near, found.part, found.meaning, found.clean) == (0, 0, 0, 1, 0)
    assert found.examples[0].train_row == 0
    assert leakage(["train.jsonl"], ["test.jsonl"], base=tmp_path).clean == 1


def test_the_command_tells_and_ends_with_3_where_more_leaks_than_may(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    sets(tmp_path, 0.24)
    monkeypatch.chdir(tmp_path)
    codes = []
    for more in (["--json"], ["--max-share", "0.24"], ["--max-share", "0.23"]):
        with pytest.raises(SystemExit) as ended:
            main(["leakage", "train/*.parquet", "test.jsonl", *more])
        codes.append(ended.value.code)
        if more == ["--json"]:
            assert json.loads(capsys.readouterr().out)["exact"] == 12
    assert codes == [0, 0, 3]
    assert "50 items held against 52 documents: 24.0% found" in capsys.readouterr().out


def test_shares_that_cannot_be_are_refused(tmp_path: Path) -> None:
    sets(tmp_path, 0.24)
    for wrong in ({"near": 0.0}, {"part": 0.6}, {"similarity": 1.5}):
        with pytest.raises(ConfigError, match="expected"):
            leakage(["train/*.parquet"], ["test.jsonl"], base=tmp_path, **wrong)
