/* How many bits stock zlib (1.2.12 to 1.3.1, and older ones with the same block rule) spends on one DEFLATE block, from
 * the counts of its symbols alone. Nothing is encoded: the length of a block follows from the code lengths of its three
 * Huffman trees, and the data part of a tree's cost is the sum of its inner nodes' weights (RFC 1951; Huffman 1952).
 *
 *   counts    symbols of the block, the end of the block (1) among them:
 *             literal[0..255] bytes, [256] end of block, [257..285] length codes; distance[0..29] distance codes
 *   stored    bytes of text in the block, or -1 where zlib has no longer got them (its window slid past the block's start)
 *   bits      bits of the stream before the block; a stored block begins at a byte, so it matters modulo 8
 *
 * What decides the trees' shape is zlib's own heap: nodes of equal weight and depth leave it in an order that depends on
 * how it was filled, and the order shows in which symbol gets the longer code, thus in the run lengths that code lengths
 * are sent as. So the heap is followed step by step, but ZIPFIT_LANES of them at a time, one in each lane of a vector.
 * Cost O(symbols used * log) per block; the scratch is the caller's; no globals.
 */
#ifndef CURATE_ZIPFIT_BLOCK_H
#define CURATE_ZIPFIT_BLOCK_H

#include <stdint.h>

enum {
    ZIPFIT_LITERALS = 286, /* symbols of the literal and length tree */
    ZIPFIT_DISTANCES = 30,
    ZIPFIT_END = 256,
    ZIPFIT_BLOCK_SYMBOLS = 16383, /* a block ends with its 16,383rd symbol (memLevel 8) */
    ZIPFIT_LANES = 16,
    ZIPFIT_RUNS = 320,
};

typedef struct {
    uint16_t literal[288]; /* the last two stay 0: room for whole vectors */
    uint16_t distance[32];
} zipfit_counts;

typedef struct {
    zipfit_counts counts;
    int64_t stored;
    uint64_t bits; /* in: bits before the block; out: bits after it */
} zipfit_block;

/* Room for a batch of blocks; zipfit_blocks_open empties the heap and fills `runs`. */
typedef struct {
    _Alignas(64) int32_t heap[512 * ZIPFIT_LANES]; /* empty between calls */
    int32_t joined[2 * 288 * ZIPFIT_LANES]; /* the two nodes of each join */
    uint8_t lengths[ZIPFIT_LANES][640]; /* code lengths from the second byte on, and depths of inner nodes */
    uint16_t header[ZIPFIT_LANES][32]; /* how often each code of code lengths is sent */
    uint32_t runs[2][ZIPFIT_RUNS];
    uint32_t cost[ZIPFIT_LANES];
} zipfit_block_scratch;

void zipfit_blocks_open(zipfit_block_scratch *scratch);

/* Up to ZIPFIT_LANES blocks of as many streams: each one's `bits` moves past it. `simd` as in simd.h. */
void zipfit_blocks(zipfit_block *const *blocks, int n, int simd, zipfit_block_scratch *scratch);

/* Code of a match's length - 3 (0..255), to be added to 257. */
static inline int zipfit_length_code(uint32_t length) {
    if (length == 255) return 28;
    int e = 29 - __builtin_clz(length | 7); /* 0 below 8, else log2 - 2 */
    return 4 * e + (int)(length >> e);
}

/* Code of a match's distance - 1 (0..32767). */
static inline int zipfit_distance_code(uint32_t distance) {
    int e = 30 - __builtin_clz(distance | 3); /* 0 below 4, else log2 - 1 */
    return 2 * e + (int)(distance >> e);
}

#endif
