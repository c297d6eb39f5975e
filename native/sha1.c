#include "sha1.h"

#include <string.h>

#include "simd.h"

static inline uint32_t turn(uint32_t x, int by) { return x << by | x >> (32 - by); }

static inline uint32_t big_endian(const uint8_t *p) {
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

/* FIPS 180-4, section 6.1.2. */
static void block(uint32_t h[5], const uint8_t *p) {
    uint32_t w[80];
    for (int t = 0; t < 16; t++) w[t] = big_endian(p + 4 * t);
    for (int t = 16; t < 80; t++) w[t] = turn(w[t - 3] ^ w[t - 8] ^ w[t - 14] ^ w[t - 16], 1);
    uint32_t a = h[0], b = h[1], c = h[2], d = h[3], e = h[4];
    for (int t = 0; t < 80; t++) {
        uint32_t f, k;
        if (t < 20) f = (b & c) ^ (~b & d), k = UINT32_C(0x5a827999);
        else if (t < 40) f = b ^ c ^ d, k = UINT32_C(0x6ed9eba1);
        else if (t < 60) f = (b & c) ^ (b & d) ^ (c & d), k = UINT32_C(0x8f1bbcdc);
        else f = b ^ c ^ d, k = UINT32_C(0xca62c1d6);
        uint32_t next = turn(a, 5) + f + e + k + w[t];
        e = d, d = c, c = turn(b, 30), b = a, a = next;
    }
    h[0] += a, h[1] += b, h[2] += c, h[3] += d, h[4] += e;
}

uint32_t sha1_first(const uint8_t *message, int64_t bytes) {
    uint32_t h[5] = {UINT32_C(0x67452301), UINT32_C(0xefcdab89), UINT32_C(0x98badcfe), UINT32_C(0x10325476),
                     UINT32_C(0xc3d2e1f0)};
    uint8_t last[128] = {0};
    int64_t left = bytes;
    for (; left >= 64; left -= 64, message += 64) block(h, message);
    memcpy(last, message, (size_t)left);
    last[left] = 0x80;
    int64_t end = left < 56 ? 64 : 128;
    for (int i = 0; i < 8; i++) last[end - 1 - i] = (uint8_t)((uint64_t)bytes * 8 >> (8 * i));
    block(h, last);
    if (end == 128) block(h, last + 64);
    return h[0] >> 24 | (h[0] >> 8 & 0xff00u) | (h[0] << 8 & 0xff0000u) | h[0] << 24;
}
