#include "sha256.h"

#include <string.h>

#include "simd.h"

#if CURATE_X86
#include <immintrin.h>
#endif

/* The first 32 bits of the fractions of the cube roots of the first 64 primes. */
static const uint32_t ROUND[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
};

/* The first 32 bits of the fractions of the square roots of the first 8 primes. */
static const uint32_t START[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                  0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};

static inline uint32_t big_endian(const uint8_t *p) {
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

/* All rounds, for words or for vectors of words, one message in each lane. Letter a of round i stands in s[-i & 7],
 * b in the next place and so on, so that nothing is moved when the loop is unrolled; w is a ring of 16 words. */
#define ROTATE(x, by) ((x) >> (by) | (x) << (32 - (by)))
#define SHA256_ROUNDS(word_type, s, w)                                                                      \
    for (int i = 0; i < 64; i++) {                                                                          \
        word_type a = s[-i & 7], b = s[(1 - i) & 7], c = s[(2 - i) & 7], e = s[(4 - i) & 7];                \
        word_type f = s[(5 - i) & 7], g = s[(6 - i) & 7], early = w[(i + 1) & 15], late = w[(i + 14) & 15]; \
        word_type t1 = s[(7 - i) & 7] + (ROTATE(e, 6) ^ ROTATE(e, 11) ^ ROTATE(e, 25)) + ROUND[i] +         \
                       w[i & 15] + ((e & f) ^ (~e & g));                                                    \
        s[(3 - i) & 7] += t1;                                                                               \
        s[(7 - i) & 7] = t1 + (ROTATE(a, 2) ^ ROTATE(a, 13) ^ ROTATE(a, 22)) + ((a & b) ^ (a & c) ^ (b & c)); \
        w[i & 15] += (ROTATE(early, 7) ^ ROTATE(early, 18) ^ early >> 3) + w[(i + 9) & 15] +                \
                     (ROTATE(late, 17) ^ ROTATE(late, 19) ^ late >> 10);                                    \
    }

static void compress_portable(uint32_t h[8], const uint8_t block[64]) {
    uint32_t s[8], w[16];
    memcpy(s, h, sizeof s);
    for (int i = 0; i < 16; i++) w[i] = big_endian(block + 4 * i);
#if defined(__GNUC__)
#pragma GCC unroll 16
#endif
    SHA256_ROUNDS(uint32_t, s, w)
    for (int i = 0; i < 8; i++) h[i] += s[i];
}

#if defined(__GNUC__)
/* Eight words at once: the compiler splits the vector into what the target has. */
typedef uint32_t eight_words __attribute__((vector_size(4 * SHA256_LANES)));

CURATE_INLINE void short_lanes(uint8_t blocks[SHA256_LANES][64], uint32_t digests[SHA256_LANES][8]) {
    eight_words s[8], w[16];
    for (int i = 0; i < 8; i++) s[i] = (eight_words){0} + START[i];
    for (int i = 0; i < 16; i++)
        for (int l = 0; l < SHA256_LANES; l++) w[i][l] = big_endian(blocks[l] + 4 * i);
#pragma GCC unroll 16
    SHA256_ROUNDS(eight_words, s, w)
    for (int i = 0; i < 8; i++) {
        eight_words sum = s[i] + START[i];
        for (int l = 0; l < SHA256_LANES; l++) digests[l][i] = sum[l];
    }
}
#else
CURATE_INLINE void short_lanes(uint8_t blocks[SHA256_LANES][64], uint32_t digests[SHA256_LANES][8]) {
    for (int l = 0; l < SHA256_LANES; l++) {
        memcpy(digests[l], START, sizeof START);
        compress_portable(digests[l], blocks[l]);
    }
}
#endif

static void short_baseline(uint8_t blocks[SHA256_LANES][64], uint32_t digests[SHA256_LANES][8]) {
    short_lanes(blocks, digests);
}

#if CURATE_X86
CURATE_TARGET_AVX2 static void short_avx2(uint8_t blocks[SHA256_LANES][64], uint32_t digests[SHA256_LANES][8]) {
    short_lanes(blocks, digests);
}

/* The SHA instructions keep a state as two vectors, {a,b,e,f} and {c,d,g,h} from the highest lane down; each
 * _mm_sha256rnds2 does two rounds with the low half of message + constants. w holds the last 16 message words.
 * `side` messages go side by side, so that one's latency hides behind the other's. */
CURATE_TARGET_SHA static inline void compress_sha(uint32_t (*h)[8], const uint8_t (*blocks)[64], const int side) {
    const __m128i swap = _mm_set_epi64x(0x0c0d0e0f08090a0bLL, 0x0405060700010203LL);
    __m128i abef[2], cdgh[2], w[2][4];
    for (int m = 0; m < side; m++) {
        __m128i cdab = _mm_shuffle_epi32(_mm_loadu_si128((const __m128i *)h[m]), 0xb1);
        __m128i efgh = _mm_shuffle_epi32(_mm_loadu_si128((const __m128i *)(h[m] + 4)), 0x1b);
        abef[m] = _mm_alignr_epi8(cdab, efgh, 8);
        cdgh[m] = _mm_blend_epi16(efgh, cdab, 0xf0);
        for (int i = 0; i < 4; i++)
            w[m][i] = _mm_shuffle_epi8(_mm_loadu_si128((const __m128i *)(blocks[m] + 16 * i)), swap);
    }
#pragma GCC unroll 16
    for (int i = 0; i < 16; i++) {
        for (int m = 0; m < side; m++) {
            __m128i rounds = _mm_add_epi32(w[m][i & 3], _mm_loadu_si128((const __m128i *)(ROUND + 4 * i)));
            cdgh[m] = _mm_sha256rnds2_epu32(cdgh[m], abef[m], rounds);
            abef[m] = _mm_sha256rnds2_epu32(abef[m], cdgh[m], _mm_shuffle_epi32(rounds, 0x0e));
            if (i < 12) { /* words 4i+16 .. 4i+19 take the place of 4i .. 4i+3 */
                __m128i last = w[m][(i + 3) & 3], seven_back = _mm_alignr_epi8(last, w[m][(i + 2) & 3], 4);
                __m128i sum = _mm_add_epi32(_mm_sha256msg1_epu32(w[m][i & 3], w[m][(i + 1) & 3]), seven_back);
                w[m][i & 3] = _mm_sha256msg2_epu32(sum, last);
            }
        }
    }
    for (int m = 0; m < side; m++) {
        __m128i feba = _mm_shuffle_epi32(abef[m], 0x1b), dchg = _mm_shuffle_epi32(cdgh[m], 0xb1);
        __m128i *low = (__m128i *)h[m], *high = (__m128i *)(h[m] + 4);
        _mm_storeu_si128(low, _mm_add_epi32(_mm_loadu_si128(low), _mm_blend_epi16(feba, dchg, 0xf0)));
        _mm_storeu_si128(high, _mm_add_epi32(_mm_loadu_si128(high), _mm_alignr_epi8(dchg, feba, 8)));
    }
}

CURATE_TARGET_SHA static void compress_sha_one(uint32_t h[8], const uint8_t block[64]) {
    compress_sha((uint32_t(*)[8])h, (const uint8_t(*)[64])block, 1);
}

CURATE_TARGET_SHA static void short_sha(uint8_t blocks[SHA256_LANES][64], uint32_t digests[SHA256_LANES][8]) {
    for (int l = 0; l < SHA256_LANES; l += 2) {
        memcpy(digests[l], START, sizeof START);
        memcpy(digests[l + 1], START, sizeof START);
        compress_sha(digests + l, (const uint8_t(*)[64])(blocks + l), 2);
    }
}
#endif

static void compress(sha256_state *state, const uint8_t *block) {
#if CURATE_X86
    if (state->simd & SIMD_SHA) {
        compress_sha_one(state->h, block);
        return;
    }
#endif
    compress_portable(state->h, block);
}

sha256_modulus sha256_modulus_of(uint32_t modulus) {
    sha256_modulus result = {.modulus = modulus};
    uint64_t power = 1 % modulus;
    for (int i = 7; i >= 0; i--) {
        result.power[i] = (uint32_t)power;
        power = (power << 32) % modulus;
    }
    return result;
}

static uint32_t residue(const uint32_t h[8], const sha256_modulus *modulus) {
    uint64_t low = 0, high = 0;
    for (int i = 0; i < 8; i++) {
        uint64_t product = (uint64_t)h[i] * modulus->power[i];
        low += (uint32_t)product;
        high += product >> 32;
    }
    /* high < 2^34, its residue < 2^31, shifted < 2^63; low < 2^35: the sum fits. */
    return (uint32_t)((((high % modulus->modulus) << 32) + low) % modulus->modulus);
}

void sha256_open(sha256_state *state, int simd) {
    memcpy(state->h, START, sizeof START);
    state->total = 0;
    state->simd = simd;
}

void sha256_take(sha256_state *state, const uint8_t *bytes, uint64_t count) {
    uint64_t held = state->total & 63;
    state->total += count;
    while (held + count >= 64) {
        uint64_t part = 64 - held;
        memcpy(state->block + held, bytes, part);
        compress(state, state->block);
        bytes += part;
        count -= part;
        held = 0;
    }
    memcpy(state->block + held, bytes, count);
}

uint32_t sha256_close(sha256_state *state, const sha256_modulus *modulus) {
    uint64_t held = state->total & 63;
    if (held > SHA256_SHORT) { /* no room for the length: it goes into a block of its own */
        state->block[held++] = 0x80;
        memset(state->block + held, 0, 64 - held);
        compress(state, state->block);
        memset(state->block, 0, 56);
    } else {
        sha256_pad_short(state->block, held);
    }
    for (int i = 0; i < 8; i++) state->block[63 - i] = (uint8_t)(state->total * 8 >> (8 * i));
    compress(state, state->block);
    return residue(state->h, modulus);
}

void sha256_pad_short(uint8_t block[64], uint64_t count) {
    block[count] = 0x80;
    memset(block + count + 1, 0, 63 - count);
    block[62] = (uint8_t)(count * 8 >> 8);
    block[63] = (uint8_t)(count * 8);
}

void sha256_short(uint8_t blocks[SHA256_LANES][64], int count, const sha256_modulus *modulus, int simd,
                  uint32_t *residues) {
    uint32_t digests[SHA256_LANES][8];
#if CURATE_X86
    if (simd & SIMD_SHA) short_sha(blocks, digests);
    else if (simd & SIMD_AVX2) short_avx2(blocks, digests);
    else short_baseline(blocks, digests);
#else
    (void)simd;
    short_baseline(blocks, digests);
#endif
    for (int i = 0; i < count; i++) residues[i] = residue(digests[i], modulus);
}
