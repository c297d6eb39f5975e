"""Random numbers that depend on a seed, a purpose and a document's identity, and on nothing else.

Each draw is a pure function of a key (a hash of the identity) and a stream (the seed and what the number is
for), so the order of documents, the number of workers and the cut into files cannot change it.

    keys = keys_of(identity)
    noise = gumbel(keys, stream(7, "select", "dsir"))
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import xxhash

from curate import _native
from curate.errors import ConfigError

Uint64 = npt.NDArray[np.uint64]
Float64 = npt.NDArray[np.float64]

_OFFSETS: dict[pa.DataType, type[np.signedinteger]] = {
    pa.string(): np.int32,
    pa.binary(): np.int32,
    pa.large_string(): np.int64,
    pa.large_binary(): np.int64,
}


def stream(seed: int, *names: str) -> int:
    """Return the 64-bit sub-seed of a seed (any integer) and the names of what draws.

    xxh3-64 of the decimal seed and the names, each with its length before it ("1:7,4:fold,"), so no two lists
    of names run together.
    """
    parts = [str(seed).encode(), *(name.encode() for name in names)]
    return xxhash.xxh3_64_intdigest(b"".join(b"%d:%s," % (len(part), part) for part in parts))


def keys_of(identity: pa.Array | pa.ChunkedArray) -> Uint64:
    """Return xxh3-64 of each identity's bytes (UTF-8), uint64[n]; 0 for null, which the caller masks.

    Raises ConfigError for a column that is neither string nor binary.
    """
    chunks = identity.chunks if isinstance(identity, pa.ChunkedArray) else [identity]
    keys = np.empty(len(identity), np.uint64)
    start = 0
    for chunk in chunks:
        keys[start : start + len(chunk)] = _chunk_keys(chunk)
        start += len(chunk)
    return keys


def _chunk_keys(chunk: pa.Array) -> Uint64:
    if chunk.type not in _OFFSETS:
        raise ConfigError(f"expected identities as string or binary, got {chunk.type}; cast the column first")
    if not len(chunk):
        return np.empty(0, np.uint64)
    _, offsets_buffer, data_buffer = chunk.buffers()
    offsets = np.frombuffer(offsets_buffer, _OFFSETS[chunk.type])[chunk.offset :][: len(chunk) + 1].tolist()
    data = memoryview(data_buffer) if data_buffer is not None else memoryview(b"")
    digest = xxhash.xxh3_64_digest  # its bytes are big-endian; joining them is quicker than making numbers one by one
    joined = b"".join([digest(data[a:b]) for a, b in pairwise(offsets)])
    keys = np.frombuffer(joined, ">u8").astype(np.uint64)
    if chunk.null_count:
        keys[chunk.is_null().to_numpy(zero_copy_only=False)] = 0
    return keys


def bits(keys: Uint64, stream: int) -> Uint64:
    """Return 64 random bits per key, uint64[n]."""
    keys = _checked(keys)
    out = np.empty(keys.shape, np.uint64)
    _native.noise_bits(keys, stream, out)
    return out


def uniform(keys: Uint64, stream: int) -> Float64:
    """Return uniform numbers on the open interval (0, 1), float64[n]: (k + 1/2) / 2^52 of the top 52 bits."""
    keys = _checked(keys)
    out = np.empty(keys.shape, np.float64)
    _native.noise_uniform(keys, stream, out)
    return out


def gumbel(keys: Uint64, stream: int) -> Float64:
    """Return standard Gumbel noise -ln(-ln u), float64[n].

    The largest of score + gumbel over a pool is a draw in proportion to exp(score), and the k largest are a
    sample without replacement (Gumbel top-k; Vieira 2014, Kool et al. 2019).
    """
    keys = _checked(keys)
    out = np.empty(keys.shape, np.float64)
    _native.noise_gumbel(keys, stream, out)
    return out


def _checked(keys: Uint64) -> Uint64:
    if keys.dtype != np.uint64:
        raise ConfigError(f"expected keys as uint64, got {keys.dtype}; take them from keys_of")
    return np.ascontiguousarray(keys)
