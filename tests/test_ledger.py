"""The ledger: every file of a finished run, with a hash that was taken when it was written."""

from __future__ import annotations

import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import xxhash
from run_folders import STAGES, lasting, recipe_for, run, small_rows, write_rows

from curate import ledger
from curate.errors import DataError
from curate.ledger import Entry, Ledger
from curate.store import noting, write_bytes, write_table

#: What is in a run folder beside the ledger's files: caches, what changes by itself, and the ledger.
OUTSIDE = {"ledger.parquet", "files.json", "events.jsonl", "status.json", "catalog.duckdb", ".lease/00000001.json"}


@pytest.fixture
def pool(tmp_path: Path) -> Path:
    """A folder with the sample's pool in three files."""
    rows = small_rows()
    for n in range(3):
        write_rows(tmp_path / "pool" / f"{n}.parquet", rows[n::3])
    return tmp_path


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
