/* What 64 bytes are, as bits: 64 bytes must be readable. Bytes beyond ASCII are `high` and nothing else. */
#ifndef CURATE_BLOCKBITS_H
#define CURATE_BLOCKBITS_H

#include <stdint.h>

#include "simd.h"

#if CURATE_X86
#include <immintrin.h>
#endif

/* Bits of 64 bytes, bit i = byte i. */
typedef struct {
    uint64_t space, letter, alnum, feed, hash, dot, high;
} block_bits;

#if CURATE_X86
/* lo..hi by one addition that moves hi to 127 and one signed compare; bytes >= 0x80 stay small. */
CURATE_INLINE __m128i within(__m128i bytes, int lo, int hi) {
    __m128i moved = _mm_add_epi8(bytes, _mm_set1_epi8((char)(127 - hi)));
    return _mm_cmpgt_epi8(moved, _mm_set1_epi8((char)(126 - (hi - lo))));
}

CURATE_INLINE uint64_t bits_of(__m128i mask) { return (uint32_t)_mm_movemask_epi8(mask); }
CURATE_INLINE uint64_t bits_equal(__m128i bytes, char c) { return bits_of(_mm_cmpeq_epi8(bytes, _mm_set1_epi8(c))); }

CURATE_INLINE block_bits block_of(const uint8_t *p) {
    block_bits b = {0};
    for (int i = 0; i < 64; i += 16) {
        __m128i bytes = _mm_loadu_si128((const __m128i *)(p + i));
        __m128i letter = within(_mm_or_si128(bytes, _mm_set1_epi8(0x20)), 'a', 'z');
        b.high |= bits_of(bytes) << i;
        b.letter |= bits_of(letter) << i;
        b.alnum |= bits_of(_mm_or_si128(letter, within(bytes, '0', '9'))) << i;
        b.space |= bits_of(_mm_or_si128(within(bytes, '\t', '\r'), within(bytes, 0x1c, ' '))) << i;
        b.feed |= bits_equal(bytes, '\n') << i;
        b.hash |= bits_equal(bytes, '#') << i;
        b.dot |= bits_equal(bytes, '.') << i;
    }
    return b;
}
#else
CURATE_INLINE block_bits block_of(const uint8_t *p) {
    block_bits b = {0};
    for (int i = 0; i < 64; i++) {
        uint64_t bit = UINT64_C(1) << i;
        int letter = (p[i] | 0x20) >= 'a' && (p[i] | 0x20) <= 'z';
        if ((p[i] >= '\t' && p[i] <= '\r') || (p[i] >= 0x1c && p[i] <= ' ')) b.space |= bit;
        if (letter) b.letter |= bit;
        if (letter || (p[i] >= '0' && p[i] <= '9')) b.alnum |= bit;
        if (p[i] == '\n') b.feed |= bit;
        if (p[i] == '#') b.hash |= bit;
        if (p[i] == '.') b.dot |= bit;
        if (p[i] >= 0x80) b.high |= bit;
    }
    return b;
}
#endif

CURATE_INLINE int lowest(uint64_t bits) {
#if defined(__GNUC__)
    return __builtin_ctzll(bits);
#else
    int at = 0;
    while (!(bits >> at & 1)) at++;
    return at;
#endif
}

CURATE_INLINE int highest(uint64_t bits) {
#if defined(__GNUC__)
    return 63 - __builtin_clzll(bits);
#else
    int at = 63;
    while (!(bits >> at & 1)) at--;
    return at;
#endif
}

CURATE_INLINE uint64_t below(int bit) { return (UINT64_C(1) << bit) - 1; } /* bit < 64 */

#endif
