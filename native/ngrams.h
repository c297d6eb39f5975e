/* Hashed n-grams of documents: counted (DSIR's fit) or scored against log ratios (DSIR's weight).
 *
 * Legend: n orders 1..n, B buckets, T targets, R rows, C cells. A document of m tokens has max(0, m - k + 1) n-grams of
 * order k: k neighbouring tokens joined by one space, counted as often as they occur. All orders share the B buckets.
 *
 *   NGRAMS_MIX64   bucket by mix64.h
 *   NGRAMS_SHA256  bucket = the SHA-256 of the n-gram's UTF-8, as a 256-bit big-endian integer, modulo B;
 *                  the answers are kept in a direct-mapped cache under 128 bits of mix64 (two independent hashes);
 *                  its slots are fetched 64 tokens ahead, and what is missing is hashed eight n-grams at a time
 *
 * Floor for n = 2 on English (5 bytes a token): per token two positions stored and read, 16 bytes loaded, five 64-bit
 * products (two for the token, one to append, two for buckets), two bucket numbers stored, two table cells touched;
 * the measured instructions per byte stand in benchmarks/results/ngrams.json.
 *
 * Memory: the caller owns everything. Nothing here allocates or keeps state between calls but the caller's cache.
 */
#ifndef CURATE_NGRAMS_H
#define CURATE_NGRAMS_H

#include <stdint.h>

#include "sha256.h"
#include "text.h"
#include "tokens.h"

enum { NGRAMS_MIX64 = 0, NGRAMS_SHA256 = 1, NGRAMS_MAX_ORDER = 8, NGRAMS_LANES = 4, NGRAMS_SKIP_CELL = 255 };

typedef struct {
    uint64_t first, second; /* the two hashes of the n-gram */
    uint32_t bucket;
    uint32_t used; /* 0: empty, so that zeroed memory is an empty cache */
} ngram_cache_slot;

typedef struct {
    int n;              /* 1 .. 8 */
    uint32_t buckets;   /* 1 .. 2^31 - 1 */
    int hash;           /* NGRAMS_MIX64 or NGRAMS_SHA256 */
    int64_t min_tokens; /* shorter documents add nothing and have no score */
    token_rules rules;
    ngram_cache_slot *cache; /* for sha256: cache_slots of them, a power of two >= 1, of one value of `buckets` */
    uint64_t cache_slots;
} ngram_spec;

enum { NGRAMS_AHEAD = 64 }; /* tokens whose cache slots are fetched before the first of them is read */

/* SHA-256 hashes of short n-grams that wait until there are enough to compute them side by side. */
typedef struct {
    uint8_t blocks[SHA256_LANES][64];
    ngram_cache_slot fresh[SHA256_LANES]; /* what will stand in the slot, but for the bucket */
    ngram_cache_slot *slots[SHA256_LANES];
    uint32_t *answers[SHA256_LANES];
    int count;
} sha256_queue;

typedef struct {
    token_stream stream; /* stream.lower: tokens_lower_bytes(longest document) bytes */
    uint32_t buckets[NGRAMS_MAX_ORDER][TOKENS_BATCH + TOKENS_SLACK];
    uint64_t first[NGRAMS_MAX_ORDER], second[NGRAMS_MAX_ORDER]; /* n-grams of each order that end at the last token */
    uint64_t keys[NGRAMS_AHEAD][NGRAMS_MAX_ORDER][2];           /* for sha256: both hashes of the next n-grams */
    sha256_modulus modulus;
    sha256_queue queue;
} ngram_scratch;

/* counts int64[C][B] += the n-grams of each row, in the row of `counts` that cell[row] names (uint8[R]; 255 = leave
 * out; NULL = all in row 0). Null texts and documents of fewer than min_tokens tokens add nothing. Cost O(bytes * n). */
void ngrams_count(const curate_text *text, const ngram_spec *spec, const uint8_t *cell, int64_t *counts,
                  ngram_scratch *scratch);

/* scores float64[R][T] = sum over the document's n-grams of ratio[bucket][t] (float64[B][T]), and tokens int64[R].
 * The order of summation is fixed: n-grams of order k that end at token i (from 0) go, in order, into lane i % 4;
 * total = over k upwards, total + ((lane 0 + lane 1) + (lane 2 + lane 3)). So a score does not depend on batch, on
 * slice or on T. NaN without tokens, below min_tokens, or null; tokens is -1 for null. lanes: scratch float64[n][4][T]. */
void ngrams_score(const curate_text *text, const ngram_spec *spec, const double *ratio, int64_t targets, double *scores,
                  int64_t *tokens, double *lanes, ngram_scratch *scratch);

/* The bucket of the one n-gram whose tokens are the rows (at least one, none null or empty; any number). */
uint32_t ngrams_bucket(const curate_text *tokens, const ngram_spec *spec, ngram_scratch *scratch);

#endif
