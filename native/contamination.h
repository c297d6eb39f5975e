/* Evaluation items in documents: one pass over each document's terms, which counts what it shares with every item.
 *
 * Legend: I items, G grams, P postings, R rows; terms are the tokens of tokens.h's TERMS, with `regex`'s classes.
 *
 *   h(t)    mix64.h's hash of a term
 *   gram    of terms t1 .. tn: key = sum of h(ti) * M^(n - i) mod 2^64, M = C0 | 1, and XOR C5 where it is a long one
 *   short   n = `few` terms; long, n = `many` > few. An item of fewer than `many` terms has no long grams: what stands
 *           for them is whether all its terms stand in the document in a row
 *
 * The index: keys uint64[S] and ids int32[S], open addressing, S a power of two, id -1 where empty; filter: a bit for
 * each of 2^filter_bits hashes, so that most terms of most documents touch nothing else. Postings: gram g stands in items
 * items[starts[g] .. starts[g + 1]], ascending. A gram weighs weights[g], an integer, so that no order shows.
 *
 * Only a document in which many - few + 1 short grams in a row are known is asked for a long one: the short grams of an
 * item's long gram are the item's too.
 *
 * Cost O(bytes) and, for each different known gram of a document, the items that hold it. Memory is the caller's:
 * contamination_room_bytes, for the longest row, G and I.
 */
#ifndef CURATE_CONTAMINATION_H
#define CURATE_CONTAMINATION_H

#include "text.h"
#include "tokens.h"

enum { CONTAMINATION_MAX_GRAM = 64, CONTAMINATION_FOUND = 6 };

typedef struct {
    int few, many, simd;
    const uint64_t *keys;
    const int32_t *ids;
    uint64_t slots;
    const uint8_t *filter;
    int filter_bits;
    int64_t n_grams, n_items, n_terms;
    /* matching only */
    const int64_t *starts, *weights;
    const int32_t *items;
    const int64_t *term_starts; /* int64[I + 1]: item i has the terms term_starts[i] .. of `terms` */
    const uint64_t *terms;
    const int64_t *least; /* int64[I]: the weight of short grams from which an item is told of */
} contamination_index;

int64_t contamination_room_bytes(const curate_text *text, int64_t n_grams, int64_t n_items);

/* terms uint64[room]: h of each row's terms; ends int64[R]. room must be half of the bytes, and R, and 80. */
void contamination_terms(const curate_text *text, int simd, uint64_t *terms, int64_t *ends, void *space);

/* Enter keys uint64[n], all different, as ids 0 .. n - 1 into an empty index (ids all -1, filter all 0). */
void contamination_enter(const uint64_t *grams, int64_t n, uint64_t *keys, int32_t *ids, uint64_t slots, uint8_t *filter, int filter_bits);

/* documents[g] += 1 for each row that holds gram g. */
void contamination_count(const curate_text *text, const contamination_index *index, int64_t *documents, void *space);

/* From row `row` on: words int64[R], the row's terms (-1 for null); whole uint64[R], the key of all of them; and for each
 * item that a row shares at least `least` of, or a long gram, a row of found int64[room][6]: row, item, weight of the
 * short grams shared, weight of the long ones (1 for an item without long grams, whose terms all stand there in a row),
 * and where the longest run of shared grams starts and stops in the lower-cased text. Ordered by row and item.
 * room >= I. Returns the row to go on with, R at the end; *n is how many were found. */
int64_t contamination_match(const curate_text *text, const contamination_index *index, int64_t row, int64_t *words,
                            uint64_t *whole, int64_t *found, int64_t room, int64_t *n, void *space);

#endif
