/* Eight bytes at a time in a plain word, for processors whose vectors are not used.
 *
 * EIGHT(b) repeats a byte. A range test on bytes below 0x80 leaves its answer in the top bit of each:
 * x + (0x80 - lo) sets it from lo on, x + (0x7f - hi) from hi + 1 on, and no byte carries into the next.
 */
#ifndef CURATE_SWAR_H
#define CURATE_SWAR_H

#include <stdint.h>

#include "simd.h"

#define EIGHT(byte) (UINT64_C(0x0101010101010101) * (uint64_t)(byte))

CURATE_INLINE uint64_t in_range_word(uint64_t low7, unsigned lo, unsigned hi) {
    return (low7 + EIGHT(0x80 - lo)) & ~(low7 + EIGHT(0x7f - hi)) & EIGHT(0x80);
}

/* The top bit of byte i becomes bit i: the product moves them side by side into the top byte. */
CURATE_INLINE uint64_t top_bits(uint64_t word) { return ((word >> 7) * UINT64_C(0x0102040810204080)) >> 56; }

#endif
