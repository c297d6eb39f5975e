/* SHA-256 (FIPS 180-4) modulo a number: of one message in pieces, or of many short messages at once.
 *
 * A short message (at most SHA256_SHORT bytes) fills one block; its compression is a chain of 64 dependent rounds, so
 * several messages side by side take little longer than one: two with the processor's SHA instructions, eight in the
 * lanes of its vectors without them (plain C that the compiler vectorises). No allocation; the caller owns everything.
 */
#ifndef CURATE_SHA256_H
#define CURATE_SHA256_H

#include <stdint.h>

enum { SHA256_SHORT = 55, SHA256_LANES = 8 };

/* A digest is h0 .. h7, most significant first; its value modulo m is the sum of h[i] * power[i] modulo m, with
 * power[i] = 2^(32 (7 - i)) modulo m. m is in 1 .. 2^31 - 1, so each product stays below 2^63. */
typedef struct {
    uint32_t modulus;
    uint32_t power[8];
} sha256_modulus;

sha256_modulus sha256_modulus_of(uint32_t modulus);

typedef struct {
    uint32_t h[8];
    uint64_t total; /* bytes taken so far */
    uint8_t block[64];
    int simd; /* SIMD_SHA: the processor's instructions; otherwise portable */
} sha256_state;

void sha256_open(sha256_state *state, int simd);
void sha256_take(sha256_state *state, const uint8_t *bytes, uint64_t count);

/* The digest as a 256-bit big-endian integer, modulo `modulus`. */
uint32_t sha256_close(sha256_state *state, const sha256_modulus *modulus);

/* End a short message: `block` holds its first `count` bytes, the rest is filled in. */
void sha256_pad_short(uint8_t block[64], uint64_t count);

/* residues[i] = SHA-256 of the padded block i, modulo `modulus`, for i < count <= SHA256_LANES. The blocks beyond count
 * may hold anything. */
void sha256_short(uint8_t blocks[SHA256_LANES][64], int count, const sha256_modulus *modulus, int simd,
                  uint32_t *residues);

#endif
