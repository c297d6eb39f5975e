"""A finish's files that say what they said before get a second name instead of being written again: bit for bit the same."""

from __future__ import annotations

import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from run_folders import call, lasting, recipe_for, small_rows, write_recipe, write_rows

from curate.carried import carried
from curate.store import Written, noting, read_stored, write_table

NAN = float("nan")


def written(file: Path, table: pa.Table) -> Written:
    with noting() as found:
        write_table(file, table, file.parent / "tmp")
    return found[str(file)]


def of(values: list[float | None], **more: pa.Array) -> pa.Table:
    return pa.table({"keep": pa.array([True, None, False]), "score": pa.array(values, pa.float64()), **more})


def test_an_equal_table_gets_the_file_and_its_record(tmp_path: Path) -> None:
    before = written(tmp_path / "old" / "p.parquet", of([1.5, None, NAN]))
    with noting() as found:
        assert carried(before, of([1.5, None, NAN]), tmp_path / "new" / "p.parquet")
    fresh = written(tmp_path / "fresh" / "p.parquet", of([1.5, None, NAN]))
    assert (tmp_path / "new" / "p.parquet").read_bytes() == (tmp_path / "fresh" / "p.parquet").read_bytes()
    path = str(tmp_path / "new" / "p.parquet")
    assert found == {path: Written(path, fresh.bytes, 3, fresh.hash)}
    (tmp_path / "old" / "p.parquet").unlink()  # as prune does
    assert pq.read_table(path)["score"][0].as_py() == 1.5


@pytest.mark.parametrize(
    "other",
    [
        of([-0.0, None, 2.0]), of([0.0, 0.0, 2.0]), of([0.0, None, 2.0000000000000004]), of([0.0, None, 2.0], rank=pa.array([1, 2, 3])),
        of([0.0, None, 2.0]).replace_schema_metadata({"a": "b"}), of([0.0, None, 2.0]).slice(0, 2),
        of([0.0, None, 2.0]).set_column(1, pa.field("score", pa.float64(), metadata={"direction": "max"}), pa.array([0.0, None, 2.0])),
    ],
)  # fmt: skip
def test_any_other_table_is_written(tmp_path: Path, other: pa.Table) -> None:
    before = written(tmp_path / "old.parquet", of([0.0, None, 2.0]))
    assert not carried(before, other, tmp_path / "new.parquet")
    assert not (tmp_path / "new.parquet").exists()


def test_a_file_that_is_gone_or_not_what_was_written_is_not_carried(tmp_path: Path) -> None:
    table = of([0.0, None, 2.0])
    before = written(tmp_path / "old.parquet", table)
    content = bytearray((tmp_path / "old.parquet").read_bytes())
    content[-20] ^= 1  # in the footer, which no page's checksum covers
    (tmp_path / "old.parquet").write_bytes(content)
    assert not carried(before, table, tmp_path / "new.parquet")
    (tmp_path / "old.parquet").unlink()
    assert not carried(before, table, tmp_path / "new.parquet")
    before = written(tmp_path / "old.parquet", table)
    (tmp_path / "new.parquet").write_bytes(b"there")
    assert not carried(before, table, tmp_path / "new.parquet")
    assert (tmp_path / "new.parquet").read_bytes() == b"there"


def test_a_table_that_is_kept_in_memory_is_read_again_when_its_file_is_another(tmp_path: Path) -> None:
    file = tmp_path / "p.parquet"
    write_table(file, pa.table({"a": [1], "b": ["x"]}), tmp_path / "tmp")
    assert read_stored(file, ["b"]).to_pylist() == [{"b": "x"}]
    assert read_stored(file, ["a"]).to_pylist() == [{"a": 1}]
    write_table(file, pa.table({"a": [2], "b": ["y"]}), tmp_path / "tmp")
    assert read_stored(file).to_pylist() == [{"a": 2, "b": "y"}]
    content = bytearray(file.read_bytes())
    content[8] ^= 255
    file.write_bytes(content)
    with pytest.raises(Exception, match="is damaged"):
        read_stored(file)
    file.unlink()
    with pytest.raises(FileNotFoundError):
        read_stored(file)


def test_an_added_part_leaves_the_files_of_the_others_and_the_bytes_are_those_of_a_run_that_wrote_all(tmp_path: Path) -> None:
    rows = small_rows()
    for n in range(3):
        write_rows(tmp_path / "pool" / f"{n}.parquet", rows[n * 40 : n * 40 + 40])
    stages = [{"length": {"min_bytes": 20}}, {"dedup_exact": {}}, {"select": {"how": "random", "budget": "12"}}]
    recipe = write_recipe(tmp_path / "recipe.yaml", recipe_for(tmp_path, stages=stages))
    words = ("run", recipe, "--run", tmp_path / "run", "--workers", 1, "-q")
    assert call(*words).returncode == 0
    finished = set((tmp_path / "run" / "store").glob("*/finish/*/*.parquet"))
    assert len(finished) == 6
    write_rows(tmp_path / "pool" / "3.parquet", [{"id": "equal-0001", "source": "s", "text": rows[0]["text"]}, *rows[200:230]])
    assert call(*words).returncode == 0
    new = set((tmp_path / "run" / "store").glob("*/finish/*/*.parquet")) - finished
    assert len(new) == 8
    same = [file for file in new if os.stat(file).st_nlink == 2]
    assert len(same) >= 3  # de-duplication says of the old documents what it said, but for the one that has a copy now
    assert len(same) < 8
    after = lasting(tmp_path / "run")
    for file in [*finished, *new]:
        file.unlink()
    assert call(*words).returncode == 0  # written, all of them
    assert all(os.stat(file).st_nlink == 1 for file in new)
    assert {k: v for k, v in after.items() if "/finish/" not in k or tmp_path / "run" / k in new} == lasting(tmp_path / "run")
    assert call("verify", tmp_path / "run").returncode == 0
