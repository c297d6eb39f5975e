#include "zipfit_target.h"

enum { NO_DISTANCE = 31, NEVER = 0xffff }; /* a counter that no tree reads; a state that no parse is in */

/* ---------------------------------------------------------------- which grams a document has */

static inline void enter_gram(const zipfit_scratch *s, uint32_t gram) { s->filter[gram >> 3] |= (uint8_t)(1 << (gram & 7)); }

void zipfit_filter_fill(const zipfit_scratch *s, int32_t document) {
    memset(s->filter, 0, ZIPFIT_FILTER_BYTES);
    for (int32_t place = 0; place + 3 <= document; place++) enter_gram(s, hash3(s->bytes + place));
    for (int32_t place = 0; place + 4 <= document; place++) enter_gram(s, gram4(s->bytes + place));
}

/* Grams that begin in the document's last bytes and go on into the target are entered for one pair, and what stood in
 * the filter before is kept. */
typedef struct {
    uint32_t gram[5];
    uint8_t before[5];
    int n;
} border_grams;

static void enter_border(const view *v, border_grams *b) {
    for (int32_t size = 3; size <= 4; size++)
        for (int32_t place = larger(v->border - size + 1, 0); place < v->border && place + size <= v->total; place++) {
            const uint8_t *bytes = v->s->bytes + place;
            b->gram[b->n] = size == 3 ? hash3(bytes) : gram4(bytes);
            b->before[b->n] = v->s->filter[b->gram[b->n] >> 3];
            enter_gram(v->s, b->gram[b->n++]);
        }
}

static void leave_border(const view *v, border_grams *b) {
    while (b->n-- > 0) v->s->filter[b->gram[b->n] >> 3] = b->before[b->n];
}

/* ---------------------------------------------------------------- a target alone */

static inline uint16_t state_of(const state *z) { return (uint16_t)(z->length << 1 | z->pending); }

/* The best place of each position inside the target, by the whole search of the level. */
static void fill_spots(const view *v, zipfit_spot *spots) {
    const zipfit_scratch *s = v->s;
    for (int32_t at = 0; at + SHORTEST <= v->total; at++) {
        uint32_t hash = hash3(s->bytes + at);
        int32_t back = s->heads[hash];
        s->heads[hash] = at + 1;
        spots[at] = (zipfit_spot){.hash = (uint16_t)hash, .back = (uint16_t)back};
        if (!back) continue;
        match best = search_back(v, at, v->effort.chain, (match){SHORTEST - 1, 0});
        spots[at].count = (uint16_t)(spots[back - 1].count + 1);
        if (best.length < SHORTEST) continue;
        spots[at].length = (uint16_t)best.length;
        spots[at].distance = (uint16_t)(at - best.start);
    }
    for (int32_t at = 0; at + SHORTEST <= v->total; at++) s->heads[hash3(s->bytes + at)] = 0;
}

/* What a document must have for the search at z->at to end otherwise; -1 where it is not searched at all. */
static int32_t question(const view *v, const state *z) {
    int32_t at = z->at, ahead = v->total - at;
    const zipfit_spot *spot = &v->spots[at];
    if (ahead < SHORTEST || z->length >= v->effort.lazy || z->length >= ahead) return -1;
    if (spot->count >= budget_after(v, z->length)) return -1;
    int32_t best = larger(spot->length, z->length);
    if (spot->length > z->length && best >= smaller(v->effort.nice, ahead)) return -1;
    if (best >= ahead) return -1;
    return best < SHORTEST ? spot->hash : (int32_t)gram4(v->s->bytes + at);
}

static void add_symbol(zipfit_target *t, int literal, int distance) {
    t->symbols[t->n_symbols++] = (zipfit_symbol){(uint16_t)literal, (uint16_t)distance};
}

/* Follow the parse of the target alone, writing down where it stands at each step and what it writes. */
static void parse_alone(const view *v, zipfit_target *t) {
    state z = {.length = SHORTEST - 1};
    for (int32_t at = 0; at < v->total; at++) t->stages[at].state = NEVER;
    while (z.at < v->total) {
        zipfit_stage *stage = &t->stages[z.at];
        int32_t at = z.at, length = z.length, distance = at - 1 - z.start, symbols = z.symbols;
        int32_t asks = question(v, &z);
        *stage = (zipfit_stage){(uint16_t)t->n_symbols, state_of(&z), (uint16_t)distance};
        if (asks >= 0) {
            t->grams[t->n_questions] = (uint16_t)asks;
            t->places[t->n_questions++] = (uint16_t)at;
        }
        take(v, &z, look(v, &z));
        if (z.symbols == symbols) continue;
        if (z.pending) add_symbol(t, v->s->bytes[at - 1], NO_DISTANCE);
        else
            add_symbol(t, 257 + zipfit_length_code((uint32_t)(length - SHORTEST)),
                       zipfit_distance_code((uint32_t)(distance - 1)));
    }
    if (z.pending) add_symbol(t, v->s->bytes[v->total - 1], NO_DISTANCE);
}

void zipfit_prepare(const zipfit_scratch *s, effort effort, const uint8_t *bytes, int32_t length, zipfit_target *t) {
    view v = {s, effort, length, 0, t->spots};
    memcpy(s->bytes, bytes, (size_t)length);
    fill_spots(&v, t->spots);
    t->n_symbols = t->n_questions = t->n_leaves = 0;
    parse_alone(&v, t);
    memset(&t->counts, 0, sizeof t->counts);
    for (int32_t i = 0; i < t->n_symbols; i++) {
        t->counts.literal[t->symbols[i].literal]++;
        t->counts.distance[t->symbols[i].distance]++;
    }
    for (int i = 0; i < 288; i++) t->n_leaves += t->counts.literal[i] != 0;
}

/* ---------------------------------------------------------------- a target behind a document */

/* Which of the target's questions the document may answer, in order; some of the answers will be no. */
static int32_t ask(const zipfit_scratch *s, const zipfit_target *t) {
    int32_t n = 0;
    for (int32_t i = 0; i < t->n_questions; i++) {
        uint32_t gram = t->grams[i];
        s->asked[n] = t->places[i];
        n += has_gram(s, gram);
    }
    return n;
}

/* Whether the parse stands where it stood alone: then all that follows is the same until a question is answered. */
static inline int in_step(const state *z, const zipfit_stage *stage, int32_t at) {
    if (stage->state != state_of(z)) return 0;
    return z->length < SHORTEST || at - 1 - z->start == stage->distance;
}

/* Take the symbols from .. to - 1 of the target alone out of the counts. */
static inline void take_out(zipfit_counts *counts, const zipfit_target *t, int32_t from, int32_t to) {
    for (int32_t i = from; i < to; i++) {
        counts->literal[t->symbols[i].literal]--;
        counts->distance[t->symbols[i].distance]--;
    }
}

static inline void add_counts(zipfit_counts *to, const zipfit_counts *from) {
    for (int i = 0; i < 288; i++) to->literal[i] = (uint16_t)(to->literal[i] + from->literal[i]);
    for (int i = 0; i < 32; i++) to->distance[i] = (uint16_t)(to->distance[i] + from->distance[i]);
}

/* Step until the parse is in step, or at the end; returns how many symbols the target alone had written there. */
static int32_t catch_up(const view *v, state *z, const zipfit_target *t) {
    for (; z->at < v->total; take(v, z, look(v, z)))
        if (z->at >= v->border && in_step(z, &t->stages[z->at - v->border], z->at))
            return t->stages[z->at - v->border].symbols;
    if (z->pending) tally_literal(z, v->s->bytes[v->total - 1]);
    return t->n_symbols;
}

/* From a place in step, the next question that is answered by a longer match; its step is taken. 0 where there is none. */
static int32_t part_ways(const view *v, state *z, const zipfit_target *t, int32_t *asked, int32_t n, int32_t *symbols) {
    for (; *asked < n; ++*asked) {
        int32_t i = v->s->asked[*asked], at = v->border + i;
        const zipfit_stage *stage = &t->stages[i];
        if (at < z->at) continue;
        int32_t length = stage->state >> 1, own = larger(length, t->spots[i].length);
        match best = search_spot(v, z, at, budget_after(v, length), (match){length, 0});
        if (best.length <= own || (best.length == SHORTEST && at - best.start > TOO_FAR)) continue;
        z->at = at;
        z->length = length;
        z->start = at - 1 - stage->distance;
        z->pending = stage->state & 1;
        *symbols = stage->symbols;
        take(v, z, best);
        ++*asked;
        return 1;
    }
    return 0;
}

void zipfit_follow(view *v, state *z, int32_t document, const zipfit_target *t) {
    border_grams border = {.n = 0};
    v->border = document;
    v->spots = t->spots;
    enter_border(v, &border);
    int32_t asked = 0, n = ask(v->s, t), from = 0;
    add_counts(&z->out.counts, &t->counts);
    for (;;) {
        take_out(&z->out.counts, t, from, catch_up(v, z, t));
        if (z->at >= v->total || !part_ways(v, z, t, &asked, n, &from)) break;
    }
    z->at = v->total;
    leave_border(v, &border);
}
