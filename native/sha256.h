/* SHA-256 (FIPS 180-4) of a message given in pieces. No allocation; the caller owns the state. */
#ifndef CURATE_SHA256_H
#define CURATE_SHA256_H

#include <stdint.h>

typedef struct {
    uint32_t h[8];
    uint64_t total; /* bytes taken so far */
    uint8_t block[64];
    int simd; /* SIMD_SHA: the processor's instructions; otherwise portable */
} sha256_state;

void sha256_open(sha256_state *state, int simd);
void sha256_take(sha256_state *state, const uint8_t *bytes, uint64_t count);

/* The digest as a 256-bit big-endian integer, modulo `modulus` in 1 .. 2^31 - 1. */
uint32_t sha256_modulo(sha256_state *state, uint32_t modulus);

#endif
