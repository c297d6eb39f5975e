/* An interpolated, modified Kneser-Ney model of a text's tokens whose last resort is a model of the token's bytes.
 *
 * Tokens. A text is cut without loss: the tokens, joined, are its bytes, and the cut depends on the bytes alone.
 *   word        a run of [A-Za-z0-9_] and bytes >= 0x80, at most NGRAMLM_TOKEN_BYTES long (a longer run is cut there)
 *   alone       one UTF-8 sequence led by C2, E2..E9, EF or F0..F4: punctuation, symbols, ideographs, kana, emoji
 *   sign        any other single byte
 *   white       a run of white space (space, \t..\r), at most NGRAMLM_TOKEN_BYTES long
 * A single space directly before a word, an alone or a sign belongs to it (" word"); a longer run of white space that
 * ends in such a space is cut before that space. The empty token ends the document and stands nowhere else.
 *
 * Symbols. ids are uint32: 0 = what stands before the first token (never predicted), 1 = the end, 2.. = the others in
 * the order in which they came. No number that leaves this kernel depends on that order.
 *
 * Grams. The id of a gram of k symbols, 1.. in order of arrival, 0 = the k symbols before a document. A gram of k > 1
 * symbols is found by its key: (id of its first k-1 symbols) << 32 | its last symbol. So one hash table per k.
 *
 * Probability of symbol w after context h, with c counts, t = sum of c(h .), and for i = 1, 2, 3 n_i = the number of
 * symbols after h with count 1, 2, >= 3:
 *
 *     p_k(w | h) = (max(c(h w) - D_k[c], 0) + (D_k[1] n_1 + D_k[2] n_2 + D_k[3] n_3) p_{k-1}(w | h less its first)) / t
 *
 * c are occurrences at the highest order and numbers of distinct left neighbours below (Chen and Goodman 1998, "An
 * empirical study of smoothing techniques for language modeling", interpolated modified Kneser-Ney). Where h was never
 * seen, p_k = p_{k-1}. p_0 of a token is the product of the probabilities of its bytes and of the token's end under a
 * second such model over 257 symbols, whose own p_0 is 1/257. Each p sums to one over all tokens, known or not, so
 * every byte string has a probability under every model, and there is no symbol for "unknown".
 *
 * The caller owns all memory. Nothing here allocates, and there are no globals.
 */
#ifndef CURATE_NGRAMLM_H
#define CURATE_NGRAMLM_H

#include "text.h"

enum {
    NGRAMLM_ORDERS = 8,
    NGRAMLM_TOKEN_BYTES = 64,
    NGRAMLM_BEFORE = 0,
    NGRAMLM_END = 1,
    NGRAMLM_FIRST = 2,       /* byte b is symbol NGRAMLM_FIRST + b of the byte model */
    NGRAMLM_BYTE_SYMBOLS = 258 /* before, end, 256 bytes */
};

/* An entry of an open-addressing table of 2^m slots; id 0 marks an empty one, so a table starts as zeros. */
typedef struct {
    uint64_t key;
    uint32_t id;
    uint32_t count;
} ngramlm_slot;

/* Tokens by id: token i is arena[ends[i-1] .. ends[i]); tokens 0 and 1 are empty. The slots' key is the bytes' hash. */
typedef struct {
    ngramlm_slot *slots;
    uint64_t mask;
    int64_t *ends;
    int64_t ends_room;
    uint8_t *arena;
    int64_t arena_room;
} ngramlm_vocabulary;

/* Per context: {t, n_1, n_2, n_3}. */
typedef struct {
    const ngramlm_slot *slots; /* NULL at k = 1, where counts are an array by symbol */
    uint64_t mask;
    const uint32_t *contexts; /* [n_contexts][4] */
    int64_t n_contexts;
    double discount[4]; /* [0] unused; 0 < discount[i] < i */
} ngramlm_level;

typedef struct {
    int order;
    const uint32_t *first; /* [n_symbols], counts at k = 1 */
    int64_t n_symbols;
    ngramlm_level levels[NGRAMLM_ORDERS + 1]; /* [1..order] */
} ngramlm_grams;

typedef struct {
    ngramlm_vocabulary vocabulary;
    ngramlm_grams words, bytes;
} ngramlm_model;

/* Length of the token that starts at data; 1 <= result <= length when length > 0. O(result). */
int64_t ngramlm_token(const uint8_t *data, int64_t length);

/* Ends of the tokens of a text, the document's own end not among them. ends int64[length] at most; returns their
 * number. O(length). */
int64_t ngramlm_split(const uint8_t *data, int64_t length, int64_t *ends);

/* Write ids of the tokens of all rows, each row closed by NGRAMLM_END; a null row writes nothing.
 *   ids     uint32[bytes of the rows + rows] at most
 *   cursor  {row, byte in the row, ids written, types known}: start at {0, 0, 0, 2}, or 2 -> what the vocabulary holds
 * Returns 1 when all rows are done; 0 when a table is full: enlarge slots, ends and arena, and call again with the same
 * cursor. O(bytes). */
int ngramlm_intern(const curate_text *text, ngramlm_vocabulary *vocabulary, int64_t cursor[4], uint32_t *ids);

/* Put the used slots of `from` into `to` (zeros, larger). O(from). */
void ngramlm_rehash(const ngramlm_slot *from, int64_t n, ngramlm_slot *to, uint64_t to_mask);

/* Count the grams of k symbols that end at symbols[start..n).
 *   lower   uint32[n], the id of the gram of k-1 symbols that ends at each position
 *   grams   uint32[n], written: the id of the gram of k symbols that ends at each position
 *   left    uint32[n_left], += 1 at a gram's last k-1 symbols for each new gram: their distinct left neighbours
 *   known   the number of grams in the table, updated
 * The counts of occurrences are in the slots. Returns the position reached: n, or less when the table is three quarters
 * full, or -1 when `lower` holds an id that `left` has no room for. symbols[0] must begin a document. O(n). */
int64_t ngramlm_count(const uint32_t *symbols, const uint32_t *lower, int64_t start, int64_t n, ngramlm_slot *slots,
                      uint64_t mask, int64_t *known, uint32_t *left, int64_t n_left, uint32_t *grams);

/* Close a level: take counts from `left` by gram id where it is given (every level but the highest), and sum them per
 * context into contexts [n_contexts][4] (zeros) and histogram [4] (zeros): the number of grams with count 1, 2, 3, 4.
 * Returns 0, or -1 when an id is out of range. O(slots). */
int ngramlm_fold(ngramlm_slot *slots, int64_t n, const uint32_t *left, int64_t n_left, uint32_t *contexts,
                 int64_t n_contexts, int64_t histogram[4]);

/* Bits of each row, its end included; NaN for a null row. out float64[rows]. Summed in the order of the tokens. */
void ngramlm_score(const ngramlm_model *model, const curate_text *text, double *out);

/* Bits of given tokens (data[ends[i-1] .. ends[i]), none empty, whether or not a text would be cut so) and of the end
 * after them. out float64[n + 1]. */
void ngramlm_score_tokens(const ngramlm_model *model, const uint8_t *data, const int64_t *ends, int64_t n, double *out);

/* Bits of each byte of one token and of the token's end under the byte model. out float64[length + 1]. */
void ngramlm_spell(const ngramlm_model *model, const uint8_t *data, int64_t length, double *out);

#endif
