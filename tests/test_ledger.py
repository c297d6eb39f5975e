"""The ledger: every file of a finished run, with a hash that was taken when it was written."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import xxhash
from run_folders import (
    SMALL,
    STAGES,
    call,
    command,
    lasting,
    recipe_for,
    run,
    small_rows,
    write_pool,
    write_recipe,
    write_rows,
)
from test_run import SHOUT

from curate import ledger
from curate.errors import DataError
from curate.ledger import Entry, Ledger
from curate.store import noting, write_bytes, write_table

#: What is in a run folder beside the ledger's files: caches, what changes by itself, and the ledger.
OUTSIDE = {"ledger.parquet", "files.json", "events.jsonl", "status.json", "catalog.duckdb", ".lease/00000001.json"}


@pytest.fixture
def pool(tmp_path: Path) -> Path:
    """A folder with the sample's pool in three files."""
    return write_pool(tmp_path)


def ledger_of(folder: Path) -> Ledger:
    found = ledger.read(folder)
    assert found is not None
    return found


def by_path(folder: Path) -> dict[str, Entry]:
    return {f"{entry.root}/{entry.path}": entry for entry in ledger_of(folder).entries}


def check_against_the_disk(folder: Path) -> None:
    """Each entry's size, rows and hash, counted here from the file itself."""
    found = ledger_of(folder)
    assert found.entries == sorted(found.entries, key=lambda entry: (entry.root, entry.path))
    for entry in found.entries:
        content = found.path(entry).read_bytes()
        assert entry.bytes == len(content)
        assert entry.hash == xxhash.xxh3_128_hexdigest(content)
        assert entry.rows == (pq.read_metadata(found.path(entry)).num_rows if entry.path.endswith(".parquet") else None)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_fresh_run_s_ledger_has_every_file_with_its_size_rows_and_hash(pool: Path, workers: int) -> None:
    run(recipe_for(pool), pool / "run", workers=workers)
    check_against_the_disk(pool / "run")
    found = ledger_of(pool / "run")
    listed = {found.path(entry) for entry in found.entries}
    there = {path for path in (pool / "run").rglob("*") if path.is_file()}
    assert {str(path.relative_to(pool / "run")) for path in there - listed} == OUTSIDE
    assert listed <= there
    assert {entry.kind for entry in found.entries} == {"measures", "fit", "state", "verdict", "finish", "unique", "docs", "mixture", "record"}


def test_the_ledger_is_the_same_at_any_worker_count_but_for_the_records(pool: Path) -> None:
    for workers in (1, 2):
        run(recipe_for(pool), pool / f"run{workers}", workers=workers)
    one, two = ({k: e for k, e in by_path(pool / f"run{w}").items() if e.kind != "record"} for w in (1, 2))
    assert one == two


def test_a_store_elsewhere_is_found_from_the_ledger(pool: Path) -> None:
    run(recipe_for(pool), pool / "run", store=pool / "shared")
    found = ledger_of(pool / "run")
    assert found.store == (pool / "shared").resolve()
    assert all(found.path(entry).is_relative_to(pool / "shared") for entry in found.entries if entry.root == "store")
    check_against_the_disk(pool / "run")


def test_the_ledger_follows_a_changed_recipe_and_keeps_nothing_of_the_old_one(pool: Path) -> None:
    run(recipe_for(pool), pool / "run")
    run(recipe_for(pool, seed=8), pool / "run")
    run(recipe_for(pool, seed=8), pool / "fresh")
    changed = {k for k, e in by_path(pool / "run").items() if e.kind != "record"}
    assert changed == {k for k, e in by_path(pool / "fresh").items() if e.kind != "record"}
    check_against_the_disk(pool / "run")


def test_files_of_a_run_that_was_killed_before_its_ledger_are_taken_in(pool: Path) -> None:
    run(recipe_for(pool), pool / "run")
    before = by_path(pool / "run")
    (pool / "run" / "ledger.parquet").unlink()
    run(recipe_for(pool), pool / "run")
    assert {k: e for k, e in by_path(pool / "run").items() if e.kind != "record"} == {k: e for k, e in before.items() if e.kind != "record"}


def test_damage_of_a_known_file_is_not_taken_for_content(pool: Path) -> None:
    """A flipped byte that no reading met stays out of the next ledger: the hash is still that of what was written."""
    run(recipe_for(pool), pool / "run")
    target = next((pool / "run" / "mixture" / "data").resolve().glob("*.parquet"))
    content = bytearray(target.read_bytes())
    content[len(content) // 2] ^= 1
    target.write_bytes(content)
    run(recipe_for(pool, compare={"draws": 5}), pool / "run")
    entry = next(e for k, e in by_path(pool / "run").items() if k.endswith(target.name))
    assert entry.hash != xxhash.xxh3_128_hexdigest(bytes(content))


def test_records_that_a_killed_run_left_are_not_held_against_the_ledger_before_it(pool: Path) -> None:
    """A list of takedowns that grew, and a frozen state's record of the same size, after a run that died before its ledger."""
    stages = [{"dsir": {"state": "frozen"}} if "dsir" in stage else stage for stage in STAGES]
    recipe = write_recipe(pool / "recipe.yaml", recipe_for(pool, stages=stages))
    words = ("run", recipe, "--run", pool / "run", "--workers", 1, "-q")
    assert call(*words).returncode == 0
    for name, ids in (("first", ["maths-0020"]), ("second", ["maths-0061", "logs-0003", "copies-0003"])):
        (pool / name).write_text("\n".join(ids) + "\n")
        before = (pool / "run" / "ledger.parquet").read_bytes()
        done = call("takedown", pool / "run", "--ids", pool / name, "--workers", 1, "-q")
        assert done.returncode == 0, done.stderr
    shutil.copytree(pool / "run" / "frozen", pool / "frozen")
    (pool / "run" / "frozen" / "dsir.json").unlink()
    write_rows(pool / "pool" / "9.parquet", [row | {"id": row["id"] + "-9", "text": row["text"] + " again"} for row in small_rows()[:50]])
    assert call(*words).returncode == 0
    assert (pool / "run" / "frozen" / "dsir.json").stat().st_size == (pool / "frozen" / "dsir.json").stat().st_size
    (pool / "run" / "ledger.parquet").write_bytes(before)  # as if both had died before they wrote theirs
    done = call(*words)
    assert done.returncode == 0, done.stderr
    check_against_the_disk(pool / "run")
    assert call("verify", pool / "run").returncode == 0


def test_a_damaged_file_that_no_ledger_knows_is_not_taken_in(pool: Path) -> None:
    run(recipe_for(pool), pool / "run")
    (pool / "run" / "ledger.parquet").unlink()
    target = next((pool / "run" / "mixture" / "data").resolve().glob("*.parquet"))
    content = bytearray(target.read_bytes())
    content[len(content) // 4] ^= 1
    target.write_bytes(content)
    with pytest.raises(DataError, match=rf"{target.name} is damaged .*curate verify RUN --repair"):
        run(recipe_for(pool), pool / "run")
    assert not (pool / "run" / "ledger.parquet").exists()


def test_what_a_frozen_state_was_fitted_on_stays_in_the_ledger(pool: Path) -> None:
    stages = [{"dsir": {"state": "frozen"}} if "dsir" in stage else stage for stage in STAGES]
    run(recipe_for(pool, stages=stages), pool / "run")
    first = {k for k, e in by_path(pool / "run").items() if e.kind == "fit"}
    write_rows(pool / "pool" / "9.parquet", [row | {"id": row["id"] + "-9", "text": row["text"] + " again"} for row in small_rows()[:50]])
    run(recipe_for(pool, stages=stages), pool / "run")
    assert {k for k, e in by_path(pool / "run").items() if e.kind == "fit"} == first
    assert len(first) == 3


def test_a_ledger_that_is_damaged_is_named(pool: Path) -> None:
    run(recipe_for(pool), pool / "run")
    file = pool / "run" / "ledger.parquet"
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(DataError, match=r"ledger\.parquet is damaged"):
        ledger.read(pool / "run")
    pq.write_table(pa.table({"root": ["run"]}), file)
    with pytest.raises(DataError, match=r"ledger\.parquet is damaged"):
        ledger.read(pool / "run")


def test_a_folder_without_a_finished_run_has_no_ledger(tmp_path: Path) -> None:
    assert ledger.read(tmp_path) is None


def test_a_write_is_noted_before_it_has_its_name_and_blocks_collect_for_themselves(tmp_path: Path) -> None:
    table = pa.table({"a": [1, 2, 3]})
    with noting() as outer:
        write_bytes(tmp_path / "a", b"abc", tmp_path / "scratch")
        with noting() as inner:
            write_table(tmp_path / "b.parquet", table, tmp_path / "scratch")
    assert list(outer) == [str(tmp_path / "a")]
    assert outer[str(tmp_path / "a")].hash == xxhash.xxh3_128_hexdigest(b"abc")
    assert (inner[str(tmp_path / "b.parquet")].rows, inner[str(tmp_path / "b.parquet")].bytes) == (3, os.path.getsize(tmp_path / "b.parquet"))


def test_every_parquet_file_of_a_run_carries_checksums_of_its_pages(pool: Path) -> None:
    """Not only that they are compared: a flipped byte of a page is noticed wherever it is, so each file has them."""
    run(recipe_for(pool), pool / "run")
    assert lasting(pool / "run")
    found = ledger_of(pool / "run")
    files = [found.path(e) for e in found.entries if e.path.endswith(".parquet") and e.rows]
    assert len(files) > 20
    for file in files:
        column = pq.read_metadata(file).row_group(0).column(0)
        at = (column.dictionary_page_offset or column.data_page_offset) + column.total_compressed_size - 1
        content = bytearray(file.read_bytes())
        content[at] ^= 0x10
        (pool / "damaged.parquet").write_bytes(content)
        with pytest.raises(OSError, match="CRC checksum"):
            pq.ParquetFile(pool / "damaged.parquet", page_checksum_verification=True).read(columns=[pq.read_schema(file).names[0]])


# -- nothing to do -----------------------------------------------------------------------------------------------------


def opened_files(pool: Path, *words: object) -> tuple[int, str, set[str]]:
    """Run the command under strace: exit code, output, and which files it and its children opened."""
    trace = pool / "trace"
    watched = ["strace", "-f", "-qq", "-e", "trace=openat,open,execve", "-o", str(trace), *command("run", pool / "recipe.yaml", "--run", pool / "run", *words)]
    done = subprocess.run(watched, capture_output=True, text=True, check=False, timeout=300)
    lines = trace.read_text(errors="replace").splitlines()
    found = {m.group(1) for line in lines if " = -1 " not in line and (m := re.search(r'open(?:at)?\(.*?"([^"]*)"', line))}
    assert sum("execve(" in line and " = 0" in line for line in lines) == 1 or "curate.worker" in trace.read_text(errors="replace")
    return done.returncode, done.stdout, found


@pytest.mark.skipif(shutil.which("strace") is None, reason="no strace here to see which files are opened")
def test_a_run_with_nothing_to_do_opens_no_input_and_no_sidecar_and_starts_no_worker(pool: Path) -> None:
    write_recipe(pool / "recipe.yaml", recipe_for(pool))
    for _ in range(2):  # the second settles the doubt about files that had just been written
        time_is_certain(pool)
        assert call("run", pool / "recipe.yaml", "--run", pool / "run", "-q").returncode == 0
    code, said, opened = opened_files(pool)
    assert code == 0
    assert "nothing to do" in said
    assert "3 parts unchanged" in said
    assert "curate.worker" not in (pool / "trace").read_text(errors="replace")
    inside = {str(Path(f).relative_to(pool)) for f in opened if f.startswith(str(pool))}
    assert not {f for f in inside if f.startswith(("pool/", "run/store/", "run/.docs/", "run/docs", "run/mixture")) and Path(f).suffix}
    assert {f for f in inside if f.startswith("run/") and f.endswith(".parquet")} == {"run/ledger.parquet", "run/parts.parquet", "run/funnel.parquet"}


def time_is_certain(pool: Path) -> None:
    """Wait until the newest file of the pool is old enough to leave no doubt, by its own time."""
    newest = max(f.stat().st_ctime for f in (pool / "pool").iterdir())
    while time.time() - newest <= 2.1:
        time.sleep(0.1)


def test_a_run_with_nothing_to_do_leaves_every_byte_and_calls_no_stage(pool: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(recipe_for(pool), pool / "run")
    before = lasting(pool / "run")
    monkeypatch.setattr("curate.runner.Run.passes", None)  # calling it would raise
    assert run(recipe_for(pool), pool / "run").outcome.unchanged
    assert lasting(pool / "run") == before


@pytest.mark.parametrize("kind", ["measures", "fit", "state", "verdict", "finish", "unique", "docs", "mixture", "record"])
def test_a_file_that_is_gone_comes_back_with_the_same_bytes(pool: Path, kind: str) -> None:
    run(recipe_for(pool), pool / "run")
    before, entries = lasting(pool / "run"), by_path(pool / "run")
    found = ledger_of(pool / "run")
    gone = [e for e in found.entries if e.kind == kind][:6]
    for entry in gone:
        found.path(entry).unlink()
        outcome = run(recipe_for(pool), pool / "run").outcome
        assert not outcome.unchanged
        assert lasting(pool / "run") == before
    assert gone
    assert {k: e for k, e in by_path(pool / "run").items() if e.kind != "record"} == {k: e for k, e in entries.items() if e.kind != "record"}
    assert run(recipe_for(pool), pool / "run").outcome.unchanged


@pytest.mark.parametrize("kind", ["measures", "fit", "state", "verdict", "finish", "docs", "mixture"])
def test_a_file_of_another_size_stops_the_run_and_is_named(pool: Path, kind: str) -> None:
    run(recipe_for(pool), pool / "run")
    found = ledger_of(pool / "run")
    entry = next(e for e in found.entries if e.kind == kind)
    with open(found.path(entry), "ab") as file:
        file.write(b"\0")
    with pytest.raises(DataError, match=rf"{re.escape(str(found.path(entry)))} is damaged \(expected {entry.bytes} bytes, got {entry.bytes + 1}\); .*verify RUN --repair"):
        run(recipe_for(pool), pool / "run")


@pytest.mark.parametrize("name", ["docs", "mixture"])
def test_a_link_that_points_elsewhere_or_is_gone_is_set_again(pool: Path, name: str) -> None:
    run(recipe_for(pool), pool / "run")
    before, link = lasting(pool / "run"), pool / "run" / name
    to = os.readlink(link)
    link.unlink()
    assert not run(recipe_for(pool), pool / "run").outcome.unchanged
    assert os.readlink(link) == to
    link.unlink()
    link.symlink_to("elsewhere")
    run(recipe_for(pool), pool / "run")
    assert lasting(pool / "run") == before


@pytest.mark.parametrize("what", ["recipe", "seed", "guide", "input", "score", "stage", "version", "catalog"])
def test_whatever_a_result_depends_on_is_something_to_do(pool: Path, what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copy(SMALL / "guide.jsonl", pool / "guide.jsonl")
    (pool / "shout.py").write_text(SHOUT)
    write_rows(pool / "scores.jsonl", [{"id": row["id"], "score": float(i)} for i, row in enumerate(small_rows())])
    recipe = recipe_for(
        pool, targets={"maths": {"guide": [str(pool / "guide.jsonl")]}},
        stages=[{f"{pool / 'shout.py'}:Shout": {"as": "shout"}}, {"select": {"by": {"file": str(pool / "scores.jsonl"), "column": "score"}, "budget": 50}}],
    )  # fmt: skip
    run(recipe, pool / "run")
    assert run(recipe, pool / "run").outcome.unchanged
    if what == "recipe":
        recipe["emit"] = {"format": "jsonl"}
    elif what == "seed":
        recipe["seed"] = 8
    elif what == "guide":
        (pool / "guide.jsonl").write_text((pool / "guide.jsonl").read_text() + '{"text": "one more example of a problem"}\n')
    elif what == "input":
        write_rows(pool / "pool" / "9.parquet", [{"id": "new", "source": "web", "text": "something new", "remark": ""}])
    elif what == "score":
        write_rows(pool / "scores.jsonl", [{"id": row["id"], "score": -float(i)} for i, row in enumerate(small_rows())])
    elif what == "stage":
        (pool / "shout.py").write_text(SHOUT.replace("[!?]", "[!]"))
    elif what == "version":
        monkeypatch.setattr("curate.records.versions", lambda: {"curate": "another"})
    else:
        (pool / "run" / "catalog.duckdb").unlink()
    assert not run(recipe, pool / "run").outcome.unchanged
    assert run(recipe, pool / "run").outcome.unchanged


def test_a_failed_run_leaves_the_records_of_the_results_that_stand(pool: Path) -> None:
    run(recipe_for(pool), pool / "run")
    records = {name: (pool / "run" / name).read_bytes() for name in ledger.RECORDS}
    before = lasting(pool / "run")
    write_rows(pool / "pool" / "bad.jsonl", [{"id": "bad", "source": "web", "text": None}])
    with pytest.raises(DataError, match=r"bad\.jsonl"):
        run(recipe_for(pool, seed=99), pool / "run")
    assert {name: (pool / "run" / name).read_bytes() for name in ledger.RECORDS} == records
    (pool / "pool" / "bad.jsonl").unlink()
    assert run(recipe_for(pool), pool / "run").outcome.unchanged
    assert {k: v for k, v in lasting(pool / "run").items() if k in before} == before


def test_a_frozen_state_that_is_gone_is_made_of_what_it_was_fitted_on(pool: Path) -> None:
    stages = [{"dsir": {"state": "frozen"}} if "dsir" in stage else stage for stage in STAGES]
    run(recipe_for(pool, stages=stages), pool / "run")
    write_rows(pool / "pool" / "9.parquet", [row | {"id": row["id"] + "-9", "text": row["text"] + " again"} for row in small_rows()[:50]])
    run(recipe_for(pool, stages=stages), pool / "run")
    before, found = lasting(pool / "run"), ledger_of(pool / "run")
    state = next(found.path(e) for e in found.entries if e.kind == "state" and "targets" not in e.path)
    state.unlink()
    run(recipe_for(pool, stages=stages), pool / "run")
    assert lasting(pool / "run") == before
    state.unlink()
    for entry in found.entries:
        if entry.kind == "fit":
            found.path(entry).unlink()
    again = run(recipe_for(pool, stages=stages), pool / "run").outcome  # the parts are there as they were, so it is fitted on the same
    assert lasting(pool / "run") == before
    assert not any("the frozen state" in warning for warning in again.warnings)


@pytest.mark.parametrize("name", ["frozen/dsir.json", "files.json"])
def test_a_flipped_digit_in_a_small_record_is_noticed(pool: Path, name: str) -> None:
    stages = [{"dsir": {"state": "frozen"}} if "dsir" in stage else stage for stage in STAGES]
    run(recipe_for(pool, stages=stages), pool / "run")
    before, file = lasting(pool / "run"), pool / "run" / name
    content = file.read_bytes()
    digit = re.search(rb'[0-9a-f]{32}"', content[60:])
    assert digit
    at = 60 + digit.start()
    file.write_bytes(content[:at] + (b"0" if content[at : at + 1] != b"0" else b"1") + content[at + 1 :])
    if name == "files.json":  # a cache: what it cannot say is read again
        assert run(recipe_for(pool, stages=stages), pool / "run").outcome.unchanged
        assert json.loads(file.read_bytes())["value"][0]["content"] == json.loads(content)["value"][0]["content"]
        assert lasting(pool / "run") == before
    else:
        (pool / "run" / "ledger.parquet").unlink()
        with pytest.raises(DataError, match=r"frozen/dsir\.json is damaged"):
            run(recipe_for(pool, stages=stages), pool / "run")
