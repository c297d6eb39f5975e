#include "minhash.h"

#include <string.h>

#include "mix64.h"
#include "sha1.h"
#include "simd.h"

#if CURATE_X86
#include <immintrin.h>
#endif

static const uint64_t MULTIPLIER = UINT64_C(0x243f6a8885a308d3); /* C0, odd, and 3 mod 8: M - 1 loses one bit */

/* ---------------------------------------------------------------- which unit */

/* Whether a character of a script without spaces between words begins here.
 * Thai, Lao, Tibetan, Myanmar, Khmer, Tai Le to New Tai Lue, Tai Tham, Balinese, CJK punctuation, kana, bopomofo, Han,
 * Yi, Javanese, Myanmar's extensions, Tai Viet, half-width katakana, the supplementary planes of Han. */
static int unspaced_at(const uint8_t *p, int64_t left) {
    if (left < 3 || p[0] < 0xe0) return 0;
    uint32_t code = (p[0] & 0x0fu) << 12 | (p[1] & 0x3fu) << 6 | (p[2] & 0x3fu);
    if (p[0] >= 0xf0) return left >= 4 && p[0] == 0xf0 && p[1] >= 0xa0;
    if (code < 0x3000)
        return (code >= 0x0e00 && code <= 0x109f) || (code >= 0x1780 && code <= 0x17ff) ||
                       (code >= 0x1950 && code <= 0x19df) || (code >= 0x1a20 && code <= 0x1aaf) ||
                       (code >= 0x1b00 && code <= 0x1b7f);
    return code <= 0x312f || (code >= 0x31a0 && code <= 0x9fff) || (code >= 0xa000 && code <= 0xa4cf) ||
                   (code >= 0xa980 && code <= 0xa9ff) || (code >= 0xaa60 && code <= 0xaadf) ||
                   (code >= 0xf900 && code <= 0xfaff) || (code >= 0xff66 && code <= 0xff9f);
}

/* A first pass, in vectors, counts characters, and bytes that such a character may begin with; few documents have
 * enough of these to be looked at closely. */
static int is_unspaced(const uint8_t *text, int64_t bytes) {
    int64_t wide = 0, characters = 0, unspaced = 0;
    for (int64_t at = 0; at < bytes; at += 128) {
        int n = bytes - at < 128 ? (int)(bytes - at) : 128;
        uint8_t some_wide = 0, some_characters = 0;
        for (int i = 0; i < n; i++) {
            uint8_t byte = text[at + i];
            some_wide = (uint8_t)(some_wide + ((byte >= 0xe0) & (byte != 0xe2)));
            some_characters =
                (uint8_t)(some_characters + (((byte & 0xc0) != 0x80) & (byte != ' ') & ((uint8_t)(byte - '\t') > 4)));
        }
        wide += some_wide;
        characters += some_characters;
    }
    if (wide == 0 || 2 * wide < characters) return 0;
    for (int64_t i = 0; i < bytes; i++) unspaced += unspaced_at(text + i, bytes - i);
    return unspaced > 0 && 2 * unspaced >= characters;
}

/* ---------------------------------------------------------------- shingles of a batch of tokens */

static void open_row(const curate_text *text, int64_t row, const minhash_spec *spec, minhash_scratch *scratch) {
    int64_t start = text_offset(text, row), bytes = text_offset(text, row + 1) - start;
    const uint8_t *input = text->data + start;
    int chars = spec->unit == MINHASH_CHAR || (spec->unit == MINHASH_AUTO && is_unspaced(input, bytes));
    scratch->stream.rules = (token_rules){chars ? TOKENS_CHARS : TOKENS_WORDS, 0, spec->simd};
    tokens_open(&scratch->stream, input, bytes, text->data + text_offset(text, text->length));
    memset(scratch->tokens, 0, MINHASH_MAX_NGRAM * sizeof *scratch->tokens);
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

/* grams[j]: the shingle that ends at the j-th token of the batch, or begins before the document. */
CURATE_INLINE void hash_batch(const minhash_spec *spec, minhash_scratch *scratch, int64_t count) {
    const token_stream *stream = &scratch->stream;
    const uint32_t *starts = stream->starts + stream->history, *ends = stream->ends + stream->history;
    const uint64_t power = scratch->power;
    uint64_t *tokens = scratch->tokens + MINHASH_MAX_NGRAM, sum = scratch->sum;
    const uint64_t *old = tokens - spec->ngram;
    for (int64_t j = 0; j < count; j++) {
        tokens[j] = mix64_token(stream->lower + starts[j], ends[j] - starts[j], &MIX64_FIRST);
        sum = sum * MULTIPLIER + tokens[j] - old[j] * power;
        scratch->grams[j] = gram_of(sum);
    }
    scratch->sum = sum;
}

static void hash_baseline(const minhash_spec *spec, minhash_scratch *scratch, int64_t count) {
    hash_batch(spec, scratch, count);
}

#if CURATE_X86
CURATE_TARGET_AVX2 static void hash_avx2(const minhash_spec *spec, minhash_scratch *scratch, int64_t count) {
    hash_batch(spec, scratch, count);
}
#endif

/* The bytes of the shingles, for SHA1: the tokens of the whole document, joined as shingles are. */
static void join_token(const minhash_spec *spec, minhash_scratch *scratch, int64_t token) {
    const token_stream *stream = &scratch->stream;
    uint32_t start = stream->starts[stream->history + token], bytes = stream->ends[stream->history + token] - start;
    int64_t number = scratch->seen + token;
    if (number > 0 && stream->rules.chars == TOKENS_WORDS) scratch->joined[scratch->joined_bytes++] = ' ';
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

/* x[0 .. count - 1] of grams[0 .. count - 1]; sha1 has written its own. */
static void hashes_32(const minhash_spec *spec, minhash_scratch *scratch, int64_t count) {
    if (spec->hash == MINHASH_MIX64)
        for (int64_t j = 0; j < count; j++) scratch->x[j] = (uint32_t)(scratch->grams[j] >> 32);
    if (spec->scheme == MINHASH_MURMUR)
        for (int64_t j = 0; j < count; j++) scratch->x[j] = fmix32(scratch->x[j]);
}

/* The document ended before its n-th token: its one shingle. */
static int64_t short_shingle(const minhash_spec *spec, minhash_scratch *scratch) {
    if (scratch->seen == 0 || scratch->seen >= spec->ngram) return 0;
    scratch->seen = spec->ngram; /* once */
    scratch->grams[0] = gram_of(scratch->sum);
    if (spec->hash == MINHASH_SHA1) scratch->x[0] = sha1_from(scratch, 0);
    return 1;
}

/* The next shingles of the document: how many; 0 at its end. Afterwards they are grams[first ..] and x[first ..]. */
static int64_t next_shingles(const minhash_spec *spec, minhash_scratch *scratch, int64_t *first) {
    int64_t count;
    *first = 0;
    while ((count = tokens_next(&scratch->stream, 0)) > 0) {
        int64_t before = spec->ngram - 1 - scratch->seen; /* tokens of the batch that end no shingle */
        before = before < 0 ? 0 : before > count ? count : before;
#if CURATE_X86
        if (spec->simd & SIMD_AVX2) hash_avx2(spec, scratch, count);
        else
#endif
            hash_baseline(spec, scratch, count);
        for (int64_t j = 0; spec->hash == MINHASH_SHA1 && j < count; j++) {
            join_token(spec, scratch, j);
            if (j >= before)
                scratch->x[j] = sha1_from(scratch, scratch->joined_starts[(scratch->seen + j + 1) % spec->ngram]);
        }
        scratch->seen += count;
        memmove(scratch->tokens, scratch->tokens + count, MINHASH_MAX_NGRAM * sizeof *scratch->tokens);
        *first = before;
        if (count > before) break;
    }
    if (count > 0) return count - *first;
    *first = 0;
    return short_shingle(spec, scratch);
}

/* ---------------------------------------------------------------- permutations */

/* `least` and the parameters are k rounded up to blocks. Plain loops: what a compiler without intrinsics makes of it. */
static void permute_plain(const minhash_spec *spec, const uint32_t *x, int64_t count, int k, uint32_t *least) {
    for (int block = 0; block < k; block += MINHASH_BLOCK) {
        uint32_t a[MINHASH_BLOCK], b[MINHASH_BLOCK], found[MINHASH_BLOCK];
        memcpy(a, spec->a32 + block, sizeof a);
        memcpy(b, spec->b32 + block, sizeof b);
        memcpy(found, least + block, sizeof found);
        for (int64_t j = 0; j < count; j++) {
            for (int i = 0; i < MINHASH_BLOCK; i++) {
                uint32_t value = a[i] * x[j] + b[i];
                found[i] = value < found[i] ? value : found[i];
            }
        }
        memcpy(least + block, found, sizeof found);
    }
}

static uint32_t legacy_of(uint64_t a, uint64_t b, uint32_t x) {
    return (uint32_t)((a * x + b) % ((UINT64_C(1) << 61) - 1));
}

static void legacy_plain(const minhash_spec *spec, const uint32_t *x, int64_t count, int k, uint32_t *least) {
    for (int i = 0; i < k; i++) {
        uint32_t found = least[i];
        for (int64_t j = 0; j < count; j++) {
            uint32_t value = legacy_of(spec->a64[i], spec->b64[i], x[j]);
            found = value < found ? value : found;
        }
        least[i] = found;
    }
}

#if CURATE_X86
#define LOAD(p) _mm256_loadu_si256((const __m256i *)(p))
#define STORE(p, v) _mm256_storeu_si256((__m256i *)(p), v)
#define STEP(i) least##i = _mm256_min_epu32(least##i, _mm256_add_epi32(_mm256_mullo_epi32(a##i, x_), b##i))

/* A block's parameters and minima stay in twelve registers while all shingles pass. */
CURATE_TARGET_AVX2 static void permute_avx2(const minhash_spec *spec, const uint32_t *x, int64_t count, int k,
                                            uint32_t *least) {
    for (int block = 0; block < k; block += MINHASH_BLOCK) {
        const uint32_t *a = spec->a32 + block, *b = spec->b32 + block;
        uint32_t *found = least + block;
        __m256i a0 = LOAD(a), a1 = LOAD(a + 8), a2 = LOAD(a + 16), a3 = LOAD(a + 24);
        __m256i b0 = LOAD(b), b1 = LOAD(b + 8), b2 = LOAD(b + 16), b3 = LOAD(b + 24);
        __m256i least0 = LOAD(found), least1 = LOAD(found + 8), least2 = LOAD(found + 16), least3 = LOAD(found + 24);
        for (int64_t j = 0; j < count; j++) {
            __m256i x_ = _mm256_set1_epi32((int)x[j]);
            STEP(0);
            STEP(1);
            STEP(2);
            STEP(3);
        }
        STORE(found, least0);
        STORE(found + 8, least1);
        STORE(found + 16, least2);
        STORE(found + 24, least3);
    }
}
#undef LOAD
#undef STORE
#undef STEP
#endif

static void permute(const minhash_spec *spec, const uint32_t *x, int64_t count, int k, uint32_t *least) {
    if (spec->scheme == MINHASH_LEGACY) legacy_plain(spec, x, count, k, least);
#if CURATE_X86
    else if (spec->simd & SIMD_AVX2) permute_avx2(spec, x, count, k, least);
#endif
    else permute_plain(spec, x, count, k, least);
}

void minhash_signatures(const curate_text *text, const minhash_spec *spec, uint32_t *signatures, int64_t *shingles,
                        uint64_t *sums, minhash_scratch *scratch) {
    int k = (spec->permutations + MINHASH_BLOCK - 1) / MINHASH_BLOCK * MINHASH_BLOCK;
    open_call(spec, scratch);
    for (int64_t row = 0; row < text->length; row++, signatures += spec->permutations) {
        int64_t count, first, all = 0;
        uint64_t sum = 0;
        memset(scratch->least, 0xff, (size_t)k * sizeof *scratch->least);
        if (!text_is_null(text, row)) {
            open_row(text, row, spec, scratch);
            while ((count = next_shingles(spec, scratch, &first)) > 0) {
                hashes_32(spec, scratch, first + count);
                permute(spec, scratch->x + first, count, k, scratch->least);
                for (int64_t j = first; j < first + count; j++) sum += scratch->grams[j];
                all += count;
            }
        } else {
            all = -1;
        }
        memcpy(signatures, scratch->least, (size_t)spec->permutations * sizeof *signatures);
        shingles[row] = all;
        sums[row] = sum;
    }
}

/* ---------------------------------------------------------------- sets */

enum { SORT_FEW = 24 };

static void sort_few(uint64_t *values, int64_t n) {
    for (int64_t i = 1; i < n; i++) {
        uint64_t value = values[i];
        int64_t at = i;
        for (; at > 0 && values[at - 1] > value; at--) values[at] = values[at - 1];
        values[at] = value;
    }
}

/* By bits from the top: hashes part in halves, so the depth is the logarithm of n, and 64 at most whatever they are. */
static void sort_bits(uint64_t *values, int64_t n, int bit) {
    while (n > SORT_FEW && bit >= 0) {
        int64_t low = 0, high = n;
        while (low < high) {
            uint64_t value = values[low];
            if (value >> bit & 1) {
                values[low] = values[--high];
                values[high] = value;
            } else {
                low++;
            }
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
        int64_t count, first, all = 0;
        if (!text_is_null(text, row)) {
            open_row(text, row, spec, scratch);
            while ((count = next_shingles(spec, scratch, &first)) > 0) {
                memcpy(values + written + all, scratch->grams + first, (size_t)count * sizeof *values);
                all += count;
            }
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
            for (int i = 0; i < per_band; i++) key = mix64_append(key, *at++, &MIX64_SECOND);
            *keys++ = key;
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
