"""Write the same rows in every format that a corpus may have."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.feather
import pyarrow.parquet as pq
import zstandard

Rows = list[dict[str, Any]]


def jsonl_bytes(rows: Rows) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def table_of(rows: Rows) -> pa.Table:
    return pa.Table.from_pylist(rows)


def write_parquet(path: Path, rows: Rows) -> None:
    pq.write_table(table_of(rows), path, row_group_size=3)


def write_arrow_file(path: Path, rows: Rows) -> None:
    table = table_of(rows)
    with pa.ipc.new_file(path, table.schema) as writer:
        writer.write_table(table, max_chunksize=3)


def write_arrow_stream(path: Path, rows: Rows) -> None:
    table = table_of(rows)
    with pa.ipc.new_stream(path, table.schema) as writer:
        writer.write_table(table, max_chunksize=3)


def write_feather(path: Path, rows: Rows) -> None:
    pyarrow.feather.write_feather(table_of(rows), path, compression="zstd", chunksize=3)


def write_jsonl(path: Path, rows: Rows) -> None:
    path.write_bytes(jsonl_bytes(rows))


def write_jsonl_gz(path: Path, rows: Rows) -> None:
    path.write_bytes(gzip.compress(jsonl_bytes(rows)))


def write_jsonl_zst(path: Path, rows: Rows) -> None:
    path.write_bytes(zstandard.compress(jsonl_bytes(rows)))


def write_csv(path: Path, rows: Rows) -> None:
    pyarrow.csv.write_csv(table_of(rows), path)


def write_csv_gz(path: Path, rows: Rows) -> None:
    with pa.CompressedOutputStream(str(path), "gzip") as out:
        pyarrow.csv.write_csv(table_of(rows), out)


def write_tsv(path: Path, rows: Rows) -> None:
    pyarrow.csv.write_csv(table_of(rows), path, pyarrow.csv.WriteOptions(delimiter="\t"))


WRITERS: dict[str, Callable[[Path, Rows], None]] = {
    "pool.parquet": write_parquet,
    "pool.arrow": write_arrow_file,
    "stream.arrow": write_arrow_stream,
    "pool.feather": write_feather,
    "pool.jsonl": write_jsonl,
    "pool.jsonl.gz": write_jsonl_gz,
    "pool.jsonl.zst": write_jsonl_zst,
    "pool.csv": write_csv,
    "pool.csv.gz": write_csv_gz,
    "pool.tsv": write_tsv,
}
