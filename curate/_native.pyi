"""The kernels' contract with Python.

Text is any object with `__arrow_c_array__` of type string or large_string; the other arrays are C-contiguous
buffers of the dtype and length stated, written in place; the GIL is released.
"""

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from typing_extensions import Buffer

class ArrowArray(Protocol):
    def __arrow_c_array__(self, requested_schema: object | None = None) -> tuple[object, object]: ...

# (ngrams, buckets, hash: 0 mix64 1 sha256, min_tokens, chars, regex_class, simd)
Settings = tuple[int, int, int, int, int, int, int]

def simd_features() -> int: ...
def noise_bits(keys: NDArray[np.uint64], stream: int, out: NDArray[np.uint64], /) -> None: ...
def noise_uniform(keys: NDArray[np.uint64], stream: int, out: NDArray[np.float64], /) -> None: ...
def noise_gumbel(keys: NDArray[np.uint64], stream: int, out: NDArray[np.float64], /) -> None: ...
def text_stats(
    text: ArrowArray, simd: int, bytes: NDArray[np.int64], words: NDArray[np.int64], /
) -> None: ...
# counts int64[33, n]; flags: 1 words 2 lines 4 repeats
def text_rules(text: ArrowArray, flags: int, short_chars: int, counts: NDArray[np.int64], /) -> None: ...
def spans_apply(
    text: ArrowArray,
    offsets: NDArray[np.int64],
    starts: NDArray[np.int64],
    stops: NDArray[np.int64],
    texts: ArrowArray,
    out_offsets: NDArray[np.int64],
    out: NDArray[np.uint8],
    /,
) -> None: ...

# Rules for lines: counts int64[columns, n], offsets int64[n + 1], starts and stops int64[lines_most_spans(text)]
def lines_most_spans(text: ArrowArray, /) -> int: ...
def lines_code(text: ArrowArray, syntax: NDArray[np.uint16], head_lines: int, counts: NDArray[np.int64], /) -> None: ...
def lines_c4(
    text: ArrowArray,
    min_words: int,
    max_word_chars: int,
    flags: int,
    counts: NDArray[np.int64],
    offsets: NDArray[np.int64],
    starts: NDArray[np.int64],
    stops: NDArray[np.int64],
    /,
) -> int: ...
def lines_refined(
    text: ArrowArray,
    max_uppercase: float,
    min_words: int,
    max_edit_words: int,
    numeric: bool,
    counters: bool,
    counts: NDArray[np.int64],
    offsets: NDArray[np.int64],
    starts: NDArray[np.int64],
    stops: NDArray[np.int64],
    /,
) -> int: ...
def ngrams_count(
    text: ArrowArray,
    settings: Settings,
    cache: NDArray[np.uint8] | None,
    cell: NDArray[np.uint8] | None,
    cells: int,
    counts: NDArray[np.int64],
    /,
) -> None: ...
def ngrams_score(
    text: ArrowArray,
    settings: Settings,
    cache: NDArray[np.uint8] | None,
    ratio: NDArray[np.float64],
    targets: int,
    scores: NDArray[np.float64],
    tokens: NDArray[np.int64],
    /,
) -> None: ...
def ngrams_tokenize(text: ArrowArray, settings: Settings, /) -> list[str]: ...
def ngrams_bucket(tokens: ArrowArray, settings: Settings, /) -> int: ...

# A table is 16-byte slots, a power of two of them; a model's first three arrays are the vocabulary's
# (slots, ends, arena), then (first, discounts, contexts by level, slots by level) of words and of bytes.
LmArray = Buffer | NDArray[Any]

def ngramlm_split(data: Buffer, ends: LmArray, /) -> int: ...
def ngramlm_intern(
    text: ArrowArray,
    slots: LmArray,
    ends: LmArray,
    arena: LmArray,
    cursor: LmArray,
    ids: LmArray,
    /,
) -> bool: ...
def ngramlm_rehash(smaller: LmArray, larger: LmArray, /) -> None: ...
def ngramlm_count(
    symbols: LmArray,
    lower: LmArray,
    start: int,
    slots: LmArray,
    known: int,
    left: LmArray,
    grams: LmArray,
    /,
) -> tuple[int, int]: ...
def ngramlm_fold(slots: LmArray, left: LmArray | None, contexts: LmArray, /) -> tuple[int, int, int, int]: ...
def ngramlm_score(model: tuple[object, ...], text: ArrowArray, out: LmArray, /) -> None: ...
def ngramlm_score_tokens(model: tuple[object, ...], data: Buffer, ends: LmArray, out: LmArray, /) -> None: ...
def ngramlm_spell(model: tuple[object, ...], token: Buffer, out: LmArray, /) -> None: ...

# own int64[n], joined int64[n, m]: bytes of raw DEFLATE
def zipfit_measure(
    text: ArrowArray, targets: ArrowArray, level: int, simd: int, own: LmArray, joined: LmArray, /
) -> None: ...

# own int64[n]: bytes of raw DEFLATE; counts uint32[n, 320]: its symbols; grams uint32[buckets, 16]; group uint8[m]; sums int64[n, 2, 4]
GramTable = tuple[NDArray[np.uint32], NDArray[np.uint16]]
def zipfit_profile(text: ArrowArray, level: int, simd: int, own: LmArray, counts: LmArray, /) -> None: ...
def zipfit_grams_enter(targets: ArrowArray, group: LmArray, size: int, grams: LmArray, marks: NDArray[np.uint16], /) -> bool: ...
def zipfit_grams_count(text: ArrowArray, four: GramTable, eight: GramTable, met: int, sums: LmArray, /) -> None: ...

# gains float64[320, 64], mean float64[320], out float64[n]
def zipfit_shared(counts: LmArray, gains: LmArray, mean: LmArray, out: LmArray, /) -> None: ...

# (ngram, unit: 0 word 1 char 2 auto, hash: 0 mix64 1 sha1, scheme: 0 native 1 affine32 2 legacy, permutations, simd)
MinhashSettings = tuple[int, int, int, int, int, int]

# a, b: uint32, or uint64 for legacy, padded to a multiple of 32; signatures uint32[n, permutations]
def minhash_signatures(
    text: ArrowArray,
    settings: MinhashSettings,
    a: NDArray[Any],
    b: NDArray[Any],
    signatures: NDArray[np.uint32],
    shingles: NDArray[np.int64],
    sums: NDArray[np.uint64],
    /,
) -> None: ...
def minhash_sets(
    text: ArrowArray, settings: MinhashSettings, values: NDArray[np.uint64], ends: NDArray[np.int64], /
) -> int: ...
def minhash_unspaced(text: ArrowArray, shares: NDArray[np.float64], /) -> None: ...
def minhash_bands(
    signatures: NDArray[np.uint32], permutations: int, bands: int, rows: int, keys: NDArray[np.uint64], /
) -> None: ...
def minhash_shared(
    values: NDArray[np.uint64],
    starts: NDArray[np.int64],
    left: NDArray[np.int64],
    right: NDArray[np.int64],
    shared: NDArray[np.int64],
    /,
) -> None: ...
def minhash_join(
    parent: NDArray[np.int64], left: NDArray[np.int64], right: NDArray[np.int64], /
) -> None: ...

# sums int32[n, dim]
def embed_project(values: LmArray, starts: LmArray, dim: int, sums: LmArray, /) -> None: ...

# next uint32[rows, 256], rows uint32[states], outputs int32[states], weights int16[features, classes] in units of
# `unit`, prior float32[classes], first int32[classes]; they are borrowed as long as the model lives
def langid_model(
    next: LmArray, rows: LmArray, outputs: LmArray, weights: LmArray, unit: float, prior: LmArray, first: LmArray, /
) -> object: ...
def langid_classify(
    text: ArrowArray, model: object, simd: int, labels: NDArray[np.int64], shares: NDArray[np.float64], /
) -> None: ...

# The index: (few, many, keys uint64[slots], ids int32[slots], filter uint8[2^bits / 8], filter_bits, starts int64[grams + 1],
# weights int64[grams], items int32[], term_starts int64[items + 1], terms uint64[], least int64[items]), as native/contamination.h has it
def contamination_terms(text: ArrowArray, simd: int, terms: LmArray, ends: LmArray, /) -> None: ...
def contamination_enter(grams: LmArray, keys: LmArray, ids: LmArray, filter: LmArray, filter_bits: int, /) -> None: ...
def contamination_index(
    few: int, many: int, keys: LmArray, ids: LmArray, filter: LmArray, filter_bits: int, starts: LmArray, weights: LmArray,
    items: LmArray, term_starts: LmArray, terms: LmArray, least: LmArray, /
) -> object: ...
def contamination_count(text: ArrowArray, index: object, simd: int, documents: LmArray, /) -> None: ...
def contamination_match(
    text: ArrowArray, index: object, simd: int, row: int, words: LmArray, whole: LmArray, found: LmArray, /
) -> tuple[int, int]: ...
