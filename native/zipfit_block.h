/* How many bits stock zlib (1.2.12 to 1.3.1, and older ones with the same block rule) spends on one DEFLATE block, from
 * the counts of its symbols alone. Nothing is encoded: the length of a block follows from the code lengths of its three
 * Huffman trees, and the data part of a tree's cost is the sum of its inner nodes' weights (RFC 1951; Huffman 1952).
 *
 *   counts    symbols of the block, owned by the caller; the end-of-block symbol must be counted already (1).
 *             literal[0..255] bytes, [256] end of block, [257..285] length codes; distance[0..29] distance codes
 *   stored    bytes of text in the block, or -1 where zlib has no longer got them (its window slid past the block's start)
 *   bits      bits of the stream before the block; a stored block begins at a byte, so it matters modulo 8
 *
 * What decides the trees' shape is zlib's own heap: nodes of equal weight and depth leave it in an order that depends on
 * how it was filled, and the order shows in which symbol gets the longer code, thus in the run lengths that code lengths
 * are sent as. So the heap is followed step by step. Blocks are worked on ZIPFIT_LANES at a time: the steps of one heap
 * wait for each other, those of several do not. Cost O(symbols used * log) per block, no allocation, no globals.
 */
#ifndef CURATE_ZIPFIT_BLOCK_H
#define CURATE_ZIPFIT_BLOCK_H

#include <stdint.h>

enum {
    ZIPFIT_LITERALS = 286, /* symbols of the literal and length tree */
    ZIPFIT_DISTANCES = 30,
    ZIPFIT_END = 256,
    ZIPFIT_BLOCK_SYMBOLS = 16383, /* a block ends with its 16,383rd symbol (memLevel 8) */
    ZIPFIT_LANES = 4,
};

typedef struct {
    uint16_t literal[288]; /* the last two stay 0: room for whole vectors */
    uint16_t distance[32];
} zipfit_counts;

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

/* One block of up to ZIPFIT_LANES independent streams: */
typedef struct {
    const zipfit_counts *counts;
    int64_t stored;
    uint64_t bits; /* in: bits before the block; out: bits after it */
} zipfit_block;

void zipfit_blocks(zipfit_block *blocks, int n);

#endif
