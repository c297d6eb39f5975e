/* The byte lengths of zlib's raw DEFLATE streams of documents, and of documents joined with targets, without making them.
 *
 * Equal, for every input, to what stock zlib (1.2.12 to 1.3.1; levels 1 to 9, default strategy, memLevel 8, windowBits
 * 15) writes when it is given the whole input in one call with Z_FINISH, as Python's zlib.compress and gzip.compress do.
 *
 *   level     1..9: 1 to 3 take the first match (deflate_fast), 4 to 9 look one byte ahead (deflate_slow)
 *   text      n documents; a null one has lengths of -1
 *   targets   m texts without nulls; m may be 0
 *   own       int64[n]: the length of document i
 *   joined    int64[n, m]: the length of document i followed by target j, nothing between them
 *   scratch   room that the caller allocates, `heads` zeroed; nothing is kept between calls
 *
 * A document is the prefix of its m joined texts. What zlib does inside it is done once, as far as it cannot depend on
 * what follows: up to the first search that runs into the document's end (zlib looks at most 261 bytes ahead). Each
 * target goes on from there. Matches inside a target do not depend on the document either, so they are found once per
 * call (levels 4 to 9): then a target's position asks only for the document's earlier places of its three bytes.
 *
 * Cost per document: O(bytes), times at most `chain` of the level; per pair: O(bytes of the target) likewise, and the
 * Huffman trees of the last block. Scratch: 10 bytes per byte of the longest document and target together, 12 per byte
 * of all targets, 140 KB.
 */
#ifndef CURATE_ZIPFIT_H
#define CURATE_ZIPFIT_H

#include <stdint.h>

#include "text.h"
#include "zipfit_block.h"

enum {
    ZIPFIT_MAX_BYTES = 1 << 29, /* a document and a target together: positions are int32 */
    ZIPFIT_HEADS = 1 << 15,
};

/* A position of a target: its three bytes' hash, and the best earlier place of them inside the target. */
typedef struct {
    uint16_t hash;
    uint16_t count;  /* earlier places of the hash in the target, at most 65,535 */
    uint16_t length; /* of the best match among as many of them as the level asks; 0 without any */
    uint16_t distance;
} zipfit_spot;

typedef struct {
    uint8_t *bytes;    /* longest document + longest target + ZIPFIT_PAD */
    int32_t *links;    /* as many: the place before of the same hash, 0 for none (place 0 can never be matched) */
    int32_t *inserted; /* as many: places in the order in which they were entered */
    int32_t *heads;    /* [ZIPFIT_HEADS]: the latest place of a hash, all 0 between calls */
    zipfit_spot *spots; /* one per byte of all targets */
    int32_t *back;      /* as many: the place before of the same hash inside the target, -1 for none */
    zipfit_block_scratch *blocks; /* aligned to 64 bytes */
    int simd;           /* as in simd.h */
} zipfit_scratch;

enum { ZIPFIT_PAD = 320 };

void zipfit_measure(const curate_text *text, const curate_text *targets, int level, const zipfit_scratch *scratch,
                    int64_t *own, int64_t *joined);

#endif
