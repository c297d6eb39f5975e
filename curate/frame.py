"""What a `finish` sees: a DuckDB table `pool` with the columns it reads, one row per document still kept.

DuckDB spills to disk, so the table may be larger than memory. No sum of DOUBLEs decides anything here: its order,
and so its last bits, would vary with the number of threads. `exact_sum` gives an order-free one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from curate.errors import InternalError, uninterrupted

if TYPE_CHECKING:
    import duckdb

    from curate.reference import References
    from curate.vectors import VectorFile

#: `doc` names a document inside a run: part << 32 | row.
DOC = "doc"


class Frame:
    """All documents' columns at once, in a DuckDB connection of its own."""

    def __init__(
        self,
        schema: pa.Schema,
        batches: Iterable[pa.RecordBatch],
        row_hashes: Callable[[pa.ChunkedArray], pa.Table],
        *,
        gather: Callable[[npt.NDArray[np.int64]], Iterator[pa.RecordBatch]] | None = None,
        references: References | None = None,
        vectors: Sequence[VectorFile] = (),
        scratch: Path,
        threads: int = 1,
        memory: str = "2GB",
    ) -> None:
        scratch.mkdir(parents=True, exist_ok=True)
        self.con = connect(scratch, threads, memory)
        self.schema = schema
        #: where a finish may keep files; emptied when the run ends
        self.scratch = scratch
        self._row_hashes = row_hashes
        self._gather = gather
        #: what was published before, for a stage with `against`
        self.references = references
        #: the vectors of a stage that names `vector_columns`, in that order; the table has their slots
        self.vectors = vectors
        failed: list[BaseException] = []
        reader = pa.RecordBatchReader.from_batches(schema, _watched(batches, failed))
        self.con.register("incoming", reader)
        try:
            self.con.execute("CREATE TABLE pool AS SELECT * FROM incoming")
        except Exception as error:
            self.close()
            raise (failed[0] if failed else error) from None  # DuckDB would bury what the batches raised in its own words
        self.con.unregister("incoming")

    def sql(self, query: str, values: list[Any] | None = None) -> list[tuple[Any, ...]]:
        """Run a query, return its rows."""
        return self.con.execute(query, values or []).fetchall()

    def scalar(self, query: str, values: list[Any] | None = None) -> Any:
        """The one value of a query of one row and column."""
        return self.sql(query, values)[0][0]

    def reader(self, query: str) -> pa.RecordBatchReader:
        """A query's rows as Arrow batches."""
        return self.con.sql(query).to_arrow_reader(65536)

    def add_row_hashes(self, docs_query: str, table: str) -> None:
        """Make `table(doc, row_hash)`: a hash of the whole row for the documents that `docs_query` names.

        Rows that tie on identity are told apart by this, never by their place.
        """
        docs = self.con.sql(docs_query).to_arrow_table().column(0)
        hashes = self._row_hashes(docs)
        self.con.register("hashed", hashes)
        self.con.execute(f"CREATE OR REPLACE TABLE {table} AS SELECT * FROM hashed")
        self.con.unregister("hashed")

    def gather(self, docs: npt.NDArray[np.int64]) -> Iterator[pa.RecordBatch]:
        """Show the stage's `gather` these documents' texts, in the workers: `doc` and its gather_fields, in any order."""
        if self._gather is None:
            raise InternalError("this finish was not given a way to read texts again")
        return self._gather(docs)

    def exact_sum(self, expression: str, where: str = "true", *, bits: int = 60) -> float:
        """The sum of a DOUBLE expression, rounded to 2^-bits per row and added as integers: no order matters."""
        scaled = self.scalar(
            f"SELECT sum(CAST(round(({expression}) * {float(2**bits)!r}) AS HUGEINT)) FROM pool WHERE {where}"
        )
        return float(int(scaled or 0) / 2**bits)

    def close(self) -> None:
        self.con.close()
        for file in self.vectors:
            file.close()


def _watched(batches: Iterable[pa.RecordBatch], failed: list[BaseException]) -> Iterator[pa.RecordBatch]:
    """The batches; what they raise is kept too."""
    try:
        yield from batches
    except BaseException as error:
        failed.append(error)
        raise


def connect(scratch: Path, threads: int, memory: str) -> duckdb.DuckDBPyConnection:
    """A private in-memory DuckDB that spills into `scratch` and never reaches out for extensions."""
    with uninterrupted():
        import duckdb  # workers import this module and never need it

    return duckdb.connect(
        ":memory:",
        config={
            "threads": str(threads),
            "memory_limit": memory,
            "temp_directory": str(scratch),
            "autoinstall_known_extensions": "false",
            "autoload_known_extensions": "false",
        },
    )


def quote(name: str) -> str:
    """A column's name as an SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """A string as an SQL literal."""
    return "'" + text.replace("'", "''") + "'"
