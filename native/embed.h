/* Random projection of sets of hashes, before it is divided by its length.
 *
 *   values  uint64[starts[rows]]: set r is values[starts[r] .. starts[r + 1]]
 *   sums    int32[rows][dim]; sums[r][j] += the sum over the set of s(g, j), which is +1 or -1
 *   s(g, j) is +1 where bit j mod 64 of word(g, j / 64) is set:
 *       word(g, i) = fold((g + (i + 1) * D0) ^ D1, D2)   fold and D0 .. D2: mix64.h, MIX64_SECOND
 *
 * Signs of two hashes are as good as independent, so sums of two sets A and B have the inner product dim * |A and B| on
 * average. All is integers: no order of the values and no variant of the processor changes a bit.
 *
 * Ones are counted upright: bit j of plane p is bit p of the number of ones of column j, and a word is added to 64
 * columns at once by carrying from plane to plane. Cost O(values * dim / 64) times a carry of about seven planes.
 * A set has fewer than 2^31 values. The caller owns everything.
 */
#ifndef CURATE_EMBED_H
#define CURATE_EMBED_H

#include <stdint.h>

enum { EMBED_MAX_DIM = 4096, EMBED_PLANES = 32 };

void embed_project(const uint64_t *values, const int64_t *starts, int64_t rows, int dim, int32_t *sums);

#endif
