"""How small texts become, alone and joined with others: the lengths of compressed streams, which are not made.

For gzip, zlib and raw DEFLATE the lengths are stock zlib's, byte for byte, whatever zlib Python itself is linked with;
the work is done by native/zipfit.c. zstd and lz4 go through their libraries, which do make the streams.

    >>> lengths(pa.array(["", "abcabcabcabc"]), Compressor("gzip", 6)).tolist()
    [20, 25]
"""

from __future__ import annotations

import importlib
import zlib
from collections.abc import Callable, Iterator
from typing import Any, Literal

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from curate import _native, ngrams
from curate.errors import ConfigError, DataError

Int64 = npt.NDArray[np.int64]
Float64 = npt.NDArray[np.float64]

#: Bytes that a container adds to the raw stream: header and checksum (RFC 1952, RFC 1950, none).
CONTAINER_BYTES = {"gzip": 18, "zlib": 6, "deflate": 0}
#: The levels of each compressor. zlib's level 0 stores: every length is then a constant more than the text's.
LEVELS = {"gzip": (1, 9), "zlib": (1, 9), "deflate": (1, 9), "zstd": (1, 22), "lz4": (0, 16)}
#: Lengths held at once, documents times targets: 8 MB.
_CELLS = 1 << 20


CompressorName = Literal["gzip", "zlib", "deflate", "zstd", "lz4"]


class Compressor(msgspec.Struct, frozen=True):
    """A compressor and its level; `level` runs from fast to thorough.

    gzip, zlib, deflate: 1..9, stock zlib with its default strategy, windows of 32 KiB, memLevel 8. zstd: 1..22. lz4: 0..16
    (frames; needs the package lz4). Raises ConfigError for a level that is not there.
    """

    name: CompressorName = "gzip"
    level: int = 6

    def __post_init__(self) -> None:
        if self.name not in LEVELS:
            raise ConfigError(f"expected compressor as one of {', '.join(LEVELS)}, got {self.name!r}")
        least, most = LEVELS[self.name]
        if least <= self.level <= most:
            return
        why = ""
        if self.level == 0 and self.name in CONTAINER_BYTES:
            why = ": level 0 stores without compressing, so the score would only say how long a text is, shortest first"
        raise ConfigError(f"expected level from {least} to {most} for {self.name}, got {self.level}{why}")

    def library(self) -> str:
        """What the lengths depend on besides the level: the library's name and version, '' for ours."""
        if self.name in CONTAINER_BYTES:
            return ""
        module = _import_lz4() if self.name == "lz4" else _import_zstandard()
        version = (
            module.library_version_string() if self.name == "lz4" else ".".join(map(str, module.ZSTD_VERSION))
        )
        return f"{self.name} {version}"


def lengths(text: pa.Array | pa.ChunkedArray, compressor: Compressor) -> Int64:
    """Bytes of each text compressed, container included: int64[n], -1 for null."""
    return joined(text, pa.array([], pa.string()), compressor)[0]


def joined(
    text: pa.Array | pa.ChunkedArray, targets: pa.Array | pa.ChunkedArray, compressor: Compressor
) -> tuple[Int64, Int64]:
    """Bytes of each text compressed, int64[n], and of it followed by each target, int64[n, m]; -1 for a null text.

    Nothing stands between text and target. Cost: about that of compressing each target once per text, without the text
    in front of it. Raises ConfigError for another type of column, DataError for a damaged one or a null target.
    """
    whole = _one_chunk(targets, "targets")
    own, pairs = np.empty(len(text), np.int64), np.empty((len(text), len(whole)), np.int64)
    for rows, part in _slices(text, len(whole)):
        _measure(part, whole, compressor, own[rows], pairs[rows])
    return own, pairs


def similarity(
    text: pa.Array | pa.ChunkedArray, targets: pa.Array | pa.ChunkedArray, compressor: Compressor
) -> Float64:
    """The mean over targets of 1 - NCD(text, target): float64[n], NaN for null. Larger is more alike.

    NCD(x, t) = (C(xt) - min(C(x), C(t))) / max(C(x), C(t)), with C the compressed bytes (Li et al. 2004; as a score for
    choosing data: Obbad et al. 2024). About 0 to 1; slightly below 0 where a target costs more behind the text than
    alone. The targets are added up in their order. Memory does not grow with texts times targets.
    """
    whole = _one_chunk(targets, "targets")
    if not len(whole):
        raise DataError("expected at least one target text, got none")
    alone = lengths(whole, compressor)
    out = np.empty(len(text))
    for rows, part in _slices(text, len(whole)):
        own, pairs = np.empty(len(part), np.int64), np.empty((len(part), len(whole)), np.int64)
        _measure(part, whole, compressor, own, pairs)
        total = np.zeros(len(part))
        for j, target in enumerate(alone):
            total += 1 - (pairs[:, j] - np.minimum(own, target)) / np.maximum(own, target)
        out[rows] = np.where(own < 0, np.nan, total / len(whole))
    return out


def distances(
    text: pa.Array, targets: pa.Array, compressor: Compressor, *, separator: str = "", target_first: bool = False
) -> Float64:
    """NCD(text, target) of each pair: float64[n, m], smaller is nearer; texts without nulls.

    The joined text is text, separator, target, or with `target_first` target, separator, text; lengths alone are without
    the separator. The two orders differ: a compressor looks back only.
    """
    alone = lengths(text, compressor)[:, None], lengths(targets, compressor)[None, :]
    if target_first:
        joined_lengths = joined(_put(targets, separator, before=False), text, compressor)[1].T
    else:
        joined_lengths = joined(text, _put(targets, separator, before=True), compressor)[1]
    return np.asarray((joined_lengths - np.minimum(*alone)) / np.maximum(*alone))


def _put(texts: pa.Array, separator: str, *, before: bool) -> pa.Array:
    """The texts with a separator before or behind each."""
    if not separator:
        return texts
    whole = texts.cast(pa.large_string())
    edge, nothing = pa.scalar(separator, pa.large_string()), pa.scalar("", pa.large_string())
    return pc.binary_join_element_wise(*((edge, whole) if before else (whole, edge)), nothing)


def stock_zlib() -> bool:
    """Whether Python's own zlib module is the stock one, so that its lengths are these (zlib-ng's are not)."""
    return "ng" not in zlib.ZLIB_RUNTIME_VERSION


def _measure(text: pa.Array, targets: pa.Array, compressor: Compressor, own: Int64, pairs: Int64) -> None:
    """Fill own and pairs for one chunk of texts."""
    if compressor.name not in CONTAINER_BYTES:
        _measure_by_library(text, targets, compressor, own, pairs)
        return
    try:
        text.validate()
        _native.zipfit_measure(text, targets, compressor.level, ngrams.simd(), own, pairs)
    except TypeError as error:
        raise ConfigError(f"text column: {error}") from error
    except (ValueError, pa.ArrowInvalid) as error:
        raise DataError(f"text column: {error}") from error
    for found in (own, pairs):
        found[found >= 0] += CONTAINER_BYTES[compressor.name]


def _measure_by_library(
    text: pa.Array, targets: pa.Array, compressor: Compressor, own: Int64, pairs: Int64
) -> None:
    compress = _library(compressor)
    tails = targets.cast(pa.large_binary()).to_pylist()
    for i, head in enumerate(text.cast(pa.large_binary()).to_pylist()):
        own[i] = -1 if head is None else len(compress(head))
        pairs[i] = [-1 if head is None else len(compress(head + tail)) for tail in tails]


def _library(compressor: Compressor) -> Callable[[bytes], bytes]:
    if compressor.name == "lz4":
        frame, level = _import_lz4().frame, compressor.level
        return lambda data: frame.compress(data, compression_level=level)
    compress: Callable[[bytes], bytes] = _import_zstandard().ZstdCompressor(level=compressor.level).compress
    return compress


def _import_zstandard() -> Any:
    import zstandard

    return zstandard


def _import_lz4() -> Any:
    try:
        importlib.import_module("lz4.frame")
        return importlib.import_module("lz4")
    except ImportError as error:
        raise ConfigError("compressor lz4 needs the package lz4; install it with: pip install lz4") from error


def _one_chunk(texts: pa.Array | pa.ChunkedArray, what: str) -> pa.Array:
    """The texts as one array without nulls."""
    whole = texts.combine_chunks() if isinstance(texts, pa.ChunkedArray) else texts
    if whole.null_count:
        raise DataError(f"expected {what} without nulls, got {whole.null_count}")
    if not (pa.types.is_string(whole.type) or pa.types.is_large_string(whole.type)):
        raise ConfigError(f"expected {what} as string or large_string, got {whole.type}; cast them first")
    return whole


def _slices(text: pa.Array | pa.ChunkedArray, targets: int) -> Iterator[tuple[slice, pa.Array]]:
    """The texts in pieces of one chunk each, small enough that their lengths fit in _CELLS."""
    most = max(1, _CELLS // max(1, targets))
    start = 0
    for chunk in text.chunks if isinstance(text, pa.ChunkedArray) else [text]:
        for at in range(0, len(chunk), most):
            part = chunk.slice(at, most)
            yield slice(start + at, start + at + len(part)), part
        start += len(chunk)
