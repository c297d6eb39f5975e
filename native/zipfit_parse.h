/* One step of zlib's parse, for the files of zipfit: constants, the state between two steps, searching, counting symbols.
 *
 * Places are int32 from the document's start. Nothing here allocates or keeps anything; a `view` borrows the scratch.
 */
#ifndef CURATE_ZIPFIT_PARSE_H
#define CURATE_ZIPFIT_PARSE_H

#include <string.h>

#include "simd.h"
#include "zipfit.h"

/* zlib's constants: the window of 32 KiB stands in a buffer of twice that; a match reaches back at most 32,506 bytes. */
enum {
    WINDOW = 1 << 15,
    SHORTEST = 3,
    LONGEST = 258,
    AHEAD = LONGEST + SHORTEST + 1, /* bytes that zlib wants to see before it goes on */
    REACH = WINDOW - AHEAD,
    SLIDES_AT = WINDOW + REACH, /* how far into its buffer zlib goes before it drops the older half */
    TOO_FAR = 4096,             /* three bytes from farther away are not worth a distance */
    NOWHERE = INT32_MAX,
};

typedef struct {
    int32_t good;  /* from a match of this length on, the next search is four times shorter */
    int32_t lazy;  /* a match of this length is taken without a look at the next byte (levels 1 to 3: entered byte by byte) */
    int32_t nice;  /* a match of this length ends a search */
    int32_t chain; /* places that a search looks at */
} effort;

/* What a parse reads: the bytes, where their hashes stood before, and the prepared spots from `border` on. */
typedef struct {
    const zipfit_scratch *s;
    effort effort;
    int32_t total;
    int32_t border;
    const zipfit_spot *spots;
    uint32_t *symbols; /* where a document's symbols are added up, or NULL (zipfit_fast.h) */
} view;

/* zlib between two steps. */
typedef struct {
    int32_t at;
    int32_t base;    /* the place where zlib's buffer begins */
    int32_t block;   /* where the block began */
    int32_t length;  /* of the match that began at at - 1, 2 for none */
    int32_t start;   /* where that match is from */
    int32_t pending; /* whether the byte at at - 1 is still to be written */
    int32_t symbols; /* in the block */
    int32_t entered; /* places entered (levels 1 to 3) */
    zipfit_block out;
} state;

typedef struct {
    int32_t length, start;
} match;

/* ---------------------------------------------------------------- bytes */

static inline uint64_t load8(const uint8_t *p) {
    uint64_t word;
    memcpy(&word, p, 8);
    return word;
}

/* Equal bytes at the front of two words that differ by `difference`; a difference in LAST_BYTE makes that 7 at most. */
#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
#define LAST_BYTE UINT64_C(1)
#else
#define LAST_BYTE (UINT64_C(1) << 63)
#endif

static inline int32_t equal_bytes(uint64_t difference) {
#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    return __builtin_clzll(difference) >> 3;
#else
    return __builtin_ctzll(difference) >> 3;
#endif
}

static inline uint32_t hash3(const uint8_t *p) {
    return ((uint32_t)p[0] << 10 ^ (uint32_t)p[1] << 5 ^ (uint32_t)p[2]) & (ZIPFIT_HEADS - 1);
}

/* A bit of the filter for four bytes; their first three have the bit of their hash. */
static inline uint32_t gram4(const uint8_t *p) {
    uint32_t word = (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
    return ZIPFIT_HEADS | (word * 2654435761u) >> 17;
}

static inline int has_gram(const zipfit_scratch *s, uint32_t gram) { return s->filter[gram >> 3] >> (gram & 7) & 1; }

static inline int32_t larger(int32_t a, int32_t b) { return a > b ? a : b; }
static inline int32_t smaller(int32_t a, int32_t b) { return a < b ? a : b; }

/* Common bytes of a and b from the 8th on, where the first 8 are equal; at most 258. What stands behind the text's end
 * is cut off by the caller. */
static inline int32_t common(const uint8_t *a, const uint8_t *b) {
    for (int32_t i = 8; i < LONGEST; i += 8) {
        uint64_t difference = load8(a + i) ^ load8(b + i);
        if (difference) return smaller(i + equal_bytes(difference), LONGEST);
    }
    return LONGEST;
}

/* ---------------------------------------------------------------- searching */

/* Follow the chain from `place` for a match at `at` that is longer than best.length: the latest of the longest. Places
 * come latest first, so that is the largest pair of (length, place), and no branch has to guess whether one is better. */
CURATE_INLINE match search(const view *v, int32_t at, int32_t place, int32_t limit, int32_t budget, match best) {
    const uint8_t *bytes = v->s->bytes, *here = bytes + at;
    const int32_t *links = v->s->links;
    int32_t ahead = v->total - at, nice = smaller(v->effort.nice, ahead);
    uint64_t word = load8(here), most = (uint64_t)best.length << 32 | UINT32_MAX;
    do {
        uint64_t difference = load8(bytes + place) ^ word;
        int32_t length = equal_bytes(difference | LAST_BYTE);
        if (CURATE_UNLIKELY(!difference)) length = common(bytes + place, here);
        uint64_t found = (uint64_t)smaller(length, ahead) << 32 | (uint32_t)place;
        most = found > most ? found : most;
        if (CURATE_UNLIKELY((int32_t)(most >> 32) >= nice)) break;
        place = links[place];
    } while (place > limit && --budget);
    if ((uint32_t)most == UINT32_MAX) return best;
    return (match){(int32_t)(most >> 32), (int32_t)(uint32_t)most};
}

/* The latest place that was entered may be one byte farther away than the others: zlib compares the two distances
 * differently. */
static inline int32_t first_limit(const state *z, int32_t at) { return larger(z->base, at - REACH - 1); }
static inline int32_t chain_limit(const state *z, int32_t at) { return larger(z->base, at - REACH); }

/* A search among a target's own places alone. */
static inline match search_back(const view *v, int32_t at, int32_t budget, match best) {
    const uint8_t *bytes = v->s->bytes, *here = bytes + at;
    int32_t ahead = v->total - at, nice = smaller(v->effort.nice, ahead);
    for (int32_t i = v->spots[at - v->border].back; i && budget; budget--) {
        int32_t place = v->border + i - 1;
        uint64_t difference = load8(bytes + place) ^ load8(here);
        int32_t length = smaller(difference ? equal_bytes(difference) : common(bytes + place, here), ahead);
        i = v->spots[i - 1].back;
        if (length <= best.length) continue;
        best = (match){length, place};
        if (length >= nice) break;
    }
    return best;
}

/* At a place of the target: what was prepared, then the document's places of the same hash. Where a shorter search does
 * not reach all of the target's own places, they are walked again. */
CURATE_INLINE match search_spot(const view *v, const state *z, int32_t at, int32_t budget, match best) {
    const zipfit_spot *spot = &v->spots[at - v->border];
    int32_t ahead = v->total - at, count = spot->count;
    if (ahead < SHORTEST) return best;
    if (CURATE_UNLIKELY(count > budget && budget < v->effort.chain)) return search_back(v, at, budget, best);
    if (spot->length > best.length) {
        best = (match){spot->length, at - spot->distance};
        if (best.length >= smaller(v->effort.nice, ahead)) return best;
    }
    if (!has_gram(v->s, best.length < SHORTEST ? spot->hash : gram4(v->s->bytes + at))) return best;
    int32_t place = v->s->heads[spot->hash];
    if (budget <= count || place <= (count ? chain_limit(z, at) : first_limit(z, at))) return best;
    return search(v, at, place, chain_limit(z, at), budget - count, best);
}

/* ---------------------------------------------------------------- symbols and blocks */

static inline int64_t stored_bytes(const state *z) { return z->block >= z->base ? z->at - z->block : -1; }

void zipfit_end_block(const view *v, state *z);

/* Both say whether the block is full. */
static inline int tally_match(state *z, int32_t length, int32_t distance) {
    z->out.counts.literal[257 + zipfit_length_code((uint32_t)(length - SHORTEST))]++;
    z->out.counts.distance[zipfit_distance_code((uint32_t)(distance - 1))]++;
    return ++z->symbols == ZIPFIT_BLOCK_SYMBOLS;
}

static inline int tally_literal(state *z, uint8_t byte) {
    z->out.counts.literal[byte]++;
    return ++z->symbols == ZIPFIT_BLOCK_SYMBOLS;
}

/* Whether zlib drops the older half of its buffer here: where less than AHEAD is left of the buffer, or of the text. */
static inline int slides(const state *z, int32_t total) {
    int32_t in_buffer = z->at - z->base;
    return in_buffer > SLIDES_AT || (in_buffer == SLIDES_AT && total - z->at < AHEAD);
}

/* Whether only the text's end makes it slide, so that with more text it might not. */
static inline int slides_for_the_end(const state *z, int32_t total) {
    return z->at - z->base == SLIDES_AT && total - z->at < AHEAD;
}

/* ---------------------------------------------------------------- a step of levels 4 to 9 */

static inline int32_t budget_after(const view *v, int32_t before) {
    return before >= v->effort.good ? v->effort.chain >> 2 : v->effort.chain;
}

/* The match that is best at z->at, if a match before it leaves anything to look for. */
CURATE_INLINE match look(const view *v, const state *z) {
    int32_t at = z->at, ahead = v->total - at;
    match best = {z->length, 0};
    if (z->length >= v->effort.lazy || z->length >= ahead) return best;
    if (at >= v->border) return search_spot(v, z, at, budget_after(v, z->length), best);
    int32_t place = ahead >= SHORTEST ? v->s->links[at] : 0;
    if (place <= first_limit(z, at)) return best;
    return search(v, at, place, chain_limit(z, at), budget_after(v, z->length), best);
}

/* Take what was found: the match before, if this one is no longer; else its byte waits, and the one before is written.
 * `ends` is 0 where no block can end. */
CURATE_INLINE void take(const view *v, state *z, match best, const int ends) {
    int32_t at = z->at, before = z->length;
    if (best.length == SHORTEST && at - best.start > TOO_FAR) best.length = SHORTEST - 1;
    if (before >= SHORTEST && best.length <= before) {
        int full = tally_match(z, before, at - 1 - z->start);
        z->at = at + before - 1;
        z->pending = 0;
        z->length = SHORTEST - 1;
        if (ends && CURATE_UNLIKELY(full)) zipfit_end_block(v, z);
        return;
    }
    if (z->pending && tally_literal(z, v->s->bytes[at - 1]) && ends) zipfit_end_block(v, z);
    z->pending = 1;
    z->at = at + 1;
    z->length = best.length;
    z->start = best.start;
}

#endif
