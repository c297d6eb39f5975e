#include "zipfit_block.h"

#include <string.h>

#include "simd.h"

/* A node in a heap: weight (15 bits) << 15 | depth (5) << 10 | number (10). Weights sum to at most 16,384 in a block, so
 * no tree is deeper than 20 (Fibonacci). Leaves have their symbol's number, inner nodes follow in the order in which
 * they are made. Nodes compare by weight, then depth; the number does not count, and at a tie the first asked wins. */
enum { NODE_BITS = 10, WEIGHT_SHIFT = 15, HEAP = 512, NODES = 2 * 288, LENGTH_CODES = 19 };
#define NODE_MASK ((1u << NODE_BITS) - 1)
#define KEY_MASK (~NODE_MASK)
#define WEIGHT_MASK (~((1u << WEIGHT_SHIFT) - 1))
#define NOTHING UINT32_MAX /* past a heap's end: larger than any node */

typedef struct {
    uint32_t heap[HEAP];
    uint16_t dad[NODES];
    uint16_t order[NODES]; /* nodes as they left the heap */
    int size;              /* nodes in the heap, from 1 */
    int leaves, next, left;
    int n_symbols, last_symbol, limit;
    uint32_t cost; /* bits of all symbols, extra bits not among them */
    uint8_t lengths[288];
} tree;

/* ---------------------------------------------------------------- the heap */

/* Let `value` sink from `at`, in each of some heaps. The smaller value stays, the larger one goes on down the path of
 * smaller children; past the place where it belongs that exchanges nothing, so there is no branch to guess wrong. */
CURATE_INLINE void sink(uint32_t *const *heaps, const uint32_t *values, int lanes, uint32_t at, int levels) {
    uint32_t k[ZIPFIT_LANES], v[ZIPFIT_LANES];
    for (int l = 0; l < lanes; l++) k[l] = at, v[l] = values[l];
    for (int level = 0; level < levels; level++) {
        for (int l = 0; l < lanes; l++) {
            uint32_t *heap = heaps[l];
            uint32_t left = heap[2 * k[l]], right = heap[2 * k[l] + 1];
            uint32_t is_right = (right & KEY_MASK) <= left;
            uint32_t child = is_right ? right : left;
            uint32_t stays = (v[l] & KEY_MASK) <= child;
            heap[k[l]] = stays ? v[l] : child;
            v[l] = stays ? child : v[l];
            k[l] = 2 * k[l] + is_right;
        }
    }
    for (int l = 0; l < lanes; l++) heaps[l][k[l]] = v[l];
}

static inline int levels_of(int size) { return 31 - __builtin_clz((unsigned)size | 1); }

CURATE_INLINE void heapify(tree *const *trees, int lanes) {
    uint32_t *heaps[ZIPFIT_LANES], values[ZIPFIT_LANES];
    int most = 0;
    for (int l = 0; l < lanes; l++) {
        heaps[l] = trees[l]->heap;
        if (trees[l]->size > most) most = trees[l]->size;
    }
    for (int at = most / 2; at >= 1; at--) {
        for (int l = 0; l < lanes; l++) values[l] = heaps[l][at];
        sink(heaps, values, lanes, (uint32_t)at, levels_of(most) - levels_of(at));
    }
}

/* Take the two smallest nodes out, put their parent in, `steps` times. */
CURATE_INLINE void join(tree *const *trees, int lanes, int steps) {
    uint32_t *heaps[ZIPFIT_LANES], values[ZIPFIT_LANES], first[ZIPFIT_LANES];
    int most = 0;
    for (int l = 0; l < lanes; l++) {
        heaps[l] = trees[l]->heap;
        if (trees[l]->size > most) most = trees[l]->size;
    }
    for (int step = 0; step < steps; step++) {
        int levels = levels_of(--most);
        for (int l = 0; l < lanes; l++) {
            uint32_t *end = &heaps[l][trees[l]->size--];
            first[l] = heaps[l][1];
            values[l] = *end;
            *end = NOTHING;
        }
        sink(heaps, values, lanes, 1, levels);
        for (int l = 0; l < lanes; l++) {
            tree *t = trees[l];
            uint32_t a = first[l], b = heaps[l][1], node = (uint32_t)t->next++;
            uint32_t deeper = (a & ~WEIGHT_MASK) > (b & ~WEIGHT_MASK) ? a : b;
            uint32_t weight = (a & WEIGHT_MASK) + (b & WEIGHT_MASK);
            values[l] = weight | ((deeper & ~WEIGHT_MASK & KEY_MASK) + (1u << NODE_BITS)) | node;
            t->cost += weight >> WEIGHT_SHIFT;
            t->order[t->left] = (uint16_t)(a & NODE_MASK);
            t->order[t->left + 1] = (uint16_t)(b & NODE_MASK);
            t->left += 2;
            t->dad[a & NODE_MASK] = t->dad[b & NODE_MASK] = (uint16_t)node;
        }
        sink(heaps, values, lanes, 1, levels);
    }
}

/* The trees from the largest to the smallest, so that those that are done first stand last. */
static void by_size(tree **trees, int n) {
    for (int i = 1; i < n; i++) {
        tree *t = trees[i];
        int j = i;
        for (; j > 0 && trees[j - 1]->size < t->size; j--) trees[j] = trees[j - 1];
        trees[j] = t;
    }
}

static void build(tree **trees, int n) {
    by_size(trees, n);
    if (n == 4) heapify(trees, 4);
    else
        for (int l = 0; l < n; l++) heapify(trees + l, 1);
    if (n >= 4) join(trees, 4, trees[3]->size - 1);
    if (n >= 3) join(trees, 3, trees[2]->size - 1);
    if (n >= 2) join(trees, 2, trees[1]->size - 1);
    join(trees, 1, trees[0]->size - 1);
}

/* ---------------------------------------------------------------- leaves and code lengths */

/* A tree has two leaves at least: zlib adds symbols 0 and 1 where there are fewer, which cost nothing. */
static void plant(tree *t, const uint16_t *counts, int n_symbols, int limit) {
    int size = 0, last = -1;
    memset(t->heap, 0xff, sizeof t->heap[0] * (n_symbols > 32 ? HEAP : 64));
    for (int symbol = 0; symbol < n_symbols; symbol++) {
        t->heap[size + 1] = (uint32_t)counts[symbol] << WEIGHT_SHIFT | (uint32_t)symbol;
        size += counts[symbol] != 0;
        if (counts[symbol]) last = symbol;
    }
    t->heap[size + 1] = NOTHING;
    t->cost = 0;
    while (size < 2) {
        int symbol = last < 2 ? ++last : 0;
        t->heap[++size] = 1u << WEIGHT_SHIFT | (uint32_t)symbol;
        t->cost--;
    }
    t->size = t->leaves = size;
    t->next = t->n_symbols = n_symbols;
    t->last_symbol = last;
    t->limit = limit;
    t->left = 0;
}

/* Lengths above the limit: zlib moves leaves up one by one, and deals the lengths out anew, longest to the rarest. */
static void limit_lengths(tree *t, const uint8_t *depth, const uint16_t *counts) {
    int of_length[32] = {0}, overflow = 0, next = 0;
    for (int i = 0; i < t->left; i++) {
        int node = t->order[i], bits = depth[node] < t->limit ? depth[node] : t->limit;
        overflow += depth[node] > t->limit;
        if (node < t->n_symbols) of_length[bits]++;
    }
    for (; overflow > 0; overflow -= 2) {
        int bits = t->limit - 1;
        while (of_length[bits] == 0) bits--;
        of_length[bits]--;
        of_length[bits + 1] += 2;
        of_length[t->limit]--;
    }
    t->cost = 0;
    for (int bits = t->limit; bits > 0; bits--) {
        for (int n = of_length[bits]; n > 0; next++) {
            int node = t->order[next];
            if (node >= t->n_symbols) continue;
            t->lengths[node] = (uint8_t)bits;
            t->cost += (uint32_t)(bits * counts[node]);
            n--;
        }
    }
}

static void measure(tree *t, const uint16_t *counts) {
    uint8_t depth[NODES];
    int root = t->next - 1, deepest = 0;
    depth[root] = 0;
    for (int node = root - 1; node >= t->n_symbols; node--) depth[node] = (uint8_t)(depth[t->dad[node]] + 1);
    memset(t->lengths, 0, sizeof t->lengths);
    for (int i = 0; i < t->left; i++) {
        int node = t->order[i];
        if (node >= t->n_symbols) continue;
        t->lengths[node] = depth[node] = (uint8_t)(depth[t->dad[node]] + 1);
        if (depth[node] > deepest) deepest = depth[node];
    }
    if (deepest > t->limit) limit_lengths(t, depth, counts);
}

/* ---------------------------------------------------------------- how code lengths are sent */

/* A run of zeros: as such (1, 2), code 17 (3..10), code 18 (11..138). */
static void count_zeros(int run, uint16_t *counts) {
    counts[18] += (uint16_t)(run / 138);
    run %= 138;
    if (run < 3) counts[0] += (uint16_t)run;
    else if (run <= 10) counts[17]++;
    else counts[18]++;
}

/* A run of one length: once as such, then code 16 for 3 to 6 more; shorter ones as such. A first piece may be 7 long. */
static void count_equal(int length, int run, uint16_t *counts) {
    int piece = run < 7 ? run : 7;
    if (piece < 4) counts[length] += (uint16_t)piece;
    else counts[length]++, counts[16]++;
    run -= piece;
    counts[16] += (uint16_t)(run / 6);
    run %= 6;
    if (run < 3) counts[length] += (uint16_t)run;
    else counts[16]++;
}

static void count_lengths(const tree *t, uint16_t *counts) {
    const uint8_t *lengths = t->lengths;
    for (int i = 0, end = 0; i <= t->last_symbol; i = end) {
        while (end <= t->last_symbol && lengths[end] == lengths[i]) end++;
        if (lengths[i]) count_equal(lengths[i], end - i, counts);
        else count_zeros(end - i, counts);
    }
}

/* ---------------------------------------------------------------- blocks */

static uint32_t extra_bits(const zipfit_counts *c) {
    uint32_t bits = 0;
    for (int code = 8; code < 28; code++) bits += (uint32_t)c->literal[257 + code] * (uint32_t)(code / 4 - 1);
    for (int code = 4; code < 30; code++) bits += (uint32_t)c->distance[code] * (uint32_t)(code / 2 - 1);
    return bits;
}

/* The fixed code: 8 bits, but 9 for bytes from 144 and 7 for codes 256 to 279; 5 for a distance. */
static uint32_t fixed_bits(const zipfit_counts *c) {
    uint32_t bits = 0;
    for (int i = 0; i < 144; i++) bits += 8u * c->literal[i];
    for (int i = 144; i < 256; i++) bits += 9u * c->literal[i];
    for (int i = 256; i < 280; i++) bits += 7u * c->literal[i];
    for (int i = 280; i < 286; i++) bits += 8u * c->literal[i];
    for (int i = 0; i < 30; i++) bits += 5u * c->distance[i];
    return bits;
}

/* Code lengths of code lengths are sent in this order, as far as the last that is used, but four at least. */
static uint32_t header_bits(const uint16_t *counts) {
    static const uint8_t sent[LENGTH_CODES] = {16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15};
    int last = LENGTH_CODES - 1;
    while (last > 3 && !counts[sent[last]]) last--;
    return 5 + 5 + 4 + 3 * (uint32_t)(last + 1) + 2u * counts[16] + 3u * counts[17] + 7u * counts[18];
}

static void choose(zipfit_block *block, uint32_t dynamic) {
    uint32_t extra = extra_bits(block->counts);
    uint32_t fixed = fixed_bits(block->counts) + extra;
    dynamic += extra;
    uint32_t dynamic_bytes = (dynamic + 3 + 7) >> 3, fixed_bytes = (fixed + 3 + 7) >> 3;
    uint32_t best_bytes = fixed_bytes <= dynamic_bytes ? fixed_bytes : dynamic_bytes;
    if (block->stored >= 0 && block->stored + 4 <= (int64_t)best_bytes)
        block->bits = ((block->bits + 3 + 7) & ~UINT64_C(7)) + 32 + 8 * (uint64_t)block->stored;
    else block->bits += 3 + (fixed_bytes == best_bytes ? fixed : dynamic);
}

void zipfit_blocks(zipfit_block *blocks, int n) {
    tree literal[ZIPFIT_LANES], distance[ZIPFIT_LANES], header[ZIPFIT_LANES], *lanes[ZIPFIT_LANES];
    uint16_t counts[ZIPFIT_LANES][32];
    memset(counts, 0, sizeof counts);
    for (int i = 0; i < n; i++) plant(lanes[i] = &literal[i], blocks[i].counts->literal, ZIPFIT_LITERALS, 15);
    build(lanes, n);
    for (int i = 0; i < n; i++) plant(lanes[i] = &distance[i], blocks[i].counts->distance, ZIPFIT_DISTANCES, 15);
    build(lanes, n);
    for (int i = 0; i < n; i++) {
        measure(&literal[i], blocks[i].counts->literal);
        measure(&distance[i], blocks[i].counts->distance);
        count_lengths(&literal[i], counts[i]);
        count_lengths(&distance[i], counts[i]);
        plant(lanes[i] = &header[i], counts[i], LENGTH_CODES, 7);
    }
    build(lanes, n);
    for (int i = 0; i < n; i++) {
        measure(&header[i], counts[i]);
        uint32_t dynamic = literal[i].cost + distance[i].cost + header[i].cost + header_bits(counts[i]);
        choose(&blocks[i], dynamic);
    }
}
