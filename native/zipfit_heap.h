/* The heaps of zipfit_block.c for vectors of one width: included once for each, with these defined (and undefined here)
 *
 *   HEAP_NAME    the function's name: void HEAP_NAME(int32_t *cells, int32_t *joined, uint32_t *cost, int size, int node)
 *   HEAP_TARGET  attributes of its instruction set
 *   HEAP_WIDTH   lanes in a vector: 4, 8 or 16
 *   HEAP_WIDE    levels (3 to 5) that whole rows are read for; below them each lane looks up its own two children
 *
 * cells is [512][ZIPFIT_LANES], one heap in each lane from row 1 on, NOTHING past its end; the function works on the
 * first HEAP_WIDTH lanes. `size` is the largest heap's, at least 2. Nodes in the order in which they leave go to joined,
 * [2 * (size - 1)][ZIPFIT_LANES]; the parents are numbered from `node` on; cost[lane] becomes the sum of their weights.
 */

#define HEAP_JOIN2(a, b) a##_##b
#define HEAP_JOIN(a, b) HEAP_JOIN2(a, b)
#define HEAP_OWN(name) HEAP_JOIN(HEAP_NAME, name)
#define HEAP_ROW HEAP_OWN(row)

typedef int32_t HEAP_ROW __attribute__((vector_size(4 * HEAP_WIDTH), aligned(4 * HEAP_WIDTH)));

#define HEAP_AT(row) (*(HEAP_ROW *)(cells + (row) * ZIPFIT_LANES))
#define HEAP_EITHER(mask, yes, no) (((mask) & (yes)) | (~(mask) & (no)))

/* One level of sinking, for lanes that stand in rows first .. first + 2^depth - 1, `at` rows from the first: the children
 * are chosen from all rows below by halving, and the one row that each lane writes is blended into all rows here. */
CURATE_INLINE void HEAP_OWN(level)(int32_t *cells, int first, const int depth, HEAP_ROW *at, HEAP_ROW *value) {
    HEAP_ROW child[32];
    const HEAP_ROW bit0 = (*at << 31) >> 31, bit1 = (*at << 30) >> 31, bit2 = (*at << 29) >> 31, bit3 = (*at << 28) >> 31;
    const HEAP_ROW top = depth == 4 ? bit3 : depth == 3 ? bit2 : depth == 2 ? bit1 : bit0;
    const int half = 1 << depth;
    if (depth == 0) child[0] = HEAP_AT(2 * first), child[1] = HEAP_AT(2 * first + 1);
    else {
#pragma GCC unroll 16
        for (int r = 0; r < half; r++) child[r] = HEAP_EITHER(top, HEAP_AT(2 * first + half + r), HEAP_AT(2 * first + r));
    }
    if (depth > 3) {
#pragma GCC unroll 8
        for (int r = 0; r < 8; r++) child[r] = HEAP_EITHER(bit2, child[r + 8], child[r]);
    }
    if (depth > 2) {
#pragma GCC unroll 4
        for (int r = 0; r < 4; r++) child[r] = HEAP_EITHER(bit1, child[r + 4], child[r]);
    }
    if (depth > 1) {
#pragma GCC unroll 2
        for (int r = 0; r < 2; r++) child[r] = HEAP_EITHER(bit0, child[r + 2], child[r]);
    }
    const HEAP_ROW is_right = (child[1] & KEY_MASK) <= child[0];
    const HEAP_ROW smaller = HEAP_EITHER(is_right, child[1], child[0]);
    const HEAP_ROW stays = (*value & KEY_MASK) <= smaller;
    const HEAP_ROW kept = HEAP_EITHER(stays, *value, smaller);
    if (depth == 0) HEAP_AT(first) = kept;
    else {
#pragma GCC unroll 16
        for (int r = 0; r < half; r++) {
            const HEAP_ROW here = *at == r;
            HEAP_AT(first + r) = HEAP_EITHER(here, kept, HEAP_AT(first + r));
        }
    }
    *value = HEAP_EITHER(stays, smaller, *value);
    *at = *at + *at - is_right;
}

/* Write each lane's value into the row where it stands: all rows that it may be, as one that is written in single cells
 * cannot be read as a vector at once. */
CURATE_INLINE void HEAP_OWN(settle)(int32_t *cells, int first, int levels, const HEAP_ROW *at, const HEAP_ROW *value) {
    for (int r = 0; r < 1 << levels; r++) {
        const HEAP_ROW here = *at == r;
        HEAP_AT(first + r) = HEAP_EITHER(here, *value, HEAP_AT(first + r));
    }
}

/* Let each lane's value sink from row `from`, `levels` deep. The smaller value stays, the larger goes on down the path of
 * smaller children; past the place where it belongs that exchanges nothing, so no lane has to stop before the others. */
CURATE_INLINE void HEAP_OWN(sink)(int32_t *cells, int from, const HEAP_ROW *sinking, int levels) {
    HEAP_ROW at = {0}, value = *sinking;
    int32_t k[HEAP_WIDTH], v[HEAP_WIDTH];
    if (levels > 0) HEAP_OWN(level)(cells, from, 0, &at, &value);
    if (levels > 1) HEAP_OWN(level)(cells, 2 * from, 1, &at, &value);
    if (levels > 2) HEAP_OWN(level)(cells, 4 * from, 2, &at, &value);
    if (HEAP_WIDE > 3 && levels > 3) HEAP_OWN(level)(cells, 8 * from, 3, &at, &value);
    if (HEAP_WIDE > 4 && levels > 4) HEAP_OWN(level)(cells, 16 * from, 4, &at, &value);
    if (levels <= HEAP_WIDE && levels <= 4) {
        HEAP_OWN(settle)(cells, from << levels, levels, &at, &value);
        return;
    }
    at += from << (levels < HEAP_WIDE ? levels : HEAP_WIDE);
    memcpy(k, &at, sizeof k);
    memcpy(v, &value, sizeof v);
    for (int level = HEAP_WIDE; level < levels; level++) {
        for (int l = 0; l < HEAP_WIDTH; l++) {
            int32_t left = cells[2 * k[l] * ZIPFIT_LANES + l], right = cells[(2 * k[l] + 1) * ZIPFIT_LANES + l];
            int32_t is_right = (right & KEY_MASK) <= left;
            int32_t smaller = is_right ? right : left;
            int32_t stays = (v[l] & KEY_MASK) <= smaller;
            cells[k[l] * ZIPFIT_LANES + l] = stays ? v[l] : smaller;
            v[l] = stays ? smaller : v[l];
            k[l] = 2 * k[l] + is_right;
        }
    }
    for (int l = 0; l < HEAP_WIDTH; l++) cells[k[l] * ZIPFIT_LANES + l] = v[l];
}

/* Make heaps of the leaves; then take the two smallest nodes out and put their parent in, until one is left. All lanes
 * end together: a lane of fewer leaves waits, its root sinking into its own place, until the row that is taken away is
 * one of its own. */
HEAP_TARGET static void HEAP_NAME(int32_t *cells, int32_t *joined, uint32_t *cost, int size, int node) {
    HEAP_ROW sum = {0};
    for (int from = size / 2; from >= 1; from--) HEAP_OWN(sink)(cells, from, &HEAP_AT(from), levels_of(size, from));
    for (; size > 1; node++, joined += 2 * ZIPFIT_LANES) {
        const HEAP_ROW first = HEAP_AT(1), last = HEAP_AT(size), waits = last == NOTHING;
        HEAP_AT(size) = (HEAP_ROW){0} + NOTHING;
        int levels = levels_of(--size, 1);
        const HEAP_ROW moved = HEAP_EITHER(waits, first, last);
        HEAP_OWN(sink)(cells, 1, &moved, levels);
        const HEAP_ROW second = HEAP_AT(1);
        const HEAP_ROW is_first = (first & ~WEIGHT_MASK) > (second & ~WEIGHT_MASK);
        const HEAP_ROW deeper = HEAP_EITHER(is_first, first, second) & ~WEIGHT_MASK & KEY_MASK;
        const HEAP_ROW weight = (first & WEIGHT_MASK) + (second & WEIGHT_MASK);
        const HEAP_ROW parent = (weight | deeper | node) + (1 << NODE_BITS);
        *(HEAP_ROW *)joined = first;
        *(HEAP_ROW *)(joined + ZIPFIT_LANES) = second;
        sum += ~waits & (weight >> WEIGHT_SHIFT);
        const HEAP_ROW put = HEAP_EITHER(waits, first, parent);
        HEAP_OWN(sink)(cells, 1, &put, levels);
    }
    memcpy(cost, &sum, sizeof sum);
}

#undef HEAP_JOIN2
#undef HEAP_JOIN
#undef HEAP_OWN
#undef HEAP_ROW
#undef HEAP_AT
#undef HEAP_EITHER
#undef HEAP_NAME
#undef HEAP_TARGET
#undef HEAP_WIDTH
#undef HEAP_WIDE
