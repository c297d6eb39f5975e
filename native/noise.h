/* Counter-based random numbers: the same (key, stream) gives the same number, whatever was asked before.
 *
 *   keys    uint64[n], one per document (a hash of its identity)
 *   stream  64-bit sub-seed: the seed and the names of what draws
 *   out     [n], owned by the caller, may not overlap keys. Cost O(n).
 *
 * bits(key, stream) = F(F(key ^ F(stream + A)) + F(stream + B)) with F the finaliser of SplitMix64 (Steele, Lea and
 * Flood 2014), A = 0x9e3779b97f4a7c15, B = 0xd1b54a32d192ed03, all modulo 2^64. Two streams thus differ in two
 * unrelated 64-bit words, one on each side of a full mixing round.
 */
#ifndef CURATE_NOISE_H
#define CURATE_NOISE_H

#include <stdint.h>

void noise_bits(const uint64_t *keys, int64_t n, uint64_t stream, uint64_t *out);

/* Uniform on the open interval (0, 1): (k + 1/2) / 2^52 for k = the top 52 bits. All 53 significant bits of the double
 * are used, each value is exact, and neither 0 nor 1 can occur (with 53 bits of k the half would round up to 1). */
void noise_uniform(const uint64_t *keys, int64_t n, uint64_t stream, double *out);

/* Standard Gumbel: -ln(-ln u) of that uniform, by the scalar maths library so that no SIMD tail differs. */
void noise_gumbel(const uint64_t *keys, int64_t n, uint64_t stream, double *out);

#endif
