#include "tokens.h"

#include "mix64.h"
#include "simd.h"
#include "swar.h"
#include "unicode_tables.h"

#if CURATE_X86
#include <immintrin.h>
#endif

/* Masks over the bytes of a block, bit i = byte i. */
typedef struct {
    uint64_t word, space, high; /* high: not ASCII; such a byte is neither word nor space */
} block_masks;

/* Classify 64 bytes and store them lower-cased; space_low is the first of the run of spaces that ends at ' '. */
typedef void (*classify_kernel)(const uint8_t *in, uint8_t *out, uint8_t space_low, block_masks *masks);

CURATE_INLINE void classify_scalar(const uint8_t *in, uint8_t *out, uint8_t space_low, block_masks *masks) {
    block_masks found = {0, 0, 0};
    for (int i = 0; i < 64; i += 8) {
        uint64_t bytes = mix64_word(in + i), high = bytes & EIGHT(0x80), low7 = bytes & EIGHT(0x7f);
        uint64_t upper = in_range_word(low7, 'A', 'Z') & ~high;
        uint64_t lower = bytes | upper >> 2; /* 0x80 >> 2 is 0x20 */
        uint64_t word = in_range_word(lower & EIGHT(0x7f), 'a', 'z') | in_range_word(low7, '0', '9') |
                        in_range_word(low7, '_', '_');
        uint64_t space = in_range_word(low7, '\t', '\r') | in_range_word(low7, space_low, ' ');
        for (int k = 0; k < 8; k++) out[i + k] = (uint8_t)(lower >> (8 * k));
        found.word |= top_bits(word & ~high) << i;
        found.space |= top_bits(space & ~high) << i;
        found.high |= top_bits(high) << i;
    }
    *masks = found;
}

#if CURATE_X86
/* A range lo..hi is one addition that moves hi to 127 and one signed compare; bytes >= 0x80 stay negative or small. */
CURATE_INLINE __m128i in_range_sse2(__m128i bytes, int lo, int hi) {
    __m128i moved = _mm_add_epi8(bytes, _mm_set1_epi8((char)(127 - hi)));
    return _mm_cmpgt_epi8(moved, _mm_set1_epi8((char)(126 - (hi - lo))));
}

CURATE_INLINE void classify_sse2(const uint8_t *in, uint8_t *out, uint8_t space_low, block_masks *masks) {
    block_masks found = {0, 0, 0};
    const __m128i bit5 = _mm_set1_epi8(0x20);
    for (int i = 0; i < 64; i += 16) {
        __m128i bytes = _mm_loadu_si128((const __m128i *)(in + i));
        __m128i upper = in_range_sse2(bytes, 'A', 'Z');
        __m128i lower = _mm_or_si128(bytes, _mm_and_si128(upper, bit5));
        __m128i word = _mm_or_si128(in_range_sse2(lower, 'a', 'z'), in_range_sse2(bytes, '0', '9'));
        word = _mm_or_si128(word, _mm_cmpeq_epi8(bytes, _mm_set1_epi8('_')));
        __m128i space = _mm_or_si128(in_range_sse2(bytes, '\t', '\r'), in_range_sse2(bytes, space_low, ' '));
        _mm_storeu_si128((__m128i *)(out + i), lower);
        found.word |= (uint64_t)(uint32_t)_mm_movemask_epi8(word) << i;
        found.space |= (uint64_t)(uint32_t)_mm_movemask_epi8(space) << i;
        found.high |= (uint64_t)(uint32_t)_mm_movemask_epi8(bytes) << i;
    }
    *masks = found;
}

CURATE_TARGET_AVX2 static inline __m256i in_range_avx2(__m256i bytes, int lo, int hi) {
    __m256i moved = _mm256_add_epi8(bytes, _mm256_set1_epi8((char)(127 - hi)));
    return _mm256_cmpgt_epi8(moved, _mm256_set1_epi8((char)(126 - (hi - lo))));
}

CURATE_TARGET_AVX2 static inline void classify_avx2(const uint8_t *in, uint8_t *out, uint8_t space_low,
                                                    block_masks *masks) {
    block_masks found = {0, 0, 0};
    const __m256i bit5 = _mm256_set1_epi8(0x20);
    for (int i = 0; i < 64; i += 32) {
        __m256i bytes = _mm256_loadu_si256((const __m256i *)(in + i));
        __m256i upper = in_range_avx2(bytes, 'A', 'Z');
        __m256i lower = _mm256_or_si256(bytes, _mm256_and_si256(upper, bit5));
        __m256i word = _mm256_or_si256(in_range_avx2(lower, 'a', 'z'), in_range_avx2(bytes, '0', '9'));
        word = _mm256_or_si256(word, _mm256_cmpeq_epi8(bytes, _mm256_set1_epi8('_')));
        __m256i space = _mm256_or_si256(in_range_avx2(bytes, '\t', '\r'), in_range_avx2(bytes, space_low, ' '));
        _mm256_storeu_si256((__m256i *)(out + i), lower);
        found.word |= (uint64_t)(uint32_t)_mm256_movemask_epi8(word) << i;
        found.space |= (uint64_t)(uint32_t)_mm256_movemask_epi8(space) << i;
        found.high |= (uint64_t)(uint32_t)_mm256_movemask_epi8(bytes) << i;
    }
    *masks = found;
}

/* Comparisons give masks at once. */
CURATE_TARGET_AVX512 static inline __mmask64 in_range_avx512(__m512i bytes, int lo, int hi) {
    return _mm512_cmple_epu8_mask(_mm512_sub_epi8(bytes, _mm512_set1_epi8((char)lo)), _mm512_set1_epi8((char)(hi - lo)));
}

CURATE_TARGET_AVX512 static inline void classify_avx512(const uint8_t *in, uint8_t *out, uint8_t space_low,
                                                        block_masks *masks) {
    __m512i bytes = _mm512_loadu_si512(in), case_bit = _mm512_set1_epi8(0x20);
    __m512i lower = _mm512_mask_add_epi8(bytes, in_range_avx512(bytes, 'A', 'Z'), bytes, case_bit);
    _mm512_storeu_si512(out, lower);
    masks->word = in_range_avx512(lower, 'a', 'z') | in_range_avx512(bytes, '0', '9') |
                  _mm512_cmpeq_epi8_mask(bytes, _mm512_set1_epi8('_'));
    masks->space = in_range_avx512(bytes, '\t', '\r') | in_range_avx512(bytes, space_low, ' ');
    masks->high = _mm512_movepi8_mask(bytes);
}
#endif

CURATE_INLINE int lowest_bit(uint64_t bits) {
#if defined(__GNUC__)
    return __builtin_ctzll(bits);
#else
    int at = 0;
    while (!((bits >> at) & 1)) at++;
    return at;
#endif
}

CURATE_INLINE int count_bits(uint64_t bits) {
#if defined(__GNUC__)
    return __builtin_popcountll(bits);
#else
    int count = 0;
    for (; bits; bits &= bits - 1) count++;
    return count;
#endif
}

CURATE_INLINE uint64_t low_bits(int64_t n) { return n >= 64 ? ~UINT64_C(0) : (UINT64_C(1) << n) - 1; }

/* ---------------------------------------------------------------- characters beyond ASCII */

/* Bytes of the well-formed character at p (1..4) and its code point; 0 if there is none before `end`. */
static inline int decode(const uint8_t *p, const uint8_t *end, uint32_t *code) {
    int64_t left = end - p;
    uint32_t first = p[0];
    if (first < 0x80) return *code = first, 1;
    if (left < 2 || first < 0xc2 || (p[1] & 0xc0) != 0x80) return 0;
    if (first < 0xe0) return *code = (first & 0x1f) << 6 | (p[1] & 0x3fu), 2;
    if (left < 3 || (p[2] & 0xc0) != 0x80) return 0;
    if (first < 0xf0) {
        uint32_t value = (first & 0x0f) << 12 | (p[1] & 0x3fu) << 6 | (p[2] & 0x3fu);
        if (value < 0x800 || (value >= 0xd800 && value <= 0xdfff)) return 0;
        return *code = value, 3;
    }
    if (left < 4 || first > 0xf4 || (p[3] & 0xc0) != 0x80) return 0;
    uint32_t value = (first & 0x07) << 18 | (p[1] & 0x3fu) << 12 | (p[2] & 0x3fu) << 6 | (p[3] & 0x3fu);
    if (value < 0x10000 || value > 0x10ffff) return 0;
    return *code = value, 4;
}

static inline int encoded_bytes(uint32_t code) { return code < 0x80 ? 1 : code < 0x800 ? 2 : code < 0x10000 ? 3 : 4; }

static inline int encode(uint32_t code, uint8_t *out) {
    int bytes = encoded_bytes(code);
    if (bytes == 1) return out[0] = (uint8_t)code, 1;
    for (int i = bytes - 1; i > 0; i--, code >>= 6) out[i] = (uint8_t)(0x80 | (code & 0x3f));
    out[0] = (uint8_t)(code | (bytes == 2 ? 0xc0 : bytes == 3 ? 0xe0 : 0xf0));
    return bytes;
}

static inline unicode_record record_of(uint32_t code) {
    return unicode_records[unicode_stage2[unicode_stage1[code >> 7] * 128 + (code & 127)]];
}

enum { BESIDE_NEITHER = 0, BESIDE_CASED = 1, BESIDE_IGNORABLE = 2 };

static int beside_sigma(uint32_t code) { return (record_of(code).flags >> 4) & 3; }

/* The rule of final sigma: a cased letter before it and none after, case-ignorable characters not counting. Each run of
 * them is walked at most twice per document, since a sigma itself ends a walk. */
static int sigma_is_final(const uint8_t *input, int64_t length, int64_t at) {
    const uint8_t *end = input + length, *p = input + at;
    uint32_t code = 0;
    int role = BESIDE_NEITHER;
    while (p > input) {
        const uint8_t *here = p - 1;
        while (here > input && p - here < 4 && (*here & 0xc0) == 0x80) here--;
        if (decode(here, p, &code) != p - here) return 0; /* a bad byte is neither cased nor ignorable */
        role = beside_sigma(code);
        if (role != BESIDE_IGNORABLE) break;
        p = here;
    }
    if (p == input || role != BESIDE_CASED) return 0;
    for (p = input + at + 2; p < end;) { /* a capital sigma takes two bytes */
        int bytes = decode(p, end, &code);
        if (!bytes) return 1;
        role = beside_sigma(code);
        if (role != BESIDE_IGNORABLE) return role != BESIDE_CASED;
        p += bytes;
    }
    return 1;
}

/* One character lower-cased: up to two code points, each with its class. */
typedef struct {
    int bytes_in; /* of the character in the text */
    int count;
    uint32_t code[2];
    int class_[2];
} lowered;

enum { CLASS_OTHER = 0, CLASS_WORD = 1, CLASS_SPACE = 2 };

static int class_of(uint32_t code, int regex_class) { return (record_of(code).flags >> (regex_class ? 2 : 0)) & 3; }

int tokens_character(const uint8_t *p, const uint8_t *end, uint32_t *code, int *class_) {
    int bytes = decode(p, end, code);
    *class_ = bytes ? class_of(*code, 0) : CLASS_OTHER;
    return bytes;
}

enum { FLAG_TWO = 1 << 6, FLAG_SIGMA = 1 << 7 };

int tokens_upper(uint32_t code) {
    unicode_record record = record_of(code);
    return record.lower_delta != 0 || (record.flags & (FLAG_TWO | FLAG_SIGMA));
}

static lowered lower_special(const token_stream *stream, int64_t at, uint32_t code, int bytes_in, int flags) {
    lowered result = {.bytes_in = bytes_in, .count = 1};
    result.code[0] = (uint32_t)((int32_t)code + record_of(code).lower_delta);
    if (flags & FLAG_SIGMA) {
        if (sigma_is_final(stream->input, stream->length, at)) result.code[0] = 0x3c2;
    } else if (flags & FLAG_TWO) {
        result.count = 2;
        result.code[0] = 'i';
        result.code[1] = 0x307;
    }
    for (int i = 0; i < result.count; i++) result.class_[i] = class_of(result.code[i], stream->rules.regex_class);
    return result;
}

/* ---------------------------------------------------------------- blocks */

/* Masks over up to 64 bytes of lower-cased text that were just stored behind lower_length. */
typedef struct {
    uint64_t word, space, lead; /* lead: first byte of a character */
    uint64_t unspaced;          /* of characters that are tokens of their own; scripts and terms only */
    int64_t bytes_in, bytes_out;
} block;

/* The rare character whose lower case has another number of bytes, or two characters: a block of its own. */
static void block_of_one(token_stream *stream, const lowered *character, block *out) {
    uint8_t *to = stream->lower + stream->lower_length;
    *out = (block){.bytes_in = character->bytes_in};
    for (int i = 0; i < character->count; i++) {
        int bytes = encode(character->code[i], to + out->bytes_out);
        uint64_t range = low_bits(bytes) << out->bytes_out;
        out->lead |= UINT64_C(1) << out->bytes_out;
        if (character->class_[i] == CLASS_WORD) out->word |= range;
        if (character->class_[i] == CLASS_SPACE) out->space |= range;
        out->bytes_out += bytes;
    }
}

/* A block with bytes beyond ASCII. On entry `masks` holds its ASCII part and the 64 bytes are stored as they are;
 * the block is cut before a character that does not end in it or does not keep its number of bytes. */
static void block_mixed(token_stream *stream, const block_masks *masks, block *out) {
    const uint8_t *from = stream->input + stream->at, *end = stream->input + stream->length;
    uint8_t *to = stream->lower + stream->lower_length;
    int shift = stream->rules.regex_class ? 2 : 0;
    uint64_t word = masks->word, space = masks->space, lead = ~UINT64_C(0), unspaced = 0;
    int scripts = stream->rules.chars == TOKENS_SCRIPTS || stream->rules.chars == TOKENS_TERMS;
    int64_t n = out->bytes_in;
    for (uint64_t left = masks->high & low_bits(n); left;) {
        int at = lowest_bit(left);
        uint32_t code = 0;
        int bytes = decode(from + at, end, &code);
        if (!bytes) { /* a bad byte stays, as punctuation */
            left &= left - 1;
            continue;
        }
        if (at + bytes > n) {
            n = at;
            break;
        }
        unicode_record record = record_of(code);
        if (record.lower_delta | (record.flags & (FLAG_TWO | FLAG_SIGMA))) {
            lowered character = lower_special(stream, stream->at + at, code, bytes, record.flags);
            if (character.count != 1 || encoded_bytes(character.code[0]) != bytes) {
                if (at == 0) {
                    block_of_one(stream, &character, out);
                    return;
                }
                n = at;
                break;
            }
            encode(character.code[0], to + at);
        }
        uint64_t range = low_bits(bytes) << at;
        int class_ = (record.flags >> shift) & 3;
        word |= class_ & CLASS_WORD ? range : 0;
        space |= class_ & CLASS_SPACE ? range : 0;
        lead &= ~(range & ~(UINT64_C(1) << at));
        if (scripts && tokens_unspaced(code)) unspaced |= range;
        left &= ~range;
    }
    *out = (block){.word = word, .space = space, .lead = lead, .unspaced = unspaced, .bytes_in = n, .bytes_out = n};
}

/* Four at a time: how often the loop turns then varies less from block to block than the number of bits does, and is
 * predicted better. Up to three positions too many are written; the next block overwrites them. */
CURATE_INLINE int64_t write_positions(uint64_t bits, uint32_t base, uint32_t *out, int64_t n) {
    int64_t end = n + count_bits(bits);
    for (; n < end; n += 4) {
        for (int i = 0; i < 4; i++) {
            out[n + i] = base + (uint32_t)lowest_bit(bits | UINT64_C(1) << 63);
            bits &= bits - 1;
        }
    }
    return end;
}

#if CURATE_X86
/* Sixteen at a time, without asking how many there are: up to sixteen positions too many are written. */
CURATE_TARGET_AVX512 static inline int64_t write_positions_avx512(uint64_t bits, uint32_t base, uint32_t *out,
                                                                  int64_t n) {
    __m512i place = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    place = _mm512_add_epi32(place, _mm512_set1_epi32((int)base));
    for (int i = 0; i < 4; i++, bits >>= 16) {
        __mmask16 some = (__mmask16)bits;
        _mm512_storeu_si512(out + n, _mm512_maskz_compress_epi32(some, place));
        n += count_bits(some);
        place = _mm512_add_epi32(place, _mm512_set1_epi32(16));
    }
    return n;
}
#endif

typedef int64_t (*positions_kernel)(uint64_t bits, uint32_t base, uint32_t *out, int64_t n);

/* Token starts and ends of a block, by where its classes change. */
CURATE_INLINE void block_finish(token_stream *stream, const block *found, positions_kernel write) {
    int64_t n = found->bytes_out;
    uint64_t valid = low_bits(n), starts, ends;
    if (stream->rules.chars == TOKENS_CHARS) {
        uint64_t inside = ~found->space & valid;
        starts = found->lead & inside;
        ends = found->lead & (inside << 1 | stream->carry_first) & valid;
        stream->carry_first = inside >> (n - 1) & 1;
    } else if (stream->rules.chars == TOKENS_WORDS) {
        uint64_t inside = ~found->space & valid, before = inside << 1 | stream->carry_first;
        starts = inside & ~before;
        ends = ~inside & before & valid;
        stream->carry_first = inside >> (n - 1) & 1;
    } else if (stream->rules.chars == TOKENS_SCRIPTS || stream->rules.chars == TOKENS_TERMS) {
        uint64_t inside = (stream->rules.chars == TOKENS_TERMS ? found->word : ~found->space) & valid;
        uint64_t alone = found->unspaced & inside, run = inside & ~alone;
        uint64_t run_before = run << 1 | stream->carry_first, alone_before = alone << 1 | stream->carry_second;
        starts = (run & ~run_before) | (alone & found->lead);
        ends = ((~run & run_before) | (found->lead & alone_before)) & valid;
        stream->carry_first = run >> (n - 1) & 1;
        stream->carry_second = alone >> (n - 1) & 1;
    } else {
        uint64_t word = found->word & valid, other = ~(found->word | found->space) & valid;
        uint64_t word_before = word << 1 | stream->carry_first, other_before = other << 1 | stream->carry_second;
        starts = (word & ~word_before) | (other & ~other_before);
        ends = ((~word & word_before) | (~other & other_before)) & valid;
        stream->carry_first = word >> (n - 1) & 1;
        stream->carry_second = other >> (n - 1) & 1;
    }
    uint32_t base = (uint32_t)stream->lower_length;
    stream->n_starts = write(starts, base, stream->starts, stream->n_starts);
    stream->n_ends = write(ends, base, stream->ends, stream->n_ends);
    stream->at += found->bytes_in;
    stream->lower_length += n;
}

CURATE_INLINE void fill(token_stream *stream, classify_kernel classify, positions_kernel write) {
    uint8_t space_low = stream->rules.regex_class ? 0x20 : 0x1c; /* `re` takes \x1c..\x1f for spaces */
    while (stream->at < stream->length && stream->n_starts < TOKENS_HISTORY + TOKENS_BATCH) {
        const uint8_t *from = stream->input + stream->at;
        int64_t left = stream->length - stream->at;
        uint8_t tail[64];
        block_masks masks;
        if (CURATE_UNLIKELY(stream->readable_end - from < 64)) { /* never read behind the buffer */
            memset(tail, ' ', sizeof tail);
            memcpy(tail, from, (size_t)left);
            from = tail;
        }
        classify(from, stream->lower + stream->lower_length, space_low, &masks);
        int64_t n = left < 64 ? left : 64;
        block found = {.word = masks.word, .space = masks.space, .lead = ~UINT64_C(0), .bytes_in = n, .bytes_out = n};
        if (masks.high & low_bits(n)) block_mixed(stream, &masks, &found);
        block_finish(stream, &found, write);
    }
    if (stream->at == stream->length && (stream->carry_first | stream->carry_second)) {
        stream->ends[stream->n_ends++] = (uint32_t)stream->lower_length;
        stream->carry_first = stream->carry_second = 0;
    }
}

static void fill_scalar(token_stream *stream) { fill(stream, classify_scalar, write_positions); }
#if CURATE_X86
static void fill_sse2(token_stream *stream) { fill(stream, classify_sse2, write_positions); }
CURATE_TARGET_AVX2 static void fill_avx2(token_stream *stream) { fill(stream, classify_avx2, write_positions); }
CURATE_TARGET_AVX512 static void fill_avx512(token_stream *stream) {
    fill(stream, classify_avx512, write_positions_avx512);
}
#endif

int tokens_is_alone(const uint8_t *token, int64_t bytes) {
    uint32_t code = 0;
    return decode(token, token + bytes, &code) && tokens_unspaced(code);
}

tokens_scripts tokens_count_scripts(const uint8_t *text, int64_t bytes) {
    /* Unspaced characters take three bytes or four, so those that do are a bound from above; those that take two may be
     * white space (U+0085, U+00A0), and of ASCII what is ' ' or below may be. */
    int64_t high = 0, plain = 0;
    for (int64_t at = 0; at < bytes;) {
        int64_t stop = bytes - at < 65536 ? bytes : at + 65536;
        uint32_t some_high = 0, some_plain = 0;
        for (; at < stop; at++) {
            some_high += text[at] >= 0xe0;
            some_plain += text[at] > ' ' && text[at] < 0x80;
        }
        high += some_high;
        plain += some_plain;
    }
    tokens_scripts found = {0, 0};
    if (high <= plain) return found;
    const uint8_t *end = text + bytes;
    while (text < end) {
        uint32_t code = 0;
        int length = decode(text, end, &code);
        text += length ? length : 1;
        if (!length || class_of(code, 0) == CLASS_SPACE) continue;
        found.characters++;
        found.unspaced += tokens_unspaced(code);
    }
    return found;
}

void tokens_open(token_stream *stream, const uint8_t *input, int64_t length, const uint8_t *readable_end) {
    stream->input = input;
    stream->length = length;
    stream->readable_end = readable_end;
    stream->at = stream->lower_length = 0;
    stream->carry_first = stream->carry_second = 0;
    stream->n_starts = stream->n_ends = stream->history = 0;
}

int64_t tokens_next(token_stream *stream, int64_t keep) {
    /* Keep the last `keep` complete tokens and the one that is still open, if any. */
    int64_t drop = stream->n_ends > keep ? stream->n_ends - keep : 0;
    stream->n_starts -= drop;
    stream->n_ends -= drop;
    stream->history = stream->n_ends;
    memmove(stream->starts, stream->starts + drop, (size_t)stream->n_starts * sizeof *stream->starts);
    memmove(stream->ends, stream->ends + drop, (size_t)stream->n_ends * sizeof *stream->ends);
    while (stream->n_ends == stream->history && stream->at < stream->length) {
#if CURATE_X86
        if (stream->rules.simd & SIMD_AVX512) fill_avx512(stream);
        else if (stream->rules.simd & SIMD_AVX2) fill_avx2(stream);
        else if (stream->rules.simd & SIMD_SSE2) fill_sse2(stream);
        else fill_scalar(stream);
#else
        fill_scalar(stream);
#endif
    }
    return stream->n_ends - stream->history;
}
