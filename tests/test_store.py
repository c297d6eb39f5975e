"""Files that exist or do not: keys, atomic writes, sidecars."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from curate import store
from curate.errors import DataError
from curate.store import Sidecars, digest, point, read_table, write_bytes, write_table

SCHEMA = pa.schema([("value", pa.float64()), ("reason", pa.string())])


def table(*values: float | None) -> pa.Table:
    return pa.table({"value": pa.array(values, pa.float64()), "reason": pa.array([None] * len(values), pa.string())})


def test_a_key_depends_on_every_part_and_on_their_borders_but_not_on_the_order_of_settings() -> None:
    assert digest("a", {"x": 1, "y": 2}) == digest("a", {"y": 2, "x": 1})
    keys = [digest("ab", "c"), digest("a", "bc"), digest("abc"), digest(["a", "bc"]), digest("a", "bc", None), digest(1), digest("1"), digest(1.0)]
    assert len(set(keys)) == len(keys)
    assert all(len(key) == 32 for key in keys)


def test_a_new_format_makes_every_key_another(monkeypatch: pytest.MonkeyPatch) -> None:
    before = digest("a")
    monkeypatch.setattr(store, "FORMAT", store.FORMAT + 1)
    assert digest("a") != before


def test_a_write_that_fails_leaves_neither_file_nor_temporary_and_keeps_what_was_there(tmp_path: Path) -> None:
    target, scratch = tmp_path / "deep" / "file", tmp_path / "scratch"
    write_bytes(target, b"first", scratch)

    def fail(path: Path) -> None:
        path.write_bytes(b"half of the sec")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        store.write_atomically(target, fail, scratch)
    assert target.read_bytes() == b"first"
    assert list(scratch.iterdir()) == []


def test_the_same_table_is_written_to_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_table(tmp_path / name, table(1.0, None, 2.5), tmp_path / "scratch")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert read_table(tmp_path / "a").equals(table(1.0, None, 2.5))
    assert read_table(tmp_path / "a", ["reason"]).schema.names == ["reason"]


def test_a_damaged_table_is_named_with_the_remedy_and_a_missing_one_is_missing(tmp_path: Path) -> None:
    write_table(tmp_path / "a", table(1.0), tmp_path / "scratch")
    (tmp_path / "a").write_bytes((tmp_path / "a").read_bytes()[:40])
    with pytest.raises(DataError, match=r"a is damaged .*curate verify RUN --repair"):
        read_table(tmp_path / "a")
    with pytest.raises(FileNotFoundError):
        read_table(tmp_path / "b")


def test_sidecars_of_a_part_are_read_as_one(tmp_path: Path) -> None:
    sidecars = Sidecars(tmp_path / "s", SCHEMA)
    assert sidecars.read("p") is None
    sidecars.write("p", table(1.0, None, None, None), np.array([True, False, False, False]), tmp_path / "scratch")
    sidecars.write("p", table(None, 2.0, None, None), np.array([False, True, False, False]), tmp_path / "scratch")
    sidecars.write("p", table(None, None, None, 4.0), np.array([False, False, False, True]), tmp_path / "scratch")
    found = sidecars.read("p")
    assert found is not None
    assert found[0]["value"].to_pylist() == [1.0, 2.0, None, 4.0]
    assert found[1].tolist() == [True, True, False, True]
    assert found[0].schema == SCHEMA
    named = sidecars.read("p", ["reason"])
    assert named is not None
    assert named[0].schema.names == ["reason"]


def test_a_computed_null_is_computed(tmp_path: Path) -> None:
    sidecars = Sidecars(tmp_path / "s", SCHEMA)
    sidecars.write("p", table(None, None), np.array([True, False]), tmp_path / "scratch")
    sidecars.write("p", table(7.0, 8.0), np.array([True, True]), tmp_path / "scratch")
    found = sidecars.read("p")
    assert found is not None
    assert found[1].all()
    assert found[0]["value"][1].as_py() == 8.0


def test_a_twin_of_a_part_has_sidecars_of_its_own(tmp_path: Path) -> None:
    sidecars = Sidecars(tmp_path / "s", SCHEMA)
    sidecars.write("abc.1", table(1.0), np.array([True]), tmp_path / "scratch")
    assert sidecars.read("abc") is None


def test_a_link_is_switched_and_stays_relative(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / "all" / name).mkdir(parents=True)
        (tmp_path / "staging").mkdir(exist_ok=True)
        point(tmp_path / "current", f"all/{name}", tmp_path / "staging")
        assert (tmp_path / "current").readlink() == Path(f"all/{name}")
        assert (tmp_path / "current").resolve() == tmp_path / "all" / name
    assert sorted(p.name for p in tmp_path.iterdir()) == ["all", "current", "staging"]


def test_a_staging_folder_that_is_gone_is_not_made_anew(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        write_bytes(tmp_path / "file", b"late", tmp_path / "lost.making")
    with pytest.raises(FileNotFoundError):
        point(tmp_path / "current", "all/two", tmp_path / "lost.making")
    assert list(tmp_path.iterdir()) == []


def test_no_flipped_byte_of_a_table_gives_other_values_under_the_columns_asked_for(tmp_path: Path) -> None:
    """Checksums cover the pages; what describes them is not covered, so here every byte is flipped once."""
    names = ["value", "reason"]
    whole = pa.table({"value": pa.array([1.0, None, 2.5] * 40), "reason": pa.array(["short", None, "a copy of d"] * 40)})
    write_table(tmp_path / "a", whole, tmp_path / "scratch")
    content = (tmp_path / "a").read_bytes()
    noticed = 0
    for at in range(len(content)):
        damaged = bytearray(content)
        damaged[at] ^= 1 << at % 8
        (tmp_path / "b").write_bytes(damaged)
        try:
            found = read_table(tmp_path / "b", names)
        except DataError:
            noticed += 1
        else:
            # readers cast to the types they expect, which undoes what a flip makes of a type
            assert found.select(names).cast(whole.schema).equals(whole), at
    assert noticed > len(content) // 2


def test_a_sidecar_whose_footer_names_another_type_is_damaged(tmp_path: Path) -> None:
    written = pa.table({"hash": pa.array([1.5, 2.5])})
    Sidecars(tmp_path, written.schema).write("p", written, np.ones(2, bool), tmp_path / "tmp")
    with pytest.raises(DataError, match=r"p-\w+\.parquet is damaged .*--repair"):
        Sidecars(tmp_path, pa.schema([("hash", pa.binary(16))])).read("p")
