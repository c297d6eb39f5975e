/* What a document tells of its ZIP-FIT score in one pass, whatever the number of targets: how it is compressed itself,
 * which of the targets' grams it has, and how much of a Huffman tree it shares with them.
 *
 *   text     n documents; a null one has own of -1 and nothing else
 *   own      int64[n]: bytes of its raw DEFLATE stream, exactly zlib's (zipfit.h)
 *   counts   uint32[n, ZIPFIT_SYMBOLS]: the symbols of that stream: literals, end of block and length codes as in
 *            zipfit_block.h, then 32 of distances from ZIPFIT_DISTANCE_AT on
 *   grams    a hash table of the grams of 4, or of 8, bytes that stand in targets, with the number of targets of each group
 *            that have it, at most 65,535; the caller gives it zeroed and with room for three times as many grams
 *   sums     int64[n, 2, ZIPFIT_GROUPS]: for each document and size the sum of these numbers over its different grams
 *   gains    double[ZIPFIT_SYMBOLS, ZIPFIT_TABULATED], the value for each symbol and count; `shared` double[n] adds them up
 *
 *   marks    uint16[buckets]: a bit for each gram of the table, zeroed by the caller. They are a thirty-second of its size and
 *            nearer to the core: what is not marked there, most of what a document has, is not looked for in the table
 *
 * Cost: zipfit_measure's without targets; one look per byte and gram size; one per symbol used. A gram of 4 bytes is known by
 * its bytes, one of 8 by 32 bits of its hash: one look in a billion finds another's. The same bits with any SIMD.
 */
#ifndef CURATE_ZIPFIT_FAST_H
#define CURATE_ZIPFIT_FAST_H

#include <stdint.h>

#include "text.h"
#include "zipfit.h"

enum { ZIPFIT_GROUPS = 4, ZIPFIT_WAYS = 4, ZIPFIT_SYMBOLS = 320, ZIPFIT_DISTANCE_AT = 288, ZIPFIT_TABULATED = 64 };

/* Four grams; `seen` is the number of the last text, or target, that met each: the table is written to while it is read. */
typedef struct {
    uint32_t tag[ZIPFIT_WAYS], seen[ZIPFIT_WAYS];
    uint16_t targets[ZIPFIT_WAYS][ZIPFIT_GROUPS];
} zipfit_bucket;

typedef struct {
    zipfit_bucket *buckets; /* best aligned to their 64 bytes */
    uint32_t mask;          /* buckets - 1, a power of two less one */
    uint16_t *marks;        /* one for each bucket */
} zipfit_grams;

/* Documents alone, with their symbols; the scratch as for zipfit_measure without targets. */
void zipfit_profile(const curate_text *text, int level, zipfit_scratch *scratch, int64_t *own, uint32_t *counts);

/* Enter targets' grams of `size` 4 or 8; group[j] < ZIPFIT_GROUPS. Returns 0 where the table is too small. */
int zipfit_grams_enter(const curate_text *targets, const uint8_t *group, int size, const zipfit_grams *grams);

/* `met`: no slot's `seen` is above it and up to met + n: as many texts, or targets, have been here. */
void zipfit_grams_count(const curate_text *text, const zipfit_grams *four, const zipfit_grams *eight, uint32_t met,
                        int64_t *sums);

/* gains_of(h, m) = xl(h + m) - xl(h) - xl(m), xl(x) = x log2 x, from `mean` double[ZIPFIT_SYMBOLS] for larger counts. */
void zipfit_shared(const uint32_t *counts, int64_t n, const double *gains, const double *mean, double *shared);

#endif
