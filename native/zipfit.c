#include "zipfit.h"

#include <string.h>

#include "simd.h"

/* zlib's constants: the window of 32 KiB stands in a buffer of twice that; a match reaches back at most 32,506 bytes. */
enum {
    WINDOW = 1 << 15,
    SHORTEST = 3,
    LONGEST = 258,
    AHEAD = LONGEST + SHORTEST + 1, /* bytes that zlib wants to see before it goes on */
    REACH = WINDOW - AHEAD,
    SLIDES_AT = WINDOW + REACH, /* how far into its buffer zlib goes before it drops the older half */
    TOO_FAR = 4096,             /* three bytes from farther away are not worth a distance */
    OWN_LINKS = 32000,          /* targets longer than this are linked anew in each pair: see `join` */
    NOWHERE = INT32_MAX,
};

typedef struct {
    int32_t good;  /* from a match of this length on, the next search is four times shorter */
    int32_t lazy;  /* a match of this length is taken without a look at the next byte (levels 1 to 3: entered byte by byte) */
    int32_t nice;  /* a match of this length ends a search */
    int32_t chain; /* places that a search looks at */
} effort;

static const effort efforts[10] = {
    {0, 0, 0, 0},      {4, 4, 8, 4},       {4, 5, 16, 8},      {4, 6, 32, 32},       {4, 4, 16, 16},
    {8, 16, 32, 32},   {8, 16, 128, 128},  {8, 32, 128, 256},  {32, 128, 258, 1024}, {32, 258, 258, 4096},
};

/* What a parse reads: the bytes, where their hashes stood before, and the prepared spots from `border` on. */
typedef struct {
    const zipfit_scratch *s;
    effort effort;
    int32_t total;
    int32_t border;
    const zipfit_spot *spots;
    const int32_t *back;
} view;

/* zlib between two steps. Places count from the document's start. */
typedef struct {
    int32_t at;
    int32_t base;   /* the place where zlib's buffer begins */
    int32_t block;  /* where the block began */
    int32_t length; /* of the match that began at at - 1, 2 for none */
    int32_t start;  /* where that match is from */
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

/* Equal bytes at the front of two words that differ by `difference`. */
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

/* Common bytes of a and b, at most 258; what stands behind the text's end is cut off by the caller. */
static int32_t common(const uint8_t *a, const uint8_t *b) {
    for (int32_t i = 0; i < LONGEST; i += 8) {
        uint64_t difference = load8(a + i) ^ load8(b + i);
        if (difference) {
            i += equal_bytes(difference);
            return i < LONGEST ? i : LONGEST;
        }
    }
    return LONGEST;
}

static inline int32_t larger(int32_t a, int32_t b) { return a > b ? a : b; }
static inline int32_t smaller(int32_t a, int32_t b) { return a < b ? a : b; }

/* ---------------------------------------------------------------- searching */

/* Follow the chain from `place` for a match at `at` that is longer than best.length: the latest of the longest. */
CURATE_INLINE match search(const view *v, int32_t at, int32_t place, int32_t limit, int32_t budget, match best) {
    const uint8_t *bytes = v->s->bytes, *here = bytes + at;
    const int32_t *links = v->s->links;
    int32_t ahead = v->total - at, nice = smaller(v->effort.nice, ahead);
    uint64_t word = load8(here);
    do {
        uint64_t difference = load8(bytes + place) ^ word;
        int32_t length = difference ? equal_bytes(difference) : common(bytes + place, here);
        if (length > best.length) {
            best.length = smaller(length, ahead);
            best.start = place;
            if (best.length >= nice) break;
        }
        place = links[place];
    } while (place > limit && --budget);
    return best;
}

/* The latest place that has been entered is let be one byte farther away than the others: zlib compares the two
 * distances differently. */
static inline int32_t first_limit(const state *z, int32_t at) { return larger(z->base, at - REACH - 1); }
static inline int32_t chain_limit(const state *z, int32_t at) { return larger(z->base, at - REACH); }

/* Where a shorter search does not reach all of a target's own places: walk them again. */
static match search_back(const view *v, int32_t at, int32_t budget, match best) {
    const uint8_t *bytes = v->s->bytes;
    int32_t ahead = v->total - at, nice = smaller(v->effort.nice, ahead);
    for (int32_t i = v->back[at - v->border]; i >= 0 && budget; i = v->back[i], budget--) {
        int32_t length = smaller(common(bytes + v->border + i, bytes + at), ahead);
        if (length <= best.length) continue;
        best = (match){length, v->border + i};
        if (length >= nice) break;
    }
    return best;
}

/* At a place of the target: what was prepared, then the document's places of the same hash. */
CURATE_INLINE match search_spot(const view *v, const state *z, int32_t at, int32_t budget, match best) {
    const zipfit_spot *spot = &v->spots[at - v->border];
    int32_t ahead = v->total - at, count = spot->count;
    if (ahead < SHORTEST) return best;
    if (CURATE_UNLIKELY(count > budget && budget < v->effort.chain)) return search_back(v, at, budget, best);
    if (spot->length > best.length) {
        best = (match){spot->length, at - spot->distance};
        if (best.length >= smaller(v->effort.nice, ahead)) return best;
    }
    int32_t place = v->s->heads[spot->hash];
    if (budget <= count || place <= (count ? chain_limit(z, at) : first_limit(z, at))) return best;
    return search(v, at, place, chain_limit(z, at), budget - count, best);
}

/* ---------------------------------------------------------------- symbols and blocks */

static inline int64_t stored_bytes(const state *z) { return z->block >= z->base ? z->at - z->block : -1; }

static void end_block(const view *v, state *z) {
    zipfit_block *block = &z->out;
    block->stored = stored_bytes(z);
    zipfit_blocks(&block, 1, v->s->simd, v->s->blocks);
    z->block = z->at;
    z->symbols = 0;
    memset(&block->counts, 0, sizeof block->counts);
    block->counts.literal[ZIPFIT_END] = 1;
}

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

/* ---------------------------------------------------------------- levels 4 to 9 */

/* Go on to the text's end; with `watch`, to the first step that more text could change, and stand before it. */
CURATE_INLINE void parse_slow(const view *v, state *z, int watch) {
    const int32_t total = v->total;
    for (;;) {
        int32_t at = z->at, ahead = total - at, before = z->length;
        match best = {before, 0};
        if (watch && (ahead < SHORTEST || slides_for_the_end(z, total))) return;
        if (CURATE_UNLIKELY(slides(z, total))) z->base += WINDOW;
        if (ahead == 0) return;
        if (before < v->effort.lazy && before < ahead) {
            int32_t budget = before >= v->effort.good ? v->effort.chain >> 2 : v->effort.chain;
            if (at >= v->border) best = search_spot(v, z, at, budget, best);
            else {
                int32_t place = ahead >= SHORTEST ? v->s->links[at] : 0;
                if (place > first_limit(z, at)) best = search(v, at, place, chain_limit(z, at), budget, best);
            }
            if (watch && best.length == ahead && ahead < LONGEST) return;
            if (best.length == SHORTEST && at - best.start > TOO_FAR) best.length = SHORTEST - 1;
        } else if (watch && before < v->effort.lazy) return;
        if (before >= SHORTEST && best.length <= before) {
            int full = tally_match(z, before, at - 1 - z->start);
            z->at = at + before - 1;
            z->pending = 0;
            z->length = SHORTEST - 1;
            if (CURATE_UNLIKELY(full)) end_block(v, z);
            continue;
        }
        if (z->pending && CURATE_UNLIKELY(tally_literal(z, v->s->bytes[at - 1]))) end_block(v, z);
        z->pending = 1;
        z->at = at + 1;
        z->length = best.length;
        z->start = best.start;
    }
}

static void parse_slow_to_end(const view *v, state *z) {
    parse_slow(v, z, 0);
    if (z->pending) tally_literal(z, v->s->bytes[z->at - 1]);
}

/* ---------------------------------------------------------------- levels 1 to 3 */

static inline void enter(const view *v, state *z, int32_t place) {
    uint32_t hash = hash3(v->s->bytes + place);
    v->s->links[place] = v->s->heads[hash];
    v->s->heads[hash] = place;
    v->s->inserted[z->entered++] = place;
}

/* Take out again what was entered after the first `keep`. */
static void leave(const view *v, state *z, int32_t keep) {
    while (z->entered > keep) {
        int32_t place = v->s->inserted[--z->entered];
        v->s->heads[hash3(v->s->bytes + place)] = v->s->links[place];
    }
}

static void parse_fast(const view *v, state *z, int watch) {
    const int32_t total = v->total;
    for (;;) {
        int32_t at = z->at, ahead = total - at, full;
        match best = {SHORTEST - 1, 0};
        if (watch && (ahead < SHORTEST || slides_for_the_end(z, total))) return;
        if (slides(z, total)) z->base += WINDOW;
        if (ahead == 0) return;
        if (ahead >= SHORTEST) {
            enter(v, z, at);
            int32_t place = v->s->links[at];
            if (place > first_limit(z, at)) best = search(v, at, place, chain_limit(z, at), v->effort.chain, best);
        }
        if (watch && (best.length == ahead || (best.length >= SHORTEST && best.length > ahead - SHORTEST))) {
            leave(v, z, z->entered - 1);
            return;
        }
        if (best.length >= SHORTEST) {
            full = tally_match(z, best.length, at - best.start);
            z->at = at + best.length;
            if (best.length <= v->effort.lazy && total - z->at >= SHORTEST)
                for (int32_t place = at + 1; place < z->at; place++) enter(v, z, place);
        } else {
            full = tally_literal(z, v->s->bytes[at]);
            z->at = at + 1;
        }
        if (full) end_block(v, z);
    }
}

/* ---------------------------------------------------------------- documents and targets */

static const uint8_t *row_of(const curate_text *text, int64_t row, int32_t *length) {
    int64_t start = text_offset(text, row);
    *length = (int32_t)(text_offset(text, row + 1) - start);
    return text->data + start;
}

/* Enter the places from `from` to the last that has three bytes. */
static void link_places(const zipfit_scratch *s, int32_t from, int32_t total) {
    for (int32_t place = from; place + SHORTEST <= total; place++) {
        uint32_t hash = hash3(s->bytes + place);
        s->links[place] = s->heads[hash];
        s->heads[hash] = place;
    }
}

static void unlink_places(const zipfit_scratch *s, int32_t from, int32_t total) {
    for (int32_t place = total - SHORTEST; place >= from; place--)
        s->heads[hash3(s->bytes + place)] = s->links[place];
}

/* The best place of each position inside the target, by the whole search of the level. */
static void prepare(const zipfit_scratch *s, effort effort, const uint8_t *target, int32_t length, zipfit_spot *spots,
                    int32_t *back) {
    memcpy(s->bytes, target, (size_t)length);
    view v = {s, effort, length, 0, spots, back};
    for (int32_t at = 0; at + SHORTEST <= length; at++) {
        uint32_t hash = hash3(s->bytes + at);
        back[at] = s->heads[hash] - 1;
        s->heads[hash] = at + 1;
        int32_t earlier = back[at] < 0 ? 0 : spots[back[at]].count + 1;
        match best = search_back(&v, at, effort.chain, (match){SHORTEST - 1, 0});
        int is_match = best.length >= SHORTEST;
        spots[at] = (zipfit_spot){(uint16_t)hash, (uint16_t)smaller(earlier, UINT16_MAX),
                                  (uint16_t)(is_match ? best.length : 0), (uint16_t)(is_match ? at - best.start : 0)};
    }
    for (int32_t at = 0; at + SHORTEST <= length; at++) s->heads[hash3(s->bytes + at)] = 0;
}

static void prepare_all(const curate_text *targets, int level, const zipfit_scratch *s) {
    int64_t at = 0;
    for (int64_t j = 0; j < targets->length; j++) {
        int32_t length;
        const uint8_t *target = row_of(targets, j, &length);
        if (level > 3 && length <= OWN_LINKS) prepare(s, efforts[level], target, length, s->spots + at, s->back + at);
        at += length;
    }
}

/* Follow the document with a target, from the state at which they part ways, up to the last block, which is left open.
 * A target's own links say nothing of place 0, which zlib cannot match, nor of places out of reach: a target that
 * begins at place 0 or is long is linked as if it were part of the document. */
static void join(view *v, state *z, int is_fast, int32_t document, int32_t target) {
    int32_t from = larger(document - SHORTEST + 1, 0), entered = z->entered;
    int is_linked = document == 0 || target > OWN_LINKS;
    int32_t linked = is_linked ? v->total : smaller(v->total, document + SHORTEST - 1);
    v->border = is_linked ? NOWHERE : document;
    if (is_fast) {
        parse_fast(v, z, 0);
        leave(v, z, entered);
        return;
    }
    link_places(v->s, from, linked);
    parse_slow_to_end(v, z);
    unlink_places(v->s, from, linked);
}

/* Streams that wait for their last block: a vector's lanes of them are worked on together, whatever document they are of. */
typedef struct {
    state states[ZIPFIT_LANES];
    int64_t *out[ZIPFIT_LANES];
    int n;
} queue;

static void finish(const zipfit_scratch *s, queue *q) {
    zipfit_block *blocks[ZIPFIT_LANES];
    for (int i = 0; i < q->n; i++) {
        blocks[i] = &q->states[i].out;
        blocks[i]->stored = stored_bytes(&q->states[i]);
    }
    zipfit_blocks(blocks, q->n, s->simd, s->blocks);
    for (int i = 0; i < q->n; i++) *q->out[i] = (int64_t)((blocks[i]->bits + 7) >> 3);
    q->n = 0;
}

static void forget(const zipfit_scratch *s, int32_t length) {
    if (length > ZIPFIT_HEADS / 2) memset(s->heads, 0, ZIPFIT_HEADS * sizeof *s->heads);
    else
        for (int32_t place = 0; place + SHORTEST <= length; place++) s->heads[hash3(s->bytes + place)] = 0;
}

static void measure_one(const uint8_t *document, int32_t length, const curate_text *targets, int level,
                        const zipfit_scratch *s, queue *q, int64_t *own, int64_t *joined) {
    state parting = {.length = SHORTEST - 1, .out.counts.literal[ZIPFIT_END] = 1};
    int64_t spot = 0;
    int is_fast = level <= 3;
    view v = {s, efforts[level], length, NOWHERE, NULL, NULL};
    memcpy(s->bytes, document, (size_t)length);
    if (is_fast) parse_fast(&v, &parting, 1);
    else {
        link_places(s, 0, length);
        parse_slow(&v, &parting, 1);
    }
    for (int64_t j = -1; j < targets->length; j++) { /* -1: nothing follows */
        int32_t size = 0;
        const uint8_t *target = j < 0 ? s->bytes : row_of(targets, j, &size);
        memcpy(s->bytes + length, target, (size_t)size);
        v.total = length + size;
        v.spots = s->spots + spot;
        v.back = s->back + spot;
        q->states[q->n] = parting;
        join(&v, &q->states[q->n], is_fast, length, size);
        q->out[q->n++] = j < 0 ? own : joined + j;
        spot += size;
        if (q->n == ZIPFIT_LANES) finish(s, q);
    }
    forget(s, length);
}

void zipfit_measure(const curate_text *text, const curate_text *targets, int level, const zipfit_scratch *scratch,
                    int64_t *own, int64_t *joined) {
    queue q = {.n = 0};
    zipfit_blocks_open(scratch->blocks);
    prepare_all(targets, level, scratch);
    for (int64_t row = 0; row < text->length; row++, own++, joined += targets->length) {
        if (text_is_null(text, row)) {
            *own = -1;
            for (int64_t j = 0; j < targets->length; j++) joined[j] = -1;
            continue;
        }
        int32_t length;
        const uint8_t *document = row_of(text, row, &length);
        measure_one(document, length, targets, level, scratch, &q, own, joined);
    }
    finish(scratch, &q);
}
