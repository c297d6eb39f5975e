#include "embed.h"

#include <string.h>

#include "mix64.h"

enum { WORDS = EMBED_MAX_DIM / 64 };

/* Add one to the columns whose bit is set. */
static int add_signs(uint64_t planes[EMBED_PLANES][WORDS], int words, int depth, uint64_t value) {
    uint64_t carry[WORDS], any = 0;
    for (int i = 0; i < words; i++) {
        uint64_t salted = value + (uint64_t)(i + 1) * MIX64_SECOND.c[0];
        carry[i] = mix64_fold(salted ^ MIX64_SECOND.c[1], MIX64_SECOND.c[2]);
        any |= carry[i];
    }
    for (int p = 0; any && p < EMBED_PLANES; p++) {
        if (p == depth) memset(planes[depth++], 0, (size_t)words * sizeof **planes);
        any = 0;
        for (int i = 0; i < words; i++) {
            uint64_t both = planes[p][i] & carry[i];
            planes[p][i] ^= carry[i];
            carry[i] = both;
            any |= both;
        }
    }
    return depth;
}

static uint32_t ones_of(uint64_t planes[EMBED_PLANES][WORDS], int depth, int column) {
    uint32_t count = 0;
    for (int p = 0; p < depth; p++) count |= (uint32_t)(planes[p][column / 64] >> (column % 64) & 1) << p;
    return count;
}

void embed_project(const uint64_t *values, const int64_t *starts, int64_t rows, int dim, int32_t *sums) {
    uint64_t planes[EMBED_PLANES][WORDS];
    int words = (dim + 63) / 64;
    for (int64_t row = 0; row < rows; row++, sums += dim) {
        int depth = 0;
        for (int64_t v = starts[row]; v < starts[row + 1]; v++) depth = add_signs(planes, words, depth, values[v]);
        int64_t count = starts[row + 1] - starts[row];
        for (int j = 0; j < dim; j++) sums[j] += (int32_t)(2 * (int64_t)ones_of(planes, depth, j) - count);
    }
}
