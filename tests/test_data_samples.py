"""The samples are what their generators make, and hold what the tests and the demo count on."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pyarrow.parquet as pq
import pytest

ROOT = Path(__file__).resolve().parents[1]
SAMPLES = ROOT / "data_samples"
SMALL = SAMPLES / "small"


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"data_samples_{name}", SAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def rows_of(folder: Path) -> dict[str, list[dict[str, Any]]]:
    pool = [row for path in sorted((folder / "pool").iterdir()) for row in pq.read_table(path).to_pylist()]
    jsonl = {
        name: [json.loads(line) for line in (folder / f"{name}.jsonl").read_text("utf-8").split("\n")[:-1]]
        for name in ("guide", "test")
    }
    return {"pool": pool, **jsonl}


def grams(text: str) -> frozenset[tuple[str, ...]]:
    words = re.findall(r"\w+", text.lower())
    return frozenset(tuple(words[i : i + 5]) for i in range(max(1, len(words) - 4)))


def largest_index(left: list[dict[str, Any]], right: list[dict[str, Any]]) -> float:
    """All pairs that share a gram."""
    sets = [grams(row["text"]) for row in left]
    holders: dict[tuple[str, ...], list[int]] = {}
    for i, own in enumerate(sets):
        for gram in own:
            holders.setdefault(gram, []).append(i)
    largest = 0.0
    for row in right:
        own = grams(row["text"])
        for i in {i for gram in own for i in holders.get(gram, [])}:
            largest = max(largest, len(own & sets[i]) / len(own | sets[i]))
    return largest


def run_make_sample(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error", str(SAMPLES / "make_sample.py"), *words]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def big(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("samples") / "deep" / "big"
    done = run_make_sample(str(out), "--mb", "1")
    assert done.returncode == 0, done.stderr
    return out


def test_the_small_sample_is_what_its_generator_makes(tmp_path: Path) -> None:
    load("make_small").main(tmp_path)
    assert rows_of(tmp_path) == rows_of(SMALL)
    for name in ("guide.jsonl", "test.jsonl"):
        assert (tmp_path / name).read_bytes() == (SMALL / name).read_bytes()


def test_the_small_sample_is_small() -> None:
    assert sum(path.stat().st_size for path in SMALL.rglob("*") if path.is_file()) < 300_000


def test_the_small_sample_holds_what_tests_count_on() -> None:
    rows = rows_of(SMALL)
    pool = rows["pool"]
    texts = [row["text"] for row in pool]
    assert len(pool) == 599
    assert len(rows["guide"]) == len(rows["test"]) == 40
    assert [path.name for path in sorted((SMALL / "pool").iterdir())] == [
        "part-00000.parquet",
        "part-00001.parquet",
    ]
    assert pq.ParquetFile(SMALL / "pool" / "part-00000.parquet").num_row_groups == 3
    assert len({row["id"] for row in pool}) == len(pool)
    assert {row["source"] for row in pool} == {
        "recipes", "maths", "code", "logs", "notes", "copies", "awkward",
    }  # fmt: skip
    assert texts.count("") == 2
    assert len(texts) - len(set(texts)) >= 13
    for script in ("天气", "मौसम", "🎉", "e\u0301", "İ", "Σ", "مشمس"):
        assert any(script in text for text in texts)
    assert sum(row["score"] is None for row in pool) > 40


def test_guide_and_test_of_the_small_sample_are_near_nothing() -> None:
    rows = rows_of(SMALL)
    assert largest_index(rows["guide"], rows["test"]) < 0.5
    assert largest_index(rows["guide"] + rows["test"], rows["pool"]) < 0.5


def test_the_word_problems_of_the_small_sample_are_right() -> None:
    rows = rows_of(SMALL)
    for row in rows["guide"] + rows["test"]:
        for left, sign, right, result in re.findall(r"(\d+) ([-*+]) (\d+) = (\d+)", row["text"]):
            a, b = int(left), int(right)
            assert int(result) == {"+": a + b, "-": a - b, "*": a * b}[sign]


def test_the_real_sample_has_the_columns_and_sizes_that_were_asked_for(big: Path) -> None:
    rows = rows_of(big)
    assert sorted(path.name for path in big.iterdir()) == ["guide.jsonl", "pool", "sample.json", "test.jsonl"]
    assert len(list((big / "pool").iterdir())) == 4
    assert pq.ParquetFile(big / "pool" / "part-00000.parquet").num_row_groups == 4
    assert all(list(row) == ["id", "text", "source"] for part in rows.values() for row in part)
    size = sum(len(row["text"].encode()) for row in rows["pool"])
    assert 1_000_000 <= size < 1_100_000
    assert len(rows["guide"]) == len(rows["test"]) == 40
    every = [row["id"] for part in rows.values() for row in part]
    assert len(set(every)) == len(every)
    assert all(row["text"].strip() for part in rows.values() for row in part)


def test_the_real_sample_is_mostly_code_with_some_prose_to_find(big: Path) -> None:
    rows = rows_of(big)
    size: dict[str, int] = {}
    for row in rows["pool"]:
        size[row["source"]] = size.get(row["source"], 0) + len(row["text"].encode())
    assert size["stdlib_code"] > 100_000
    assert 30_000 < size["docstrings"] + size.get("topics", 0) < 250_000
    assert {row["source"] for row in rows["guide"] + rows["test"]} <= {"docstrings", "topics"}


def test_guide_and_test_of_the_real_sample_are_near_nothing(big: Path) -> None:
    rows = rows_of(big)
    assert largest_index(rows["guide"], rows["test"]) < 0.5
    assert largest_index(rows["guide"] + rows["test"], rows["pool"]) < 0.5


def test_documents_of_the_real_sample_are_of_a_sensible_size(big: Path) -> None:
    for part in rows_of(big).values():
        assert max(len(row["text"].encode()) for row in part) <= 4_000


def test_a_second_call_finds_the_sample_and_the_same_call_makes_the_same_bytes(
    big: Path, tmp_path: Path
) -> None:
    before = (big / "sample.json").stat().st_mtime_ns
    again = run_make_sample(str(big), "--mb", "1")
    assert "there already" in again.stdout
    assert (big / "sample.json").stat().st_mtime_ns == before
    assert run_make_sample(str(tmp_path / "twin"), "--mb", "1").returncode == 0
    for path in sorted(big.rglob("*")):
        if path.is_file():
            assert (tmp_path / "twin" / path.relative_to(big)).read_bytes() == path.read_bytes()


def test_another_seed_makes_another_sample_in_its_place(tmp_path: Path) -> None:
    out = tmp_path / "sample"
    for seed in ("1", "2"):
        done = run_make_sample(str(out), "--mb", "0.2", "--seed", seed)
        assert done.returncode == 0, done.stderr
    assert json.loads((out / "sample.json").read_text())["stamp"]["seed"] == 2
    assert [path.name for path in tmp_path.iterdir()] == ["sample"]


def test_a_folder_that_holds_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("ten years of work")
    done = run_make_sample(str(tmp_path))
    assert done.returncode == 2
    assert "holds else" in done.stderr
    assert (tmp_path / "thesis.tex").read_text() == "ten years of work"


def test_a_size_of_nothing_is_refused(tmp_path: Path) -> None:
    done = run_make_sample(str(tmp_path / "x"), "--mb", "0")
    assert done.returncode == 2
    assert "--mb" in done.stderr
