"""Where compressed text stops being sound, and reading it that far."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest
import zstandard

from curate.decompress import Break, SoundText, find_break
from curate.filenames import Compression

TEXT = b"".join(b"line %d of the text\n" % n for n in range(20_000))
HALF = len(TEXT) // 2


def pack(compression: Compression, text: bytes) -> bytes:
    return gzip.compress(text, mtime=0) if compression == "gzip" else zstandard.ZstdCompressor(write_checksum=True).compress(text)


def broken(path: Path, compression: Compression, data: bytes) -> tuple[Break, bytes]:
    path.write_bytes(data)
    found = find_break(str(path), compression)
    return found, SoundText(str(path), compression, found.sound).read()


BOTH = pytest.mark.parametrize("compression", ["gzip", "zstd"])


@BOTH
def test_a_whole_file_is_sound_whatever_its_members(tmp_path: Path, compression: Compression) -> None:
    members = pack(compression, TEXT[:HALF]) + pack(compression, b"") + pack(compression, TEXT[HALF:])
    assert broken(tmp_path / "x", compression, members) == (Break(len(TEXT), ""), TEXT)


def test_zeros_after_gzip_and_frames_to_skip_in_zstd_are_no_damage(tmp_path: Path) -> None:
    assert broken(tmp_path / "x", "gzip", pack("gzip", TEXT) + bytes(9000)) == (Break(len(TEXT), ""), TEXT)
    aside = b"\x53\x2a\x4d\x18" + (3).to_bytes(4, "little") + b"abc"
    assert broken(tmp_path / "x", "zstd", aside + pack("zstd", TEXT) + aside) == (Break(len(TEXT), ""), TEXT)


@BOTH
def test_of_a_truncated_file_all_is_sound_that_can_be_decoded(tmp_path: Path, compression: Compression) -> None:
    whole = pack(compression, TEXT)
    for size in (0, 1, 10, len(whole) // 2, len(whole) - 1):
        found, text = broken(tmp_path / "x", compression, whole[:size])
        assert found.reason == f"truncated {compression}: the file ends at byte {size}, within its data"
        assert TEXT.startswith(text)
        assert len(text) == found.sound
    assert found.sound == len(TEXT)  # the last bytes are the checksum


@BOTH
def test_a_member_that_contradicts_itself_is_not_trusted_at_all(tmp_path: Path, compression: Compression) -> None:
    first, second = pack(compression, TEXT[:HALF]), bytearray(pack(compression, TEXT[HALF:]))
    second[len(second) // 2] ^= 1
    found, text = broken(tmp_path / "x", compression, first + bytes(second) + first)
    assert text == TEXT[:HALF]
    assert found.reason.startswith(f"damaged {compression}: ")
    assert f"between byte {len(first)} and byte " in found.reason


@BOTH
def test_what_comes_after_the_data_is_damage(tmp_path: Path, compression: Compression) -> None:
    found, text = broken(tmp_path / "x", compression, pack(compression, TEXT) + b"and this")
    assert text == TEXT
    assert found.reason


@BOTH
def test_another_kind_of_file_is_refused(tmp_path: Path, compression: Compression) -> None:
    (tmp_path / "x").write_bytes(b"PK\x03\x04" + bytes(50))
    with pytest.raises(OSError, match=f"no {compression} data: it begins with 50 4b 03 04"):
        find_break(str(tmp_path / "x"), compression)


@BOTH
def test_reading_in_pieces_gives_the_same_and_stops_there(tmp_path: Path, compression: Compression) -> None:
    (tmp_path / "x").write_bytes(pack(compression, TEXT))
    stream = SoundText(str(tmp_path / "x"), compression, 1000)
    assert b"".join(iter(lambda: stream.read(77), b"")) == TEXT[:1000]
    with pytest.raises(EOFError, match="5 bytes of text fewer"):
        SoundText(str(tmp_path / "x"), compression, len(TEXT) + 5).read()
