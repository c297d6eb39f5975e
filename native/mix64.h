/* mix64, the default hash of n-grams. It is part of the output contract: the same on every platform and byte order.
 *
 *   mum(a, b)   the 128-bit product of two 64-bit words: its high and low halves
 *   fold(a, b)  high XOR low half of it
 *   w(i)        bytes i .. i+7 of a token as a little-endian word, bytes behind its end taken as 0
 *
 *   token of L bytes (UTF-8, L >= 1):
 *       s = 0; i = 0
 *       while L - i > 16:  s = fold(w(i) ^ C0 ^ s, w(i + 8) ^ C1);  i += 16
 *       (high, low) = mum(w(i) ^ C0 ^ s, w(i + 8) ^ C1)
 *       h = fold(low ^ C2 ^ L, high ^ C3)
 *   n-gram of tokens t1 .. tk:  g1 = h(t1);  gj = fold(g(j-1) ^ C4, h(tj) ^ C5)
 *   bucket = high half of g * buckets   (so buckets need not be a power of two, and no bit of g is favoured)
 *
 * C0 .. C5 are the first six 64-bit words of the fraction of pi. A product with 0 would lose the other factor; C0 and
 * C1 as eight bytes are not UTF-8, so no token of sixteen or fewer bytes can cancel them. The second set of constants,
 * the next six words, gives an independent hash; the two together (128 bits) name an n-gram in the cache of sha256.
 * It is not a cryptographic hash: who wants to collide it can.
 */
#ifndef CURATE_MIX64_H
#define CURATE_MIX64_H

#include <stdint.h>
#include <string.h>

#include "simd.h"

typedef struct {
    uint64_t c[6];
} mix64_constants;

static const mix64_constants MIX64_FIRST = {{
    UINT64_C(0x243f6a8885a308d3), UINT64_C(0x13198a2e03707344), UINT64_C(0xa4093822299f31d0),
    UINT64_C(0x082efa98ec4e6c89), UINT64_C(0x452821e638d01377), UINT64_C(0xbe5466cf34e90c6c),
}};
static const mix64_constants MIX64_SECOND = {{
    UINT64_C(0xc0ac29b7c97c50dd), UINT64_C(0x3f84d5b5b5470917), UINT64_C(0x9216d5d98979fb1b),
    UINT64_C(0xd1310ba698dfb5ac), UINT64_C(0x2ffd72dbd01adfb7), UINT64_C(0xb8e1afed6a267e96),
}};

/* MIX64_KEEP[L] keeps the first L of 16 bytes. */
#define K8 UINT64_MAX
static const uint64_t MIX64_KEEP[17][2] = {
    {0, 0},
    {UINT64_C(0xff), 0},
    {UINT64_C(0xffff), 0},
    {UINT64_C(0xffffff), 0},
    {UINT64_C(0xffffffff), 0},
    {UINT64_C(0xffffffffff), 0},
    {UINT64_C(0xffffffffffff), 0},
    {UINT64_C(0xffffffffffffff), 0},
    {K8, 0},
    {K8, UINT64_C(0xff)},
    {K8, UINT64_C(0xffff)},
    {K8, UINT64_C(0xffffff)},
    {K8, UINT64_C(0xffffffff)},
    {K8, UINT64_C(0xffffffffff)},
    {K8, UINT64_C(0xffffffffffff)},
    {K8, UINT64_C(0xffffffffffffff)},
    {K8, K8},
};
#undef K8

typedef struct {
    uint64_t high, low;
} mix64_product;

CURATE_INLINE mix64_product mix64_mum(uint64_t a, uint64_t b) {
#if defined(__SIZEOF_INT128__)
    __extension__ typedef unsigned __int128 wide;
    wide product = (wide)a * b;
    return (mix64_product){(uint64_t)(product >> 64), (uint64_t)product};
#else
    uint64_t a0 = (uint32_t)a, a1 = a >> 32, b0 = (uint32_t)b, b1 = b >> 32;
    uint64_t low = a0 * b0, middle = a1 * b0 + (low >> 32), cross = a0 * b1 + (uint32_t)middle;
    return (mix64_product){a1 * b1 + (middle >> 32) + (cross >> 32), cross << 32 | (uint32_t)low};
#endif
}

CURATE_INLINE uint64_t mix64_fold(uint64_t a, uint64_t b) {
    mix64_product product = mix64_mum(a, b);
    return product.high ^ product.low;
}

CURATE_INLINE uint64_t mix64_word(const uint8_t *p) {
#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    uint64_t word;
    memcpy(&word, p, 8);
    return word;
#else
    uint64_t word = 0;
    for (int i = 7; i >= 0; i--) word = word << 8 | p[i];
    return word;
#endif
}

/* The chain over all but the last 1..16 bytes of a long token. */
static inline uint64_t mix64_chain(const uint8_t *token, uint64_t bytes, const mix64_constants *k) {
    uint64_t chain = 0;
    for (; bytes > 16; bytes -= 16, token += 16)
        chain = mix64_fold(mix64_word(token) ^ k->c[0] ^ chain, mix64_word(token + 8) ^ k->c[1]);
    return chain;
}

/* Hash of one token of `bytes` >= 1; 15 bytes behind it must be readable. */
CURATE_INLINE uint64_t mix64_token(const uint8_t *token, uint64_t bytes, const mix64_constants *k) {
    uint64_t chain = 0, rest = bytes;
    if (CURATE_UNLIKELY(bytes > 16)) {
        chain = mix64_chain(token, bytes, k);
        rest = ((bytes - 1) & 15) + 1;
        token += bytes - rest;
    }
    uint64_t first = mix64_word(token) & MIX64_KEEP[rest][0];
    uint64_t second = mix64_word(token + 8) & MIX64_KEEP[rest][1];
    mix64_product product = mix64_mum(first ^ k->c[0] ^ chain, second ^ k->c[1]);
    return mix64_fold(product.low ^ k->c[2] ^ bytes, product.high ^ k->c[3]);
}

/* One more token behind an n-gram. */
CURATE_INLINE uint64_t mix64_append(uint64_t ngram, uint64_t token, const mix64_constants *k) {
    return mix64_fold(ngram ^ k->c[4], token ^ k->c[5]);
}

CURATE_INLINE uint32_t mix64_bucket(uint64_t ngram, uint64_t buckets) {
    return (uint32_t)mix64_mum(ngram, buckets).high;
}

#endif
