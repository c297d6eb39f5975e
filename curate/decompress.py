"""gzip and zstd text that is damaged: how far it can be trusted, and reading it that far."""

from __future__ import annotations

import zlib
from collections.abc import Generator
from typing import Any, NamedTuple

from curate.filenames import Compression

# Little at a time: a few bytes of zstd may be 128 KB of text.
STEP_BYTES = 4096
MAGIC = {"gzip": (b"\x1f\x8b",), "zstd": (b"\x28\xb5\x2f\xfd", *(bytes([n]) + b"\x2a\x4d\x18" for n in range(0x50, 0x60)))}


class Break(NamedTuple):
    """Where a compressed file stops being sound: the first `sound` bytes of its text are; "" is no damage."""

    sound: int
    reason: str


def unpacked(path: str, compression: Compression) -> Generator[bytes, None, Break]:
    """Yield the text of a compressed file as far as it decodes; return where that ended, and why.

    What was decoded before the end of a file that is too short is trusted. Where the data contradict
    themselves, or their checksum, the place of the damage is not known, only that it lies in this member
    (gzip) or frame (zstd): then only the members before it are. Zeros after gzip are padding, as gzip has
    it. Raises OSError for a file that does not begin as this compression does.
    """
    text = sound = 0
    with open(path, "rb") as file:
        held = file.read(STEP_BYTES)
        if held and not any(held.startswith(magic[: len(held)]) for magic in MAGIC[compression]):
            raise OSError(f"no {compression} data: it begins with {held[:4].hex(' ')}")
        while True:
            begin = file.tell() - len(held)
            unpack = _decoder(compression)
            while not unpack.eof:
                held = held or file.read(STEP_BYTES)
                if not held:
                    return Break(text, f"truncated {compression}: the file ends at byte {file.tell()}, within its data")
                try:
                    data = unpack.decompress(held)
                except Exception as error:  # zlib.error, ZstdError: both are plain Exceptions
                    why = str(error).rpartition(": ")[2]
                    return Break(sound, f"damaged {compression}: {why}, between byte {begin} and byte {file.tell()}")
                held = unpack.unused_data
                text += len(data)
                yield data
            sound = text
            held = held or file.read(STEP_BYTES)
            while compression == "gzip" and held and not held.strip(b"\0"):
                held = file.read(STEP_BYTES)
            if not held:
                return Break(text, "")


def _decoder(compression: Compression) -> Any:
    if compression == "gzip":
        return zlib.decompressobj(31)
    import zstandard

    return zstandard.ZstdDecompressor().decompressobj()


def find_break(path: str, compression: Compression) -> Break:
    """Go through a compressed file for the place where it stops being sound."""
    pieces = unpacked(path, compression)
    while True:
        try:
            next(pieces)
        except StopIteration as end:
            found: Break = end.value
            return found


class SoundText:
    """The first `sound` bytes of a compressed file's text, as a file that is read from its beginning."""

    def __init__(self, path: str, compression: Compression, sound: int) -> None:
        self._pieces = unpacked(path, compression)
        self._left = sound
        self._held = b""
        self.closed = False

    def read(self, size: int = -1) -> bytes:
        size = self._left if size < 0 else min(size, self._left)
        parts = [self._held]
        have = len(self._held)
        while have < size:
            try:
                piece = next(self._pieces)
            except StopIteration as end:
                raise EOFError(f"{size - have} bytes of text fewer than when the file was opened") from end
            parts.append(piece)
            have += len(piece)
        data = b"".join(parts)
        self._held = data[size:]
        self._left -= size
        return data[:size]

    def readable(self) -> bool:
        return True

    def close(self) -> None:
        self._pieces.close()
        self.closed = True
