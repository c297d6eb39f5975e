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
 * target goes on from there. Matches inside a target do not depend on the document either: at levels 4 to 9 a target is
 * parsed alone once per call, and a pair looks only where the document can change that (zipfit_target.h).
 *
 * Cost per document: O(bytes), times at most `chain` of the level; per pair: a look at each place where the target alone
 * would search, steps where the document has a longer match, and the Huffman trees of the last block. Scratch: 9 bytes
 * per byte of the longest document and target together, 29 per byte of all targets, 700 per target, 600 KB.
 */
#ifndef CURATE_ZIPFIT_H
#define CURATE_ZIPFIT_H

#include <stdint.h>

#include "text.h"
#include "zipfit_block.h"

enum {
    ZIPFIT_MAX_BYTES = 1 << 29, /* a document and a target together: positions are int32 */
    ZIPFIT_HEADS = 1 << 15,
    ZIPFIT_GRAMS = 2 * ZIPFIT_HEADS, /* a bit for three bytes' hash, or for four's */
    ZIPFIT_FILTER_BYTES = ZIPFIT_GRAMS / 8,
    ZIPFIT_PAD = 320,
};

/* A position of a target: its three bytes' hash, and the best earlier place of them inside the target. */
typedef struct {
    uint16_t hash;
    uint16_t count;  /* earlier places of the hash in the target */
    uint16_t back;   /* the latest of them, plus 1; 0 for none */
    uint16_t length; /* of the best match among as many of them as the level asks; 0 without any */
    uint16_t distance;
} zipfit_spot;

/* Where the parse of the target alone stood: how many symbols it had written, its match of before, whether a byte waits. */
typedef struct {
    uint16_t symbols, state, distance;
} zipfit_stage;

typedef struct {
    uint16_t literal, distance;
} zipfit_symbol;

/* A prepared target; its arrays have an item for each byte. */
typedef struct {
    zipfit_spot *spots;
    zipfit_stage *stages;
    zipfit_symbol *symbols;
    uint16_t *grams, *places; /* questions: a gram that the document must have for a longer match, and where */
    int32_t n_symbols, n_questions;
    uint32_t first_question; /* its number among those of all targets */
    int32_t n_leaves; /* different literals and length codes */
    zipfit_counts counts;
} zipfit_target;

typedef struct {
    uint8_t *bytes;    /* longest document + longest target + ZIPFIT_PAD */
    int32_t *links;    /* as many: the place before of the same hash, 0 for none (place 0 can never be matched) */
    int32_t *inserted; /* as many: places in the order in which they were entered */
    int32_t *heads;    /* [ZIPFIT_HEADS]: the latest place of a hash, all 0 between calls */
    uint8_t *filter;   /* [ZIPFIT_FILTER_BYTES]: a bit for the document's every three and four bytes, hashed */
    uint32_t *asking;  /* [ZIPFIT_GRAMS + 1]: where in `asked` a gram's questions begin */
    uint32_t *asked;   /* one per byte of all targets: questions by the gram that they ask for */
    uint64_t *marked;  /* a bit for each question: whether the document has its gram */
    int64_t n_questions;
    zipfit_target *targets;       /* [m] */
    int64_t *order;               /* [m]: targets with about as many leaves stand together */
    uint8_t *prepared;            /* ZIPFIT_PREPARED_BYTES per byte of all targets, aligned to 4 bytes */
    zipfit_block_scratch *blocks; /* aligned to 64 bytes */
    int simd;                     /* as in simd.h */
} zipfit_scratch;

enum { ZIPFIT_PREPARED_BYTES = sizeof(zipfit_spot) + sizeof(zipfit_stage) + sizeof(zipfit_symbol) + 4 };

void zipfit_measure(const curate_text *text, const curate_text *targets, int level, zipfit_scratch *scratch,
                    int64_t *own, int64_t *joined);

#endif
