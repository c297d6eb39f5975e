from __future__ import annotations

import base64
import datetime as dt
import hashlib
import json
import math
import socket
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
import zstandard

import curate
from curate.pipelines import emit
from curate.stage import IDENTITY

ALL = [{"select": {"how": "random", "budget": "100%"}}]


def pool(folder: Path, table: pa.Table, files: int = 1) -> Path:
    folder.mkdir(parents=True)
    step = -(-table.num_rows // files)
    for i in range(files):
        pq.write_table(table.slice(i * step, step), folder / f"p{i:03d}.parquet", row_group_size=100)
    return folder


def texts(count: int) -> pa.Table:
    return pa.table({"id": [f"i{k:05d}" for k in range(count)], "text": [f"document {k}: " + "ü|x " * (k % 17) for k in range(count)],
                     "source": [["a", "b|c", None][k % 3] for k in range(count)]})  # fmt: skip


def publish(pool: Path, run: Path, *, stages: Any = None, ids: bool = True, seed: int = 3, **emission: Any) -> Path:
    corpus = {"paths": [str(pool)], "source": "source", **({"id": "id"} if ids else {})}
    recipe = {"name": "emission", "seed": seed, "corpus": corpus, "stages": ALL if stages is None else stages, "emit": emission}
    folder = curate.run(recipe, run=run, workers=1).mixture
    assert folder is not None
    return folder


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {str(f.relative_to(folder)): f.read_bytes() for f in sorted(folder.rglob("*")) if f.is_file()}


def lines_of(folder: Path) -> list[dict[str, Any]]:
    rows = []
    for file in sorted((folder / "data").iterdir()):
        with open(file, "rb") as raw, zstandard.ZstdDecompressor().stream_reader(raw) as plain:
            rows += [json.loads(line) for line in plain.read().decode().splitlines()]
    return rows


def test_pyarrow_polars_and_duckdb_read_the_published_files(tmp_path: Path) -> None:
    table = texts(300)
    folder = publish(pool(tmp_path / "pool", table), tmp_path / "run", shard_bytes=4000)
    data = folder / "data"
    expected = sorted(table["text"].to_pylist())
    assert sorted(ds.dataset(data).to_table()["text"].to_pylist()) == expected
    assert sorted(pl.scan_parquet(str(data / "*.parquet")).collect()["text"].to_list()) == expected
    with duckdb.connect() as con:
        assert sorted(r[0] for r in con.execute(f"SELECT text FROM '{data}/*.parquet'").fetchall()) == expected
    names = ds.dataset(data).schema.names
    assert names == ["id", "text", "source", "curate_identity", "curate_bytes", "curate_words", "curate_select_rank", "curate_select_score"]


def test_json_lines_hold_the_same_rows_in_the_same_order(tmp_path: Path) -> None:
    source = pool(tmp_path / "pool", texts(120))
    columns = publish(source, tmp_path / "a", shard_bytes=3000)
    rows = [row for file in sorted((columns / "data").iterdir()) for row in pq.read_table(file).to_pylist()]
    assert lines_of(publish(source, tmp_path / "b", shard_bytes=3000, format="jsonl")) == rows


def test_the_manifest_is_true(tmp_path: Path) -> None:
    folder = publish(pool(tmp_path / "pool", texts(300)), tmp_path / "run", stages=[{"length": {"min_bytes": 20}}, *ALL], shard_bytes=4000)
    manifest = json.loads((folder / "manifest.json").read_bytes())
    assert [f["file"] for f in manifest["files"]] == [f"data/{f.name}" for f in sorted((folder / "data").iterdir())]
    kept = [row for f in manifest["files"] for row in pq.read_table(folder / f["file"]).to_pylist()]
    for file in manifest["files"]:
        content = (folder / file["file"]).read_bytes()
        assert file["sha256"] == hashlib.sha256(content).hexdigest()
        assert file["bytes"] == len(content)
        assert file["rows"] == pq.read_metadata(folder / file["file"]).num_rows
    assert manifest["rows"] == len(kept)
    assert manifest["bytes_of_text"] == sum(len(r["text"].encode()) for r in kept)
    assert manifest["words"] == sum(len(r["text"].split()) for r in kept)


@pytest.mark.parametrize("format", ["parquet", "jsonl"])
def test_nothing_inside_depends_on_place_time_cut_or_order(format: str, tmp_path: Path) -> None:
    table = texts(250)
    shuffled = table.take(pa.array(np.random.default_rng(0).permutation(250)))
    one = publish(pool(tmp_path / "here" / "pool", table), tmp_path / "here" / "run", shard_bytes=3000, format=format)
    many = publish(pool(tmp_path / "elsewhere" / "data", shuffled, files=9), tmp_path / "elsewhere" / "other", shard_bytes=3000, format=format)
    assert bytes_of(one) == bytes_of(many)
    for name, content in bytes_of(one).items():
        for word in (str(tmp_path), "p000.parquet", socket.gethostname(), f"{dt.date.today()}"):
            assert word.encode() not in content, (name, word)


def test_copies_without_ids_publish_the_same_bytes_in_any_order(tmp_path: Path) -> None:
    table = pa.table({"text": ["same text"] * 60, "source": [f"s{k % 7}" for k in range(60)], "n": [k // 2 for k in range(60)]})
    one = publish(pool(tmp_path / "a", table), tmp_path / "run_a", ids=False)
    other = publish(pool(tmp_path / "b", table.take(pa.array(range(59, -1, -1))), files=4), tmp_path / "run_b", ids=False)
    assert bytes_of(one) == bytes_of(other)


def test_the_order_is_a_shuffle_that_the_seed_decides(tmp_path: Path) -> None:
    source = pool(tmp_path / "pool", texts(2000))
    orders = []
    for seed in (1, 2):
        folder = publish(source, tmp_path / f"run{seed}", stages=[], seed=seed, shard_bytes=10_000)
        orders.append([int(n[1:]) for f in sorted((folder / "data").iterdir()) for n in pq.read_table(f)["id"].to_pylist()])
    for order in orders:
        assert sorted(order) == list(range(2000))
        assert abs(np.corrcoef(order, range(2000))[0, 1]) < 0.08  # 3.5 standard errors
        assert abs(np.corrcoef(order[1:], order[:-1])[0, 1]) < 0.08
    assert abs(np.corrcoef(np.argsort(orders[0]), np.argsort(orders[1]))[0, 1]) < 0.08


def test_shards_hold_about_the_text_that_was_asked_for(tmp_path: Path) -> None:
    table = texts(2000)
    total = sum(len(t.encode()) for t in table["text"].to_pylist())
    folder = publish(pool(tmp_path / "pool", table), tmp_path / "run", shard_bytes=10_000)
    sizes = [sum(pq.read_table(f)["curate_bytes"].to_pylist()) for f in sorted((folder / "data").iterdir())]
    assert len(sizes) == math.ceil(total / 10_000)
    assert sum(sizes) == total
    assert max(sizes) < 16_000
    assert min(sizes) > 4_000


def test_there_are_no_shards_without_documents(tmp_path: Path) -> None:
    folder = publish(pool(tmp_path / "pool", texts(9)), tmp_path / "run", shard_bytes=1)
    files = sorted((folder / "data").iterdir())
    assert 1 < len(files) <= 9
    assert [f.name for f in files] == [f"train-{i:05d}-of-{len(files):05d}.parquet" for i in range(len(files))]
    rows = [pq.read_metadata(f).num_rows for f in files]
    assert min(rows) > 0
    assert sum(rows) == 9


@pytest.mark.parametrize("format", ["parquet", "jsonl"])
def test_a_selection_of_nothing_is_published_as_nothing(format: str, tmp_path: Path) -> None:
    folder = publish(pool(tmp_path / "pool", texts(20)), tmp_path / "run", stages=[{"select": {"how": "random", "budget": 0}}], format=format)
    files = list((folder / "data").iterdir())
    assert len(files) == 1
    assert json.loads((folder / "manifest.json").read_bytes())["rows"] == 0
    if format == "parquet":
        assert pq.read_table(files[0]).num_rows == 0
        assert pq.read_metadata(files[0]).num_row_groups == 0
        assert pq.read_schema(files[0]).names[:2] == ["id", "text"]
    else:
        assert lines_of(folder) == []


def rich() -> pa.Table:
    """Every kind of column that people have, 30 rows."""
    n = 30
    struct = pa.struct([("a", pa.int64()), ("b", pa.list_(pa.struct([("c", pa.string())]))), ("when", pa.timestamp("ns"))])
    return pa.table(
        {
            "id": [f"i{k}" for k in range(n)],
            "text": [f"document {k}" for k in range(n)],
            "source": ["s"] * n,
            "us": pa.array([dt.datetime(2020, 1, 1, k % 24) for k in range(n)], pa.timestamp("us", "UTC")),
            "ns": pa.array([k * 1_000_000_001 for k in range(n)], pa.timestamp("ns")),
            "decimal": pa.array([Decimal(k) / 4 for k in range(n)], pa.decimal128(12, 4)),
            "binary": pa.array([bytes([k, 255]) for k in range(n)], pa.binary()),
            "coded": pa.array([f"c{k % 3}" for k in range(n)]).dictionary_encode(),
            "nested": pa.array([{"a": k, "b": [{"c": "x" * k}], "when": k} if k % 4 else None for k in range(n)], struct),
            "list": pa.array([list(range(k % 5)) if k % 6 else None for k in range(n)], pa.list_(pa.int32())),
            "map": pa.array([[("k", k)] for k in range(n)], pa.map_(pa.string(), pa.int64())),
            "nothing": pa.nulls(n),
            "float": pa.array([math.nan if k % 5 == 0 else k / 3 for k in range(n)], pa.float32()),
            "date": pa.array([dt.date(2020, 1, 1)] * n),
            "duration": pa.array(list(range(n)), pa.duration("s")),
            "large": pa.array(["y" * k for k in range(n)], pa.large_string()),
            "pair": pa.array([[1.0, 2.0]] * n, pa.list_(pa.float32(), 2)),
            "time": pa.array(list(range(n)), pa.time64("ns")),
            "unsigned": pa.array([2**63 + k for k in range(n)], pa.uint64()),
        }
    )


def shown(column: pa.ChunkedArray) -> str:
    """The values as Python prints them; nanoseconds, which it has no type for, as text."""
    return repr(column.cast(emit.plain_type(column.type)).to_pylist())


def test_the_users_columns_survive_in_parquet(tmp_path: Path) -> None:
    table = rich()
    folder = publish(pool(tmp_path / "pool", table), tmp_path / "run")
    got = pq.read_table(folder / "data" / "train-00000-of-00001.parquet").sort_by("curate_identity")
    want = table.sort_by("id")
    for name in table.schema.names:
        assert shown(got[name]) == shown(want[name]), name
        if name != "coded":  # a dictionary is a way of storing text
            kind = str(got.schema.field(name).type).replace("element:", "item:").replace(" ('map')", "")  # names that Parquet gives
            assert kind == str(want.schema.field(name).type)


def test_the_users_columns_survive_in_json_lines(tmp_path: Path) -> None:
    folder = publish(pool(tmp_path / "pool", rich()), tmp_path / "run", format="jsonl")
    row = next(r for r in lines_of(folder) if r["id"] == "i7")
    expected = {
        "us": "2020-01-01T07:00:00+00:00", "ns": "1970-01-01 00:00:07.000000007", "decimal": "1.7500", "coded": "c1",
        "nested": {"a": 7, "b": [{"c": "xxxxxxx"}], "when": "1970-01-01 00:00:00.000000007"}, "list": [0, 1], "map": [["k", 7]],
        "nothing": None, "date": "2020-01-01", "duration": 7, "large": "yyyyyyy", "pair": [1.0, 2.0], "time": "00:00:00.000000007",
        "unsigned": 2**63 + 7, "curate_bytes": 10, "curate_words": 2,
    }  # fmt: skip
    assert {name: row[name] for name in expected} == expected
    assert base64.b64decode(row["binary"]) == bytes([7, 255])
    assert next(r for r in lines_of(folder) if r["id"] == "i5")["float"] is None  # JSON has no NaN


def test_the_order_in_which_pieces_were_spilled_does_not_show(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    schema = pa.schema([("text", pa.string()), (IDENTITY, pa.string())])
    rows = [{"text": f"t{k}", IDENTITY: f"i{k % 40}", emit.ORDER: 1000 - k % 40} for k in range(50)]  # ten identities twice
    results = []
    for trial in range(3):
        path = tmp_path / f"{trial}.arrow"
        order = rng.permutation(50)
        full = schema.append(pa.field(emit.ORDER, pa.uint64()))
        with pa.ipc.new_file(str(path), full) as file:
            for start in range(0, 50, 7):
                file.write_batch(pa.RecordBatch.from_pylist([rows[i] for i in order[start : start + 7]], full))
        pieces = [(path, int(i)) for i in rng.permutation(8)]
        out = tmp_path / f"{trial}.parquet"
        emit.write_shard(emit.ShardTask([pieces], schema, out, "parquet"))
        results.append(out.read_bytes())
    assert results[0] == results[1] == results[2]
    assert pq.read_table(tmp_path / "0.parquet")[IDENTITY].to_pylist()[:2] == ["i39", "i38"]


def test_a_second_run_finds_the_publication_there(tmp_path: Path) -> None:
    source = pool(tmp_path / "pool", texts(50))
    first = publish(source, tmp_path / "run")
    times = {f: f.stat().st_mtime_ns for f in first.rglob("*")}
    assert publish(source, tmp_path / "run") == first
    assert {f: f.stat().st_mtime_ns for f in first.rglob("*")} == times
    assert (tmp_path / "run" / "mixture").resolve() == first.resolve()
    assert not (tmp_path / "run" / "mixture").readlink().is_absolute()
