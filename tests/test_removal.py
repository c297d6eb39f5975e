"""Takedowns, by the command: what is named and what equals it is nowhere in the run afterwards, whatever dies on the way."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from run_folders import (
    STAGES,
    call,
    check_final_names,
    chosen_texts,
    counts,
    docs,
    lasting,
    leftovers,
    published_rows,
    recipe_for,
    run,
    small_rows,
    write_recipe,
    write_rows,
)

from curate import ledger, takedown
from curate.catalog import OpenRun
from curate.errors import ConfigError, DataError
from curate.removal import read_ids

TESTS = Path(__file__).parent
#: maths-0020's text is copies-0003's too.
BEST: list[dict[str, Any]] = [*STAGES[:3], {"select": {"by": "dsir", "budget": "25%"}}]
NAMED = ["copies-0003", "maths-0061", "logs-0003"]


@pytest.fixture
def pool(tmp_path: Path) -> Path:
    """The sample's pool in four files, with a column of remarks that no stage reads."""
    rows = [{**row, "remark": f"remark of {row['id']}"} for row in small_rows()]
    for n in range(4):
        write_rows(tmp_path / "pool" / f"{n}.parquet", rows[n::4])
    (tmp_path / "ids.txt").write_text("\n".join(NAMED) + "\n")
    return tmp_path


def made(pool: Path, **more: Any) -> Path:
    """A recipe file over the pool, carried out."""
    recipe = write_recipe(pool / "recipe.yaml", recipe_for(pool, **{"stages": BEST, **more}))
    done = call("run", recipe, "--run", pool / "run", "--workers", 1, "-q")
    assert done.returncode == 0, done.stderr
    return recipe


def take_down(pool: Path, *words: object) -> subprocess.CompletedProcess[str]:
    return call("takedown", pool / "run", "--ids", pool / "ids.txt", "--workers", 1, "-q", *words)


def texts_of(ids: list[str]) -> set[str]:
    return {row["text"] for row in small_rows() if row["id"] in ids}


def data_of(folder: Path) -> dict[str, bytes]:
    root = (folder / "mixture").resolve(strict=True) / "data"
    return {file.name: file.read_bytes() for file in sorted(root.iterdir())}


def test_what_is_named_and_what_equals_it_is_nowhere_afterwards(pool: Path) -> None:
    made(pool)
    gone = texts_of(NAMED)
    assert gone & set(chosen_texts(pool / "run"))
    done = take_down(pool)
    assert done.returncode == 0, done.stderr
    assert "4 documents of the pool are taken down: 3 named, 1 more whose text equals one of theirs" in done.stdout
    assert not gone & set(chosen_texts(pool / "run"))
    files = [f for f in (pool / "run").rglob("*.parquet") if "store" not in f.parts]
    for file in files:
        content = repr(pq.read_table(file).to_pylist())
        for text in gone:
            assert repr(text)[1:-1] not in content, file
        for name in (*NAMED, "maths-0020"):
            assert f"remark of {name}'" not in content, file
    assert counts(pool / "run")["takedown", "taken down"] == 3
    assert counts(pool / "run")["takedown", "equals a text taken down"] == 1
    assert len(list((pool / "run" / "mixtures").iterdir())) == 1
    assert leftovers(pool / "run") == []
    record = takedown.read(pool / "run")
    assert record is not None
    assert takedown.remains(pool / "run", record, ("id", "source")) == {}
    entries = ledger.read(pool / "run")
    assert entries is not None
    assert takedown.NAME in {entry.path for entry in entries.entries}


def test_what_is_published_equals_a_run_that_never_had_them(pool: Path) -> None:
    made(pool)
    assert take_down(pool).returncode == 0
    gone = texts_of(NAMED)
    for n in range(4):
        file = pool / "pool" / f"{n}.parquet"
        write_rows(pool / "less" / f"{n}.parquet", [row for row in pq.read_table(file).to_pylist() if row["text"] not in gone])
    run(recipe_for(pool, paths=("less/*",), stages=BEST), pool / "fresh")
    assert data_of(pool / "run") == data_of(pool / "fresh")


def test_a_later_run_keeps_them_out_under_any_name_in_any_file(pool: Path) -> None:
    recipe = made(pool)
    assert take_down(pool).returncode == 0
    [text] = texts_of(["maths-0061"])
    write_rows(pool / "pool" / "new.parquet", [
        {"id": "new-0001", "source": "maths", "text": text, "remark": "the same under another name"},
        {"id": "logs-0003", "source": "logs", "text": "Quite another text under an old name, long enough to pass.", "remark": ""},
    ])  # fmt: skip
    rows = pq.read_table(pool / "pool" / "3.parquet").to_pylist()
    write_rows(pool / "pool" / "3.parquet", [row for row in rows if row["id"] != "logs-0003"])
    done = call("run", recipe, "--run", pool / "run", "--workers", 2, "-q")
    assert done.returncode == 0, done.stderr
    table = docs(pool / "run").to_pylist()
    dropped = {row["curate_identity"]: row for row in table if row["curate_drop_stage"] == "takedown"}
    assert {"new-0001", "logs-0003", "maths-0061", "copies-0003", "maths-0020"} == set(dropped)
    assert all(row["remark"] is None and row["source"] for row in dropped.values())
    assert not {"new-0001", *NAMED} & {row["id"] for row in published_rows(pool / "run")}


def test_a_dry_run_says_the_same_and_writes_nothing(pool: Path) -> None:
    made(pool)
    before = {str(f): f.read_bytes() for f in (pool / "run").rglob("*") if f.is_file() and f.name != "status.json"}
    would = json.loads(take_down(pool, "--dry-run", "--json").stdout)
    assert {str(f): f.read_bytes() for f in (pool / "run").rglob("*") if f.is_file() and f.name != "status.json"} == before
    did = json.loads(take_down(pool, "--json").stdout)
    assert would["dry_run"]
    assert not did["dry_run"]
    for name in ("documents", "publications", "fitted", "targets", "missing"):
        assert would[name] == did[name], name
    assert [d["identity"] for d in did["documents"] if not d["named"]] == ["maths-0020"]
    [fit] = did["fitted"]
    assert (fit["label"], fit["documents"], fit["frozen"]) == ("dsir", 3, False)  # dedup_exact had dropped a copy before


def test_an_older_publication_goes_only_if_it_held_one(pool: Path) -> None:
    recipe = made(pool)
    none_of_them = "select.where=source <> 'maths' AND source <> 'copies' AND source <> 'logs'"
    assert call("run", recipe, "--run", pool / "run", "--set", f"stages.{none_of_them}", "-q").returncode == 0
    innocent = (pool / "run" / "mixture").resolve().name
    assert call("run", recipe, "--run", pool / "run", "--set", "emit.format=jsonl", "-q").returncode == 0
    assert len(list((pool / "run" / "mixtures").iterdir())) == 3
    done = json.loads(take_down(pool, "--json").stdout)
    assert len(done["publications"]) == 2
    current = (pool / "run" / "mixture").resolve().name
    assert {path.name for path in (pool / "run" / "mixtures").iterdir()} == {innocent, current}
    assert list((pool / "run" / "mixture" / "data").glob("*.jsonl.zst"))  # by the recipe of the last run


def test_unknown_ids_are_named_and_nothing_is_done(pool: Path) -> None:
    recipe = made(pool)
    before = lasting(pool / "run")
    (pool / "ids.txt").write_text("maths-0061\nno-such\n")
    done = take_down(pool)
    assert done.returncode == 3
    assert "1 of 2 ids are in no document" in done.stderr
    assert "'no-such'" in done.stderr
    assert lasting(pool / "run") == before
    assert take_down(pool, "--allow-missing").returncode == 0
    write_rows(pool / "pool" / "new.parquet", [{"id": "no-such", "source": "maths", "text": "It has come after all, and is long enough.", "remark": ""}])
    assert call("run", recipe, "--run", pool / "run", "-q").returncode == 0
    assert counts(pool / "run")["takedown", "taken down"] == 2


def test_without_ids_a_text_is_named_by_its_hash(pool: Path) -> None:
    made(pool, ids=False)
    row = next(row for row in published_rows(pool / "run") if row["id"] == "maths-0061")
    (pool / "ids.txt").write_text(row["curate_identity"])
    assert take_down(pool).returncode == 0
    assert row["text"] not in chosen_texts(pool / "run")


def test_a_document_that_has_left_the_pool_is_found_in_the_publications(pool: Path) -> None:
    recipe = made(pool)
    first = {path.name for path in (pool / "run" / "mixtures").iterdir()}
    rows = {n: pq.read_table(pool / "pool" / f"{n}.parquet").to_pylist() for n in range(4)}
    for n, found in rows.items():
        write_rows(pool / "pool" / f"{n}.parquet", [row for row in found if row["id"] != "maths-0061"])
    assert call("run", recipe, "--run", pool / "run", "-q").returncode == 0
    (pool / "ids.txt").write_text("maths-0061\n")
    [later] = {path.name for path in (pool / "run" / "mixtures").iterdir()} - first
    done = json.loads(take_down(pool, "--json").stdout)
    assert done["missing"] == []
    assert set(done["publications"]) == first
    assert done["unread"] == 1
    current = (pool / "run" / "mixture").resolve().name
    assert {path.name for path in (pool / "run" / "mixtures").iterdir()} == {later, current}


def test_a_frozen_state_is_said_to_stay(pool: Path) -> None:
    made(pool, stages=[*STAGES[:2], {"dsir": {"state": "frozen"}}, {"select": {"by": "dsir", "budget": "25%"}}])
    done = take_down(pool)
    assert "it stays as it is, for the stage is frozen: remove frozen/dsir.json" in done.stdout
    state = OpenRun(pool / "run").arrow("SELECT state FROM stages WHERE label = 'dsir'")["state"][0].as_py()
    (pool / "run" / "frozen" / "dsir.json").unlink()
    assert call("run", pool / "recipe.yaml", "--run", pool / "run", "-q").returncode == 0
    assert OpenRun(pool / "run").arrow("SELECT state FROM stages WHERE label = 'dsir'")["state"][0].as_py() != state


def test_a_text_of_the_guide_is_said_to_stand_there_too(pool: Path) -> None:
    guide = [json.loads(line) for line in (TESTS.parent / "data_samples" / "small" / "guide.jsonl").read_text().splitlines()]
    write_rows(pool / "pool" / "new.parquet", [{"id": "from-guide", "source": "maths", "text": guide[0]["text"], "remark": ""}])
    made(pool)
    (pool / "ids.txt").write_text("from-guide\n")
    assert "1 of their texts stand in the guide of maths too" in take_down(pool).stdout


def test_near_duplicates_are_listed_and_stay(pool: Path) -> None:
    [text] = texts_of(["maths-0061"])
    words = (text + " and so on for a while until there are enough words in it that one of them changed is not much").split()
    near = " ".join([*words[:-1], "more"])
    write_rows(pool / "pool" / "new.parquet", [
        {"id": "near-0001", "source": "maths", "text": near, "remark": ""}, {"id": "near-0000", "source": "maths", "text": " ".join(words), "remark": ""},
    ])  # fmt: skip
    made(pool)
    (pool / "ids.txt").write_text("near-0000\n")
    done = json.loads(take_down(pool, "--json", "--near", pool / "near.parquet").stdout)
    shingles = len(words) - 4
    [row] = done["near"]
    assert (row["identity"], row["of"]) == ("near-0001", "near-0000")
    assert row["jaccard"] == (shingles - 1) / (shingles + 1)
    assert pq.read_table(pool / "near.parquet")["identity"].to_pylist() == ["near-0001"]
    assert "near-0001" in docs(pool / "run")["curate_identity"].to_pylist()


def test_a_takedown_cut_at_any_step_is_completed_by_the_same_command(tmp_path: Path) -> None:
    """Every step on the disk of a takedown over two parts: killed there, then the same command, then the bytes of a calm one."""
    rows = [{**row, "remark": row["id"]} for row in small_rows()]
    rows = [row for row in rows if row["id"] in (*NAMED, "maths-0020")] + rows[:60]
    write_rows(tmp_path / "pool" / "0.parquet", list({row["id"]: row for row in rows}.values()))
    (tmp_path / "ids.txt").write_text("\n".join(NAMED) + "\n")
    made(tmp_path, stages=[STAGES[0], {"select": {"how": "random", "budget": "60%"}}])
    shutil.copytree(tmp_path / "run", tmp_path / "first", symlinks=True)
    words = ["takedown", str(tmp_path / "run"), "--ids", str(tmp_path / "ids.txt"), "--workers", "1", "-q"]

    def cut(at: int) -> int:
        program = [sys.executable, str(TESTS / "crash.py"), str(at), str(tmp_path / "count"), *words]
        return subprocess.run(program, capture_output=True, check=False, timeout=60).returncode

    def restore() -> None:
        shutil.rmtree(tmp_path / "run")
        shutil.copytree(tmp_path / "first", tmp_path / "run", symlinks=True)

    assert cut(0) == 0
    steps = int((tmp_path / "count").read_text())
    calm = {k: v for k, v in lasting(tmp_path / "run").items() if not k.startswith("store")}
    assert steps > 20
    for at in sorted({1, steps, *range(3, steps, max(1, steps // 10))}):
        restore()
        assert cut(at) == -signal.SIGKILL, at
        check_final_names(tmp_path / "run")
        again = call(*words)
        assert again.returncode == 0, (at, again.stderr)
        assert {k: v for k, v in lasting(tmp_path / "run").items() if not k.startswith("store")} == calm, at
        assert len(list((tmp_path / "run" / "mixtures").iterdir())) == 1
        assert [name for name in leftovers(tmp_path / "run") if not name.startswith(".lease/")] == []


def test_a_takedown_cut_after_its_record_is_completed_by_the_next_run(pool: Path) -> None:
    recipe = made(pool)
    before = takedown.read(pool / "run")
    assert before is None
    rows = [(name, None, True) for name in NAMED]
    takedown.record(pool / "run", takedown.listed(rows), pool)
    assert call("run", recipe, "--run", pool / "run", "-q").returncode == 0
    assert not set(NAMED) & {row["id"] for row in published_rows(pool / "run")}
    assert len(list((pool / "run" / "mixtures").iterdir())) == 1


@pytest.mark.parametrize("name", ["ids.txt", "ids.parquet", "ids.csv", "ids.tsv", "ids.jsonl"])
def test_ids_are_read_from_any_of_these(name: str, tmp_path: Path) -> None:
    file = tmp_path / name
    if name.endswith("parquet"):
        pq.write_table(pa.table({"other": [1, 2], "id": ["007", "a b"]}), file)
    elif name.endswith("txt"):
        file.write_bytes("\ufeff007\r\na b\r\n\n".encode())
    elif name.endswith("jsonl"):
        file.write_text('{"id": "007"}\n{"id": "a b"}\n')
    else:
        mark = "\t" if name.endswith("tsv") else ","
        file.write_text(f"other{mark}id\n1{mark}007\n2{mark}a b\n")
    assert read_ids(file, None, "doc_id") == ["007", "a b"]


def test_files_of_ids_that_cannot_be_meant_are_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": ["x"], "b": ["y"]}), tmp_path / "two.parquet")
    with pytest.raises(ConfigError, match="name it with --column"):
        read_ids(tmp_path / "two.parquet", None, None)
    assert read_ids(tmp_path / "two.parquet", "b", None) == ["y"]
    with pytest.raises(ConfigError, match="did you mean"):
        read_ids(tmp_path / "two.parquet", "bb", None)
    pq.write_table(pa.table({"id": ["x", None]}), tmp_path / "null.parquet")
    with pytest.raises(DataError, match="got 1 without"):
        read_ids(tmp_path / "null.parquet", None, None)
    (tmp_path / "empty.txt").write_text("\n")
    with pytest.raises(DataError, match="at least one id"):
        read_ids(tmp_path / "empty.txt", None, None)
    with pytest.raises(ConfigError, match="got nothing"):
        read_ids(tmp_path / "none.txt", None, None)
