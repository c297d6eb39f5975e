"""Token shards: bytes written by hand, and folders that are not what they say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from curate.errors import ConfigError, DataError
from curate.packing import pack
from curate.shards import (
    Documents,
    Manifest,
    Shards,
    counted,
    dtype_of,
    held_identities,
    write_manifest,
    write_shards,
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Documents a (5 tokens), b (3), c (2) in sequences of 4: [a0-3] [a4, b0-2] [c0-1], two sequences to a shard."""
    tokens = [np.arange(10, 15), np.arange(20, 23), np.arange(30, 32)]
    masks = [np.array([0, 0, 1, 1, 1]), np.array([0, 1, 1]), np.array([0, 1])]
    pieces = pack([5, 3, 2], 4)
    shards = list(write_shards(tmp_path, Documents(tokens, masks, ["a", "b", "c"], ["x", None, "x"]), pieces, length=4, dtype="<u2", pad=9, sequences_per_shard=2))
    (tmp_path / "tokenizer").mkdir()
    write_manifest(tmp_path, Manifest(
        format=1, tokenizer="t", vocab_size=100, dtype="<u2", pad=9, sequence_length=4, sequences=3, tokens=10, learned=6, trained=5, bytes_of_text=40,
        counts={}, sources=[], shards=shards, settings={}, made_of="m",
    ))  # fmt: skip
    return tmp_path


def test_the_files_hold_what_was_laid_out_by_hand(folder: Path) -> None:
    assert (folder / "tokens-00000.bin").read_bytes() == bytes([10, 0, 11, 0, 12, 0, 13, 0, 14, 0, 20, 0, 21, 0, 22, 0])
    assert (folder / "mask-00000.bin").read_bytes() == bytes([0, 0, 1, 1, 1, 0, 1, 1])
    assert (folder / "tokens-00001.bin").read_bytes() == bytes([30, 0, 31, 0, 9, 0, 9, 0])
    assert (folder / "mask-00001.bin").read_bytes() == bytes([0, 1, 0, 0])


def test_a_sequence_comes_back_without_padding_and_with_its_documents(folder: Path) -> None:
    found = Shards(folder, check=True)
    assert len(found) == 3
    assert found.bytes_per_token == 4.0
    assert found.tokens(1).tolist() == [14, 20, 21, 22]
    assert found.mask(1).tolist() == [1, 0, 1, 1]
    assert found.starts(1).tolist() == [0, 1]
    assert found.documents(1) == ["a", "b"]
    assert found.tokens(2).tolist() == [30, 31]
    assert found.documents(2) == ["c"]
    assert found.segments()["first"].to_pylist() == [0, 4, 0, 0]
    with pytest.raises(IndexError, match="from 0 to 2, got 3"):
        found.tokens(3)


def test_documents_are_found_by_identity(folder: Path) -> None:
    assert held_identities(folder, pa.array(["a", "c", "z"])) == 2
    assert held_identities(folder, pa.array(["z"])) == 0


def test_a_shorter_file_is_refused_by_its_size(folder: Path) -> None:
    file = folder / "tokens-00000.bin"
    file.write_bytes(file.read_bytes()[:-2])
    with pytest.raises(DataError, match=r"tokens-00000.bin is damaged \(expected 16 bytes, got 14\)"):
        Shards(folder)


def test_a_flipped_bit_is_refused_by_its_hash(folder: Path) -> None:
    file = folder / "mask-00000.bin"
    content = bytearray(file.read_bytes())
    content[0] ^= 1
    file.write_bytes(content)
    assert Shards(folder)
    with pytest.raises(DataError, match=r"mask-00000\.bin is damaged"):
        Shards(folder, check=True)


def test_a_missing_file_and_a_damaged_manifest_are_refused(folder: Path) -> None:
    (folder / "segments-00001.parquet").unlink()
    with pytest.raises(DataError, match="it is not there"):
        Shards(folder)
    (folder / "manifest.json").write_text('{"format": 1}')
    with pytest.raises(DataError, match="expected the manifest of token shards"):
        Shards(folder)
    (folder / "manifest.json").unlink()
    with pytest.raises(ConfigError, match="curate tokenize makes one"):
        Shards(folder)


def test_segments_that_are_no_table_are_refused(folder: Path) -> None:
    file = folder / "segments-00000.parquet"
    file.write_bytes(b"x" * file.stat().st_size)
    with pytest.raises(DataError, match=r"segments-00000\.parquet is damaged"):
        Shards(folder)


def test_an_id_is_stored_in_two_bytes_up_to_65536_words() -> None:
    assert [dtype_of(n) for n in (2, 65_536, 65_537)] == ["<u2", "<u2", "<u4"]


def test_sources_are_counted_by_name_and_none_first() -> None:
    found = counted(["b", None, "b", "a"], np.array([1, 2, 3, 4]), np.array([5, 6, 7, 8]))
    assert [(s.source, s.documents, s.bytes, s.tokens) for s in found] == [(None, 1, 2, 6), ("a", 1, 4, 8), ("b", 2, 4, 12)]
