"""Sequences that another program tokenized: Parquet files with a column `input_ids`, a row for each sequence.

    input_ids     list of integers
    labels        optional; -100 where a token is not to be learned, as transformers has it (labels[i] is of token i); others are the token
    position_ids  optional; where it begins again at 0, another document begins in the row
    id            optional, or curate_identity; names the row's documents

A folder may hold the tokenizer's files, beside the tables or in `tokenizer/`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from curate.errors import ConfigError, DataError
from curate.packed import IGNORED, Ints
from curate.stage import IDENTITY


class TokenTable:
    """Such files, read whole; `sequence_length` is that of the longest row."""

    def __init__(self, path: Path | str, *, vocab_size: int | None = None, in_order: bool = False) -> None:
        path = Path(path)
        files = [path] if path.is_file() else sorted(path.glob("*.parquet"))
        if not files:
            raise ConfigError(f"expected a Parquet file with input_ids, or a folder of some, got {path}")
        tables = [_read(file) for file in files]
        table = pa.concat_tables(tables, promote_options="default")
        self._rows: dict[str, tuple[npt.NDArray[Any], Ints]] = {n: _flat(table, n, files[0]) for n in table.schema.names if n != "id"}
        self._ids = table["id"].to_pylist() if "id" in table.schema.names else None
        ids, offsets = self._rows["input_ids"]
        for name, (_, own) in self._rows.items():
            if not np.array_equal(own, offsets):
                raise DataError(f"{path}: expected {name} as long as input_ids in every row")
        if "labels" in self._rows:
            labels = self._rows["labels"][0]
            odd = np.flatnonzero((labels != IGNORED) & (labels != ids))
            if len(odd):
                row, place = int(np.searchsorted(offsets, odd[0], side="right")) - 1, int(odd[0])
                raise DataError(
                    f"{path}: expected each label to be its own token or {IGNORED}, got {labels[place]} for the token {ids[place]} in row {row}; "
                    "labels that are shifted already would teach the token after next: write them unshifted"
                )
        lengths = np.diff(offsets)
        if (lengths == 0).any():
            raise DataError(f"{path}: row {int(np.argmin(lengths))} has no tokens; leave such rows out")
        self.sequence_length = int(lengths.max()) if len(lengths) else 1
        home = path if path.is_dir() else path.parent
        self.tokenizer = next((f for f in (home / "tokenizer", home) if (f / "tokenizer.json").is_file()), None)
        self.vocab_size = vocab_size or self._words(int(ids.max()) + 1 if len(ids) else 1)
        if len(ids) and (ids.min() < 0 or ids.max() >= self.vocab_size):
            raise DataError(f"{path}: expected tokens from 0 to {self.vocab_size - 1}, got {ids.min()} to {ids.max()}")
        self.in_order = in_order
        self.bytes_per_token: float | None = None
        self.key = self._hash()

    def _words(self, least: int) -> int:
        if self.tokenizer is None:
            return least
        from curate.models import load_tokenizer

        return max(least, len(load_tokenizer(self.tokenizer)))

    def _hash(self) -> str:
        found = hashlib.blake2b(digest_size=16)
        for name, (values, offsets) in sorted(self._rows.items()):
            found.update(name.encode() + offsets.astype("<i8").tobytes() + values.astype("<i8").tobytes())
        if self.in_order:  # then they are trained on otherwise
            found.update(b"in order")
        return found.hexdigest()

    def __len__(self) -> int:
        return len(self._rows["input_ids"][1]) - 1

    def _row(self, name: str, index: int) -> npt.NDArray[Any]:
        values, offsets = self._rows[name]
        row: npt.NDArray[Any] = values[offsets[index] : offsets[index + 1]]
        return row

    def tokens(self, index: int) -> npt.NDArray[Any]:
        return self._row("input_ids", index)

    def mask(self, index: int) -> npt.NDArray[Any]:
        if "labels" not in self._rows:
            return np.ones(len(self.tokens(index)), np.uint8)
        return np.asarray(self._row("labels", index) != IGNORED).astype(np.uint8)

    def starts(self, index: int) -> Ints:
        if "position_ids" not in self._rows:
            return np.zeros(1, np.int64)
        return np.unique(np.append(0, np.flatnonzero(self._row("position_ids", index) == 0)))

    def documents(self, index: int) -> Sequence[str]:
        name = str(self._ids[index]) if self._ids is not None else f"row {index}"
        return [name] * len(self.starts(index))


def _read(file: Path) -> pa.Table:
    try:
        names = pq.read_schema(file).names
        if "input_ids" not in names:
            raise DataError(f"{file}: expected a column input_ids, got {', '.join(names)}")
        name = next((n for n in ("id", IDENTITY) if n in names), None)
        wanted = [n for n in ("input_ids", "labels", "position_ids") if n in names]
        table = pq.read_table(file, columns=[*wanted, *([name] if name else [])], partitioning=None)
        return table.rename_columns([*wanted, *(["id"] if name else [])])
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{file}: expected a Parquet file of tokens: {error}") from error


def _flat(table: pa.Table, name: str, file: Path) -> tuple[npt.NDArray[Any], Ints]:
    column = table[name].combine_chunks()
    column = column.chunk(0) if isinstance(column, pa.ChunkedArray) and column.num_chunks == 1 else column
    kind = column.type
    if not (pa.types.is_list(kind) or pa.types.is_large_list(kind)) or not pa.types.is_integer(kind.value_type) or column.null_count:
        raise DataError(f"{file}: expected {name} as lists of integers without nulls, got {kind}")
    offsets = column.offsets.to_numpy().astype(np.int64)
    return column.flatten().to_numpy().astype(np.int64), offsets - offsets[0]
