/* MinHash: signatures of documents straight from their text, sets of shingles, and what joins them.
 *
 * Legend: n tokens a shingle, k permutations, R rows, B bands of r rows of the signature.
 *
 *   token      MINHASH_WORD  maximal run of characters that are not white space (str.split), lower-cased
 *              MINHASH_CHAR  each character that is not white space, lower-cased
 *              MINHASH_SCRIPTS  words, but each character of a script that puts no spaces between words is a token of
 *                            its own (tokens.h, scripts): WORD for a text without such characters, CHAR for one of them
 *   shingle    n neighbouring tokens; a document of 1 .. n - 1 tokens has one shingle, all its tokens
 *   g          64-bit hash of a shingle of tokens t1 .. tm (m <= n), over mix64.h's h(t):
 *                  S = sum of h(ti) * M^(m - i) mod 2^64,  M = C0 | 1 (rolled: one product in, one out)
 *                  g = fold(S ^ C4, C5)
 *   x          32-bit hash that is permuted:
 *              MINHASH_MIX64  the high half of g
 *              MINHASH_SHA1   the first four bytes, little-endian, of the SHA-1 of the shingle's UTF-8: one space between
 *                             two words, nothing beside a character (datasketch's sha1_hash32 of those tokens)
 *   permutations
 *              MINHASH_AFFINE  a * x + b mod 2^32, a odd
 *              MINHASH_MURMUR  the same of fmix32(x) (datasketch 2's affine32)
 *              MINHASH_LEGACY  (a * x + b mod 2^64) mod (2^61 - 1) mod 2^32 (datasketch's legacy)
 *   signature  uint32[k]: the least of each permutation over all shingles; all ones where there is none
 *
 * Floor of AFFINE with 8 lanes: k / 8 products, additions and minima per shingle, 48 for k = 128, of which four can
 * begin in a cycle: 12 cycles. benchmarks/results/minhash.json says how near the whole of it stands.
 *
 * Memory: the caller owns everything. Nothing here allocates or keeps state between calls.
 */
#ifndef CURATE_MINHASH_H
#define CURATE_MINHASH_H

#include <stdint.h>

#include "text.h"
#include "tokens.h"

enum { MINHASH_WORD = 0, MINHASH_CHAR = 1, MINHASH_SCRIPTS = 2 };
enum { MINHASH_MIX64 = 0, MINHASH_SHA1 = 1 };
enum { MINHASH_AFFINE = 0, MINHASH_MURMUR = 1, MINHASH_LEGACY = 2 };
enum {
    MINHASH_MAX_NGRAM = 64,
    MINHASH_MAX_PERMUTATIONS = 2048,
    MINHASH_BLOCK = 32, /* permutations are done in blocks of this many */
    MINHASH_BATCH = TOKENS_BATCH + TOKENS_SLACK,
};

typedef struct {
    int ngram, unit, hash, scheme;
    int permutations; /* k; the arrays hold k rounded up to a multiple of MINHASH_BLOCK */
    int simd;
    const uint32_t *a32, *b32; /* AFFINE and MURMUR */
    const uint64_t *a64, *b64; /* LEGACY */
} minhash_spec;

typedef struct {
    token_stream stream; /* stream.lower: tokens_lower_bytes(longest document) bytes */
    uint8_t *joined;     /* for SHA1: as many again */
    int64_t joined_bytes;
    int joined_word; /* whether the last of them was a word */
    int64_t joined_starts[MINHASH_MAX_NGRAM];
    uint64_t sum, power; /* S of the last n tokens; M^n */
    int64_t seen;        /* tokens of the document so far */
    uint64_t tokens[MINHASH_MAX_NGRAM + MINHASH_BATCH];
    uint64_t grams[MINHASH_BATCH];
    uint32_t x[MINHASH_BATCH];
    uint32_t least[MINHASH_MAX_PERMUTATIONS + MINHASH_BLOCK];
} minhash_scratch;

/* signatures uint32[R][k]; shingles int64[R], repeats counted (-1 for null); sums uint64[R]: the g of all shingles,
 * repeats counted, added mod 2^64: documents of equal shingles have equal sums. Cost O(bytes + shingles * k). */
void minhash_signatures(const curate_text *text, const minhash_spec *spec, uint32_t *signatures, int64_t *shingles,
                        uint64_t *sums, minhash_scratch *scratch);

/* shares double[R]: of the row's characters that are not white space, the share that is unspaced (tokens.h); 0 where it
 * is half or less, and for null. Cost O(bytes). */
void minhash_unspaced(const curate_text *text, double *shares);

/* values[ends[row - 1] .. ends[row]]: the row's different g, ascending. `room` values must be as many as the rows'
 * bytes and rows together. Returns how many were written. */
int64_t minhash_sets(const curate_text *text, const minhash_spec *spec, uint64_t *values, int64_t *ends,
                     minhash_scratch *scratch);

/* keys uint64[R][B]: a hash of signature rows b * r .. b * r + r - 1, different for each band. */
void minhash_bands(const uint32_t *signatures, int64_t rows, int permutations, int bands, int per_band, uint64_t *keys);

/* shared[p] = how many values sets left[p] and right[p] have in common; set s is values[starts[s] .. starts[s + 1]]. */
void minhash_shared(const uint64_t *values, const int64_t *starts, const int64_t *left, const int64_t *right,
                    int64_t pairs, int64_t *shared);

/* Union-find: joins left[p] with right[p]; parent[i] <= i always, so roots are least members. */
void minhash_join(int64_t *parent, const int64_t *left, const int64_t *right, int64_t pairs);

#endif
