#include "minhash.h"

#include <string.h>

#include "mix64.h"
#include "sha1.h"
#include "simd.h"

#if CURATE_X86
#include <immintrin.h>
#endif

static const uint64_t MULTIPLIER = UINT64_C(0x243f6a8885a308d3); /* C0, odd, and 3 mod 8: M - 1 loses one bit */

/* ---------------------------------------------------------------- shingles of a batch of tokens */

static void open_row(const curate_text *text, int64_t row, const minhash_spec *spec, minhash_scratch *scratch) {
    int64_t start = text_offset(text, row), bytes = text_offset(text, row + 1) - start;
    const uint8_t *input = text->data + start;
    static const int tokens_of[] = {[MINHASH_WORD] = TOKENS_WORDS, [MINHASH_CHAR] = TOKENS_CHARS, [MINHASH_SCRIPTS] = TOKENS_SCRIPTS};
    scratch->stream.rules = (token_rules){tokens_of[spec->unit], 0, spec->simd};
    tokens_open(&scratch->stream, input, bytes, text->data + text_offset(text, text->length));
    memset(scratch->tokens + MINHASH_MAX_NGRAM - spec->ngram, 0, (size_t)spec->ngram * sizeof *scratch->tokens);
    scratch->sum = 0;
    scratch->seen = 0;
    scratch->joined_bytes = 0;
}

static void open_call(const minhash_spec *spec, minhash_scratch *scratch) {
    scratch->power = 1;
    for (int i = 0; i < spec->ngram; i++) scratch->power *= MULTIPLIER;
}

CURATE_INLINE uint64_t gram_of(uint64_t sum) {
    return mix64_fold(sum ^ MIX64_FIRST.c[4], MIX64_FIRST.c[5]);
}

/* The rolling sum over a batch of tokens, and where it reads and writes. */
typedef struct {
    const uint8_t *lower;
    const uint32_t *starts, *ends;
    uint64_t *tokens;    /* of the batch; those before it stand in front */
    const uint64_t *old; /* the token that leaves as each comes */
    uint64_t *grams;
    uint64_t sum, power;
} roll;

CURATE_INLINE roll roll_open(const minhash_spec *spec, minhash_scratch *scratch) {
    const token_stream *stream = &scratch->stream;
    uint64_t *tokens = scratch->tokens + MINHASH_MAX_NGRAM;
    return (roll){.lower = stream->lower,
                  .starts = stream->starts + stream->history,
                  .ends = stream->ends + stream->history,
                  .tokens = tokens,
                  .old = tokens - spec->ngram,
                  .grams = scratch->grams,
                  .sum = scratch->sum,
                  .power = scratch->power};
}

/* grams[j], and x of it: the shingle that ends at the j-th token of the batch, or begins before the document. */
CURATE_INLINE uint32_t roll_next(roll *r, int64_t j) {
    r->tokens[j] = mix64_token(r->lower + r->starts[j], r->ends[j] - r->starts[j], &MIX64_FIRST);
    r->sum = r->sum * MULTIPLIER + r->tokens[j] - r->old[j] * r->power;
    r->grams[j] = gram_of(r->sum);
    return (uint32_t)(r->grams[j] >> 32);
}

CURATE_INLINE void hash_batch(const minhash_spec *spec, minhash_scratch *scratch, int64_t from, int64_t count) {
    roll r = roll_open(spec, scratch);
    for (int64_t j = from; j < count; j++) scratch->x[j] = roll_next(&r, j);
    scratch->sum = r.sum;
}

static void hash_plain(const minhash_spec *spec, minhash_scratch *scratch, int64_t count) {
    hash_batch(spec, scratch, 0, count);
}

#if CURATE_X86
CURATE_TARGET_AVX2 static void hash_avx2(const minhash_spec *spec, minhash_scratch *scratch, int64_t count) {
    hash_batch(spec, scratch, 0, count);
}
#endif

/* The bytes of the shingles, for SHA1: the tokens of the whole document, joined as shingles are. */
static void join_token(const minhash_spec *spec, minhash_scratch *scratch, int64_t token) {
    const token_stream *stream = &scratch->stream;
    uint32_t start = stream->starts[stream->history + token], bytes = stream->ends[stream->history + token] - start;
    int64_t number = scratch->seen + token;
    int is_word = stream->rules.chars == TOKENS_WORDS ||
                  (stream->rules.chars == TOKENS_SCRIPTS && !tokens_is_alone(stream->lower + start, bytes));
    if (number > 0 && is_word && scratch->joined_word) scratch->joined[scratch->joined_bytes++] = ' ';
    scratch->joined_word = is_word;
    scratch->joined_starts[number % spec->ngram] = scratch->joined_bytes;
    memcpy(scratch->joined + scratch->joined_bytes, stream->lower + start, bytes);
    scratch->joined_bytes += bytes;
}

static uint32_t sha1_from(const minhash_scratch *scratch, int64_t start) {
    return sha1_first(scratch->joined + start, scratch->joined_bytes - start);
}

static uint32_t fmix32(uint32_t x) {
    x = (x ^ x >> 16) * UINT32_C(0x85ebca6b);
    x = (x ^ x >> 13) * UINT32_C(0xc2b2ae35);
    return x ^ x >> 16;
}

/* grams and x of a batch of tokens. */
static void hash(const minhash_spec *spec, minhash_scratch *scratch, int64_t before, int64_t count) {
#if CURATE_X86
    if (spec->simd & SIMD_AVX2) hash_avx2(spec, scratch, count);
    else
#endif
        hash_plain(spec, scratch, count);
    if (spec->hash == MINHASH_SHA1) {
        for (int64_t j = 0; j < count; j++) {
            join_token(spec, scratch, j);
            if (j >= before)
                scratch->x[j] = sha1_from(scratch, scratch->joined_starts[(scratch->seen + j + 1) % spec->ngram]);
        }
    }
    if (spec->scheme == MINHASH_MURMUR)
        for (int64_t j = before; j < count; j++) scratch->x[j] = fmix32(scratch->x[j]);
}

/* How many tokens of a batch come before the first that ends a shingle. */
static int64_t tokens_before(const minhash_spec *spec, const minhash_scratch *scratch, int64_t count) {
    int64_t before = spec->ngram - 1 - scratch->seen;
    return before < 0 ? 0 : before > count ? count : before;
}

static void close_batch(const minhash_spec *spec, minhash_scratch *scratch, int64_t count) {
    uint64_t *last = scratch->tokens + MINHASH_MAX_NGRAM - spec->ngram;
    scratch->seen += count;
    memmove(last, last + count, (size_t)spec->ngram * sizeof *last);
}

/* At the end of a document of 1 .. n - 1 tokens: its one shingle is grams[0] and x[0]. */
static int short_shingle(const minhash_spec *spec, minhash_scratch *scratch) {
    if (scratch->seen == 0 || scratch->seen >= spec->ngram) return 0;
    scratch->grams[0] = gram_of(scratch->sum);
    scratch->x[0] = (uint32_t)(scratch->grams[0] >> 32);
    if (spec->hash == MINHASH_SHA1) scratch->x[0] = sha1_from(scratch, 0);
    if (spec->scheme == MINHASH_MURMUR) scratch->x[0] = fmix32(scratch->x[0]);
    return 1;
}

/* ---------------------------------------------------------------- permutations */

/* `least` and the parameters are k rounded up to blocks; all of these do permutations from .. k - 1. Plain loops: what
 * a compiler without intrinsics makes of it. */
static void affine_plain(const minhash_spec *spec, minhash_scratch *scratch, int from, int k, int64_t first,
                         int64_t end) {
    for (int block = from; block < k; block += MINHASH_BLOCK) {
        uint32_t a[MINHASH_BLOCK], b[MINHASH_BLOCK], found[MINHASH_BLOCK];
        memcpy(a, spec->a32 + block, sizeof a);
        memcpy(b, spec->b32 + block, sizeof b);
        memcpy(found, scratch->least + block, sizeof found);
        for (int64_t j = first; j < end; j++) {
            for (int i = 0; i < MINHASH_BLOCK; i++) {
                uint32_t value = a[i] * scratch->x[j] + b[i];
                found[i] = value < found[i] ? value : found[i];
            }
        }
        memcpy(scratch->least + block, found, sizeof found);
    }
}

static uint32_t legacy_of(uint64_t a, uint64_t b, uint32_t x) {
    return (uint32_t)((a * x + b) % ((UINT64_C(1) << 61) - 1));
}

static void legacy_plain(const minhash_spec *spec, minhash_scratch *scratch, int from, int k, int64_t first,
                         int64_t end) {
    for (int i = from; i < k; i++) {
        uint32_t found = scratch->least[i];
        for (int64_t j = first; j < end; j++) {
            uint32_t value = legacy_of(spec->a64[i], spec->b64[i], scratch->x[j]);
            found = value < found ? value : found;
        }
        scratch->least[i] = found;
    }
}

#if CURATE_X86
#define LOAD8(p) _mm256_loadu_si256((const __m256i *)(p))
#define STORE8(p, v) _mm256_storeu_si256((__m256i *)(p), v)
#define AFFINE8(least, a, b, x) _mm256_min_epu32(least, _mm256_add_epi32(_mm256_mullo_epi32(a, x), b))

/* A block's parameters and minima stay in twelve registers while all shingles pass. */
CURATE_TARGET_AVX2 static void affine_avx2(const minhash_spec *spec, minhash_scratch *scratch, int from, int k,
                                           int64_t first, int64_t end) {
    for (int block = from; block < k; block += MINHASH_BLOCK) {
        const uint32_t *a = spec->a32 + block, *b = spec->b32 + block;
        uint32_t *found = scratch->least + block;
        __m256i a0 = LOAD8(a), a1 = LOAD8(a + 8), a2 = LOAD8(a + 16), a3 = LOAD8(a + 24);
        __m256i b0 = LOAD8(b), b1 = LOAD8(b + 8), b2 = LOAD8(b + 16), b3 = LOAD8(b + 24);
        __m256i m0 = LOAD8(found), m1 = LOAD8(found + 8), m2 = LOAD8(found + 16), m3 = LOAD8(found + 24);
        for (int64_t j = first; j < end; j++) {
            __m256i x = _mm256_set1_epi32((int)scratch->x[j]);
            m0 = AFFINE8(m0, a0, b0, x);
            m1 = AFFINE8(m1, a1, b1, x);
            m2 = AFFINE8(m2, a2, b2, x);
            m3 = AFFINE8(m3, a3, b3, x);
        }
        STORE8(found, m0);
        STORE8(found + 8, m1);
        STORE8(found + 16, m2);
        STORE8(found + 24, m3);
    }
}

/* Four shingles for 32 permutations, from and to memory. */
CURATE_TARGET_AVX2 CURATE_INLINE void affine_four(const uint32_t *a, const uint32_t *b, uint32_t *least,
                                                  const __m256i x[4]) {
    for (int i = 0; i < 32; i += 8) {
        __m256i a_ = LOAD8(a + i), b_ = LOAD8(b + i), found = LOAD8(least + i);
        for (int q = 0; q < 4; q++) found = AFFINE8(found, a_, b_, x[q]);
        STORE8(least + i, found);
    }
}

/* Hashing is the work of the scalar units and permuting that of the vectors: the next four tokens are hashed while
 * four shingles pass, each after a quarter of the permutations, so that both are always within the processor's reach. */
CURATE_TARGET_AVX2 static void fused_avx2(const minhash_spec *spec, minhash_scratch *scratch, int64_t before,
                                          int64_t count) {
    roll r = roll_open(spec, scratch);
    uint32_t *x = scratch->x;
    int64_t ready = before + 4 < count ? before + 4 : count;
    for (int64_t j = 0; j < ready; j++) x[j] = roll_next(&r, j);
    for (int64_t j = before; j < count; j += 4) {
        __m256i four[4];
        for (int q = 0; q < 4; q++) four[q] = _mm256_set1_epi32((int)x[j + q < count ? j + q : count - 1]);
        for (int q = 0; q < 4; q++) {
            if (CURATE_LIKELY(j + 4 + q < count)) x[j + 4 + q] = roll_next(&r, j + 4 + q);
            affine_four(spec->a32 + 32 * q, spec->b32 + 32 * q, scratch->least + 32 * q, four);
        }
    }
    scratch->sum = r.sum;
}

/* v = a * x + b mod 2^64 for eight permutations, as eight low and eight high words: the product with the low word of a
 * in two vectors of 64-bit lanes, that with the high word on the high words alone. Modulo p = 2^61 - 1, f = (v mod 2^61)
 * + (v >> 61) is the answer or p too large; its low word is low(v) + (high(v) >> 29). Where f may reach p, the lower 29
 * bits of high(v) are all ones, once in 2^29: `top` tells, and such a batch is done by legacy_plain. The shuffles leave
 * the words in the order 0 1 4 5 2 3 6 7, and so do `least` and the high words of a. */
CURATE_TARGET_AVX2 static int legacy_eight(const uint64_t *a, const uint64_t *b, uint32_t *least, const uint32_t *x,
                                           int64_t count) {
#define WORDS8(from, to, which) \
    _mm256_castps_si256(_mm256_shuffle_ps(_mm256_castsi256_ps(from), _mm256_castsi256_ps(to), which))
    __m256i a0 = LOAD8(a), a1 = LOAD8(a + 4), b0 = LOAD8(b), b1 = LOAD8(b + 4), a_high = WORDS8(a0, a1, 0xdd);
    __m256i found = _mm256_permute4x64_epi64(LOAD8(least), 0xd8), top = _mm256_setzero_si256();
    for (int64_t j = 0; j < count; j++) {
        __m256i x_ = _mm256_set1_epi32((int)x[j]);
        __m256i v0 = _mm256_add_epi64(_mm256_mul_epu32(a0, x_), b0), v1 = _mm256_add_epi64(_mm256_mul_epu32(a1, x_), b1);
        __m256i high = _mm256_add_epi32(WORDS8(v0, v1, 0xdd), _mm256_mullo_epi32(a_high, x_));
        __m256i value = _mm256_add_epi32(WORDS8(v0, v1, 0x88), _mm256_srli_epi32(high, 29));
        found = _mm256_min_epu32(found, value);
        top = _mm256_max_epu32(top, _mm256_slli_epi32(high, 3));
    }
    __m256i doubtful = _mm256_cmpeq_epi32(top, _mm256_set1_epi32(-8));
    if (CURATE_UNLIKELY(!_mm256_testz_si256(doubtful, doubtful))) return 0;
    STORE8(least, _mm256_permute4x64_epi64(found, 0xd8));
    return 1;
#undef WORDS8
}

CURATE_TARGET_AVX2 static void legacy_avx2(const minhash_spec *spec, minhash_scratch *scratch, int from, int k,
                                           int64_t first, int64_t end) {
    for (int i = from; i < k; i += 8)
        if (!legacy_eight(spec->a64 + i, spec->b64 + i, scratch->least + i, scratch->x + first, end - first))
            legacy_plain(spec, scratch, i, i + 8, first, end);
}
#undef LOAD8
#undef STORE8
#undef AFFINE8

#define LOAD16(i, p) __m512i i = _mm512_loadu_si512(p)
#define AFFINE16(least, a, b) least = _mm512_min_epu32(least, _mm512_add_epi32(_mm512_mullo_epi32(a, x_), b))

/* As fused_avx2, but all parameters and minima stay in 24 registers. */
CURATE_TARGET_AVX512 static void fused_avx512(const minhash_spec *spec, minhash_scratch *scratch, int64_t before,
                                              int64_t count) {
    roll r = roll_open(spec, scratch);
    const uint32_t *a = spec->a32, *b = spec->b32;
    uint32_t *m = scratch->least;
    LOAD16(a0, a), b0 = _mm512_loadu_si512(b), m0 = _mm512_loadu_si512(m);
    LOAD16(a1, a + 16), b1 = _mm512_loadu_si512(b + 16), m1 = _mm512_loadu_si512(m + 16);
    LOAD16(a2, a + 32), b2 = _mm512_loadu_si512(b + 32), m2 = _mm512_loadu_si512(m + 32);
    LOAD16(a3, a + 48), b3 = _mm512_loadu_si512(b + 48), m3 = _mm512_loadu_si512(m + 48);
    LOAD16(a4, a + 64), b4 = _mm512_loadu_si512(b + 64), m4 = _mm512_loadu_si512(m + 64);
    LOAD16(a5, a + 80), b5 = _mm512_loadu_si512(b + 80), m5 = _mm512_loadu_si512(m + 80);
    LOAD16(a6, a + 96), b6 = _mm512_loadu_si512(b + 96), m6 = _mm512_loadu_si512(m + 96);
    LOAD16(a7, a + 112), b7 = _mm512_loadu_si512(b + 112), m7 = _mm512_loadu_si512(m + 112);
    for (int64_t j = 0; j < before; j++) scratch->x[j] = roll_next(&r, j);
    for (int64_t j = before; j < count; j++) {
        uint32_t x = scratch->x[j] = roll_next(&r, j);
        __m512i x_ = _mm512_set1_epi32((int)x);
        AFFINE16(m0, a0, b0);
        AFFINE16(m1, a1, b1);
        AFFINE16(m2, a2, b2);
        AFFINE16(m3, a3, b3);
        AFFINE16(m4, a4, b4);
        AFFINE16(m5, a5, b5);
        AFFINE16(m6, a6, b6);
        AFFINE16(m7, a7, b7);
    }
    _mm512_storeu_si512(m, m0);
    _mm512_storeu_si512(m + 16, m1);
    _mm512_storeu_si512(m + 32, m2);
    _mm512_storeu_si512(m + 48, m3);
    _mm512_storeu_si512(m + 64, m4);
    _mm512_storeu_si512(m + 80, m5);
    _mm512_storeu_si512(m + 96, m6);
    _mm512_storeu_si512(m + 112, m7);
    scratch->sum = r.sum;
}
#undef LOAD16
#undef AFFINE16

/* As legacy_eight, sixteen. */
CURATE_TARGET_AVX512 static int legacy_sixteen(const uint64_t *a, const uint64_t *b, uint32_t *least,
                                               const uint32_t *x, int64_t count) {
#define WORDS16(from, to, which) \
    _mm512_castps_si512(_mm512_shuffle_ps(_mm512_castsi512_ps(from), _mm512_castsi512_ps(to), which))
    __m512i a0 = _mm512_loadu_si512(a), a1 = _mm512_loadu_si512(a + 8), a_high = WORDS16(a0, a1, 0xdd);
    __m512i b0 = _mm512_loadu_si512(b), b1 = _mm512_loadu_si512(b + 8), top = _mm512_setzero_si512();
    __m512i apart = _mm512_setr_epi64(0, 4, 1, 5, 2, 6, 3, 7), together = _mm512_setr_epi64(0, 2, 4, 6, 1, 3, 5, 7);
    __m512i found = _mm512_permutexvar_epi64(apart, _mm512_loadu_si512(least));
    for (int64_t j = 0; j < count; j++) {
        __m512i x_ = _mm512_set1_epi32((int)x[j]);
        __m512i v0 = _mm512_add_epi64(_mm512_mul_epu32(a0, x_), b0), v1 = _mm512_add_epi64(_mm512_mul_epu32(a1, x_), b1);
        __m512i high = _mm512_add_epi32(WORDS16(v0, v1, 0xdd), _mm512_mullo_epi32(a_high, x_));
        __m512i value = _mm512_add_epi32(WORDS16(v0, v1, 0x88), _mm512_srli_epi32(high, 29));
        found = _mm512_min_epu32(found, value);
        top = _mm512_max_epu32(top, _mm512_slli_epi32(high, 3));
    }
    if (CURATE_UNLIKELY(_mm512_cmpeq_epi32_mask(top, _mm512_set1_epi32(-8)))) return 0;
    _mm512_storeu_si512(least, _mm512_permutexvar_epi64(together, found));
    return 1;
#undef WORDS16
}

CURATE_TARGET_AVX512 static void legacy_avx512(const minhash_spec *spec, minhash_scratch *scratch, int from, int k,
                                               int64_t first, int64_t end) {
    for (int i = from; i < k; i += 16)
        if (!legacy_sixteen(spec->a64 + i, spec->b64 + i, scratch->least + i, scratch->x + first, end - first))
            legacy_plain(spec, scratch, i, i + 16, first, end);
}
#endif

enum { FUSED = 128 }; /* permutations that are done while tokens are hashed */

static void permute(const minhash_spec *spec, minhash_scratch *scratch, int from, int64_t first, int64_t end) {
    int k = (spec->permutations + MINHASH_BLOCK - 1) / MINHASH_BLOCK * MINHASH_BLOCK;
    int legacy = spec->scheme == MINHASH_LEGACY;
#if CURATE_X86
    if (legacy && spec->simd & SIMD_AVX512) legacy_avx512(spec, scratch, from, k, first, end);
    else if (legacy && spec->simd & SIMD_AVX2) legacy_avx2(spec, scratch, from, k, first, end);
    else if (spec->simd & SIMD_AVX2) affine_avx2(spec, scratch, from, k, first, end);
    else
#endif
        if (legacy) legacy_plain(spec, scratch, from, k, first, end);
    else affine_plain(spec, scratch, from, k, first, end);
}

static void hash_and_permute(const minhash_spec *spec, minhash_scratch *scratch, int64_t before, int64_t count) {
    int from = 0;
#if CURATE_X86
    int fusable = spec->hash == MINHASH_MIX64 && spec->scheme == MINHASH_AFFINE && spec->permutations > FUSED - 32;
    if (fusable && spec->simd & SIMD_AVX2) {
        if (spec->simd & SIMD_AVX512) fused_avx512(spec, scratch, before, count);
        else fused_avx2(spec, scratch, before, count);
        from = FUSED;
    } else
#endif
        hash(spec, scratch, before, count);
    permute(spec, scratch, from, before, count);
}

void minhash_signatures(const curate_text *text, const minhash_spec *spec, uint32_t *signatures, int64_t *shingles,
                        uint64_t *sums, minhash_scratch *scratch) {
    open_call(spec, scratch);
    for (int64_t row = 0; row < text->length; row++, signatures += spec->permutations) {
        int64_t count, all = 0;
        uint64_t sum = 0;
        memset(scratch->least, 0xff, (size_t)(spec->permutations + MINHASH_BLOCK) * sizeof *scratch->least);
        if (!text_is_null(text, row)) {
            open_row(text, row, spec, scratch);
            while ((count = tokens_next(&scratch->stream, 0)) > 0) {
                int64_t before = tokens_before(spec, scratch, count);
                hash_and_permute(spec, scratch, before, count);
                for (int64_t j = before; j < count; j++) sum += scratch->grams[j];
                all += count - before;
                close_batch(spec, scratch, count);
            }
            if (short_shingle(spec, scratch)) {
                permute(spec, scratch, 0, 0, 1);
                sum = scratch->grams[0];
                all = 1;
            }
        } else {
            all = -1;
        }
        memcpy(signatures, scratch->least, (size_t)spec->permutations * sizeof *signatures);
        shingles[row] = all;
        sums[row] = sum;
    }
}

void minhash_unspaced(const curate_text *text, double *shares) {
    for (int64_t row = 0; row < text->length; row++) {
        int64_t start = text_offset(text, row);
        tokens_scripts found = {0, 0};
        if (!text_is_null(text, row)) found = tokens_count_scripts(text->data + start, text_offset(text, row + 1) - start);
        shares[row] = 2 * found.unspaced > found.characters ? (double)found.unspaced / (double)found.characters : 0.0;
    }
}

/* ---------------------------------------------------------------- sets */

enum { SORT_FEW = 12 };

static void sort_few(uint64_t *values, int64_t n) {
    for (int64_t i = 1; i < n; i++) {
        uint64_t value = values[i];
        int64_t at = i;
        for (; at > 0 && values[at - 1] > value; at--) values[at] = values[at - 1];
        values[at] = value;
    }
}

/* By bits from the top: hashes part in halves, so the depth is the logarithm of n, and 64 at most whatever they are.
 * Which half a value goes to is no branch: it could not be predicted. */
static void sort_bits(uint64_t *values, int64_t n, int bit) {
    while (n > SORT_FEW && bit >= 0) {
        int64_t low = 0;
        for (int64_t i = 0; i < n; i++) { /* zeros up to low, ones from there to i */
            uint64_t value = values[i];
            values[i] = values[low];
            values[low] = value;
            low += (int64_t)(~value >> bit & 1);
        }
        bit--;
        sort_bits(values, low, bit);
        values += low;
        n -= low;
    }
    if (bit >= 0) sort_few(values, n);
}

static int64_t distinct(uint64_t *values, int64_t n) {
    int64_t kept = 0;
    for (int64_t i = 0; i < n; i++)
        if (kept == 0 || values[i] != values[kept - 1]) values[kept++] = values[i];
    return kept;
}

int64_t minhash_sets(const curate_text *text, const minhash_spec *spec, uint64_t *values, int64_t *ends,
                     minhash_scratch *scratch) {
    int64_t written = 0;
    open_call(spec, scratch);
    for (int64_t row = 0; row < text->length; row++) {
        int64_t count, all = 0;
        if (!text_is_null(text, row)) {
            open_row(text, row, spec, scratch);
            while ((count = tokens_next(&scratch->stream, 0)) > 0) {
                int64_t before = tokens_before(spec, scratch, count);
                hash(spec, scratch, before, count);
                memcpy(values + written + all, scratch->grams + before, (size_t)(count - before) * sizeof *values);
                all += count - before;
                close_batch(spec, scratch, count);
            }
            if (short_shingle(spec, scratch)) values[written + all++] = scratch->grams[0];
            sort_bits(values + written, all, 63);
        }
        written += distinct(values + written, all);
        ends[row] = written;
    }
    return written;
}

/* ---------------------------------------------------------------- joining */

void minhash_bands(const uint32_t *signatures, int64_t rows, int permutations, int bands, int per_band, uint64_t *keys) {
    for (int64_t row = 0; row < rows; row++, signatures += permutations) {
        const uint32_t *at = signatures;
        for (int band = 0; band < bands; band++) {
            uint64_t key = mix64_fold((uint64_t)band ^ MIX64_SECOND.c[0], MIX64_SECOND.c[1]);
            int i = 0;
            for (; i + 2 <= per_band; i += 2, at += 2)
                key = mix64_append(key, at[0] | (uint64_t)at[1] << 32, &MIX64_SECOND);
            *keys++ = i < per_band ? mix64_append(key, *at++, &MIX64_SECOND) : key;
        }
    }
}

static int64_t shared_of(const uint64_t *a, const uint64_t *a_end, const uint64_t *b, const uint64_t *b_end) {
    int64_t shared = 0;
    while (a < a_end && b < b_end) {
        uint64_t left = *a, right = *b;
        shared += left == right;
        a += left <= right;
        b += right <= left;
    }
    return shared;
}

void minhash_shared(const uint64_t *values, const int64_t *starts, const int64_t *left, const int64_t *right,
                    int64_t pairs, int64_t *shared) {
    for (int64_t p = 0; p < pairs; p++) {
        int64_t l = left[p], r = right[p];
        shared[p] = shared_of(values + starts[l], values + starts[l + 1], values + starts[r], values + starts[r + 1]);
    }
}

static int64_t root_of(int64_t *parent, int64_t i) {
    while (parent[i] != i) {
        parent[i] = parent[parent[i]];
        i = parent[i];
    }
    return i;
}

void minhash_join(int64_t *parent, const int64_t *left, const int64_t *right, int64_t pairs) {
    for (int64_t p = 0; p < pairs; p++) {
        int64_t l = root_of(parent, left[p]), r = root_of(parent, right[p]);
        if (l < r) parent[r] = l;
        else parent[l] = r;
    }
}
