#include "textstats.h"

#include "mix64.h"
#include "simd.h"
#include "swar.h"

#if CURATE_X86
#include <immintrin.h>
#endif

/* Over 64 bytes: ASCII white space as str.isspace() has it, and the bytes that may begin a wider white space. */
typedef struct {
    uint64_t space, lead;
} space_masks;

typedef void (*find_kernel)(const uint8_t *in, space_masks *masks);

CURATE_INLINE void find_scalar(const uint8_t *in, space_masks *masks) {
    space_masks found = {0, 0};
    for (int i = 0; i < 64; i += 8) {
        uint64_t bytes = mix64_word(in + i), high = bytes & EIGHT(0x80), low7 = bytes & EIGHT(0x7f);
        uint64_t space = in_range_word(low7, '\t', '\r') | in_range_word(low7, 0x1c, ' ');
        uint64_t lead = in_range_word(low7, 0x42, 0x42) | in_range_word(low7, 0x61, 0x63); /* 0xc2, 0xe1 .. 0xe3 */
        found.space |= top_bits(space & ~high) << i;
        found.lead |= top_bits(lead & high) << i;
    }
    *masks = found;
}

#if CURATE_X86
CURATE_INLINE void find_sse2(const uint8_t *in, space_masks *masks) {
    space_masks found = {0, 0};
    for (int i = 0; i < 64; i += 16) {
        __m128i bytes = _mm_loadu_si128((const __m128i *)(in + i));
        __m128i tabs = _mm_cmpgt_epi8(_mm_add_epi8(bytes, _mm_set1_epi8(127 - '\r')), _mm_set1_epi8(122));
        __m128i spaces = _mm_cmpgt_epi8(_mm_add_epi8(bytes, _mm_set1_epi8(127 - ' ')), _mm_set1_epi8(122));
        found.space |= (uint64_t)(uint32_t)_mm_movemask_epi8(_mm_or_si128(tabs, spaces)) << i;
        found.lead |= (uint64_t)(uint32_t)_mm_movemask_epi8(bytes) << i;
    }
    if (found.lead) { /* not ASCII: which of those bytes are 0xc2 or 0xe1 .. 0xe3 */
        found.lead = 0;
        for (int i = 0; i < 64; i += 16) {
            __m128i bytes = _mm_loadu_si128((const __m128i *)(in + i));
            __m128i three = _mm_cmpgt_epi8(_mm_add_epi8(bytes, _mm_set1_epi8((char)(127 - 0xe3))), _mm_set1_epi8(124));
            __m128i lead = _mm_or_si128(three, _mm_cmpeq_epi8(bytes, _mm_set1_epi8((char)0xc2)));
            found.lead |= (uint64_t)(uint32_t)_mm_movemask_epi8(lead) << i;
        }
    }
    *masks = found;
}
#endif

/* Length of the white space character beyond ASCII that begins at p (2 or 3 bytes, all before end), or 0:
 * U+0085 U+00A0 U+1680 U+2000..200A U+2028 U+2029 U+202F U+205F U+3000. */
static inline int wide_space(const uint8_t *p, const uint8_t *end) {
    if (end - p < 2) return 0;
    if (p[0] == 0xc2) return p[1] == 0x85 || p[1] == 0xa0 ? 2 : 0;
    if (end - p < 3) return 0;
    if (p[0] == 0xe3) return p[1] == 0x80 && p[2] == 0x80 ? 3 : 0;
    if (p[0] == 0xe1) return p[1] == 0x9a && p[2] == 0x80 ? 3 : 0;
    if (p[1] == 0x81) return p[2] == 0x9f ? 3 : 0;
    if (p[1] != 0x80) return 0;
    return (p[2] >= 0x80 && p[2] <= 0x8a) || p[2] == 0xa8 || p[2] == 0xa9 || p[2] == 0xaf ? 3 : 0;
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

CURATE_INLINE int64_t words_of(const uint8_t *text, int64_t length, const uint8_t *readable_end, find_kernel find) {
    const uint8_t *end = text + length;
    uint64_t before = 1, pending = 0; /* before: the last byte was white space; pending: bits of one that runs over */
    int64_t words = 0;
    for (int64_t at = 0; at < length; at += 64) {
        const uint8_t *from = text + at;
        uint8_t tail[64];
        space_masks masks;
        if (CURATE_UNLIKELY(readable_end - from < 64)) {
            memset(tail, ' ', sizeof tail);
            memcpy(tail, from, (size_t)(length - at));
            from = tail;
        }
        find(from, &masks);
        if (length - at < 64) {
            masks.lead &= (UINT64_C(1) << (length - at)) - 1;
            masks.space |= ~UINT64_C(0) << (length - at);
        }
        masks.space |= pending;
        pending = 0;
        for (uint64_t left = masks.lead; left; left &= left - 1) {
            uint64_t first = left & (~left + 1);
            int position = count_bits(first - 1), bytes = wide_space(text + at + position, end);
            if (!bytes) continue;
            uint64_t range = (UINT64_C(1) << bytes) - 1;
            masks.space |= range << position;
            if (position + bytes > 64) pending |= range >> (64 - position);
        }
        words += count_bits(~masks.space & (masks.space << 1 | before));
        before = masks.space >> 63;
    }
    return words;
}

static int64_t words_scalar(const uint8_t *text, int64_t length, const uint8_t *readable_end) {
    return words_of(text, length, readable_end, find_scalar);
}
#if CURATE_X86
static int64_t words_sse2(const uint8_t *text, int64_t length, const uint8_t *readable_end) {
    return words_of(text, length, readable_end, find_sse2);
}
CURATE_TARGET_AVX2 static int64_t words_avx2(const uint8_t *text, int64_t length, const uint8_t *readable_end) {
    return words_of(text, length, readable_end, find_sse2);
}
#endif

void text_stats(const curate_text *text, int simd, int64_t *bytes, int64_t *words) {
    int64_t (*count)(const uint8_t *, int64_t, const uint8_t *) = words_scalar;
#if CURATE_X86
    if (simd & SIMD_AVX2) count = words_avx2; /* the same code with popcnt */
    else if (simd & SIMD_SSE2) count = words_sse2;
#else
    (void)simd;
#endif
    const uint8_t *readable_end = text->length ? text->data + text_offset(text, text->length) : NULL;
    for (int64_t row = 0; row < text->length; row++) {
        int64_t start = text_offset(text, row);
        bytes[row] = words[row] = 0;
        if (text_is_null(text, row)) continue;
        bytes[row] = text_offset(text, row + 1) - start;
        words[row] = count(text->data + start, bytes[row], readable_end);
    }
}
