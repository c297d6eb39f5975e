/* Lower-casing and tokens of one document at a time, in batches.
 *
 *   text   UTF-8 -> lower-cased exactly as CPython 3.11's str.lower() -> tokens of it:
 *          wordpunct  maximal runs of word characters, and maximal runs of characters neither word nor space
 *                     (re.findall(r"\w+|[^\w\s]+"))
 *          chars      each character that is not space
 *          words      maximal runs of characters that are not space (str.split())
 *          scripts    words, but each character of a script without spaces between words is a token of its own
 *                     (tokens_unspaced says which): "Python是" is two tokens
 *          terms      maximal runs of word characters, each unspaced one of them a token of its own; what is no word
 *                     character only separates: "don't" is two tokens
 *   \w \s  as in `re` or as in `regex`, Unicode 14 (unicode_tables.h)
 *
 * A byte that is not part of well-formed UTF-8 is kept, as one character of punctuation; callers validate first, this
 * only keeps damage from spreading.
 *
 * Bytes touched per byte of ASCII: one read of the text, one write of its lower case, one read of that by the hash.
 * Work per 64 bytes: classify (about 1.6 instructions a byte with SSE2, 0.8 with AVX2), two masks of token starts and
 * ends, one store per start and per end. No branch depends on where tokens lie, except through their number per block.
 *
 * Memory: the caller owns the stream and `lower`, of tokens_lower_bytes(longest document) bytes. Documents are at most
 * TOKENS_MAX_BYTES long, so that positions fit 32 bits. Cost O(bytes).
 */
#ifndef CURATE_TOKENS_H
#define CURATE_TOKENS_H

#include <stdint.h>

#include "text.h"

enum {
    TOKENS_BATCH = 1024,  /* a batch ends at the first block that reaches this many tokens: arrays stay in L1 */
    TOKENS_SLACK = 80,    /* a block of 64 bytes brings at most 64 tokens; 16 more may be written and ignored */
    TOKENS_HISTORY = 8,   /* tokens kept from the batch before, for n-grams of order up to 8 */
    TOKENS_PAD = 128,     /* bytes that may be read or written behind the lower-cased text */
};
#define TOKENS_MAX_BYTES ((int64_t)INT32_MAX)

enum { TOKENS_WORDPUNCT = 0, TOKENS_CHARS = 1, TOKENS_WORDS = 2, TOKENS_SCRIPTS = 3, TOKENS_TERMS = 4 };

typedef struct {
    int chars;        /* TOKENS_* */
    int regex_class;  /* 0 `re`, 1 `regex` */
    int simd;         /* SIMD_* bits that may be used */
} token_rules;

typedef struct {
    token_rules rules;
    const uint8_t *input, *readable_end; /* the document; where its buffer ends, >= input + length */
    int64_t length, at;
    uint8_t *lower;
    int64_t lower_length;
    uint64_t carry_first, carry_second; /* 1 if the last byte was inside a word (a token, but for wordpunct) / inside
                                           punctuation, or of an unspaced character (scripts, terms) */
    int64_t n_starts, n_ends;           /* starts and ends known, history included */
    int64_t history;                    /* the first `history` tokens were handed out in the batch before */
    uint32_t starts[TOKENS_HISTORY + TOKENS_BATCH + TOKENS_SLACK];
    uint32_t ends[TOKENS_HISTORY + TOKENS_BATCH + TOKENS_SLACK];
} token_stream;

static inline int64_t tokens_lower_bytes(int64_t longest_document) {
    return longest_document + longest_document / 2 + TOKENS_PAD;
}

/* Whether a character belongs to a script that puts no spaces between words: Thai, Lao, Tibetan, Myanmar, Khmer, Tai Le
 * to New Tai Lue, Tai Tham, Balinese, CJK punctuation, kana, bopomofo, Han, Yi, Javanese, Myanmar's extensions, Tai Viet,
 * full- and half-width forms, the supplementary planes of kana and Han. */
static inline int tokens_unspaced(uint32_t code) {
    if (code < 0x0e00) return 0;
    if (code < 0x3000)
        return code <= 0x109f || (code >= 0x1780 && code <= 0x17ff) || (code >= 0x1950 && code <= 0x19df) ||
                       (code >= 0x1a20 && code <= 0x1aaf) || (code >= 0x1b00 && code <= 0x1b7f);
    if (code <= 0xffff)
        return code <= 0x312f || (code >= 0x31a0 && code <= 0xa4cf) || (code >= 0xa980 && code <= 0xa9ff) ||
                       (code >= 0xaa60 && code <= 0xaadf) || (code >= 0xf900 && code <= 0xfaff) ||
                       (code >= 0xff00 && code <= 0xff9f);
    return (code >= 0x1aff0 && code <= 0x1b16f) || (code >= 0x20000 && code <= 0x3ffff);
}

/* Whether a token that scripts found is one unspaced character and no word. */
int tokens_is_alone(const uint8_t *token, int64_t bytes);

/* Count a text's characters that are not white space, and those of them that are unspaced. Most texts are told from a look
 * at their bytes to have no more than half of the latter: unspaced is then 0, and characters too. Cost O(bytes). */
typedef struct {
    int64_t characters, unspaced;
} tokens_scripts;

tokens_scripts tokens_count_scripts(const uint8_t *text, int64_t bytes);

/* Bytes of the well-formed character at p (1..4; 0 if there is none before `end`), its code point, and its class in `re`:
 * 0 other, 1 letter, digit or underscore, 2 white space. */
int tokens_character(const uint8_t *p, const uint8_t *end, uint32_t *code, int *class_);

/* Whether lower-casing changes a character. */
int tokens_upper(uint32_t code);

/* Begin a document. `lower` and `rules` of the stream must be set. */
void tokens_open(token_stream *stream, const uint8_t *input, int64_t length, const uint8_t *readable_end);

/* Hand out the next complete tokens: they are history .. n_ends - 1 of starts and ends (positions in `lower`), and the
 * tokens before them, up to keep, are those that came last. Returns their number, 0 at the end of the document. */
int64_t tokens_next(token_stream *stream, int64_t keep);

#endif
