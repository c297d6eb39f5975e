#include "zipfit_target.h"

enum { NO_DISTANCE = 31, NEVER = 0xffff }; /* a counter that no tree reads; a state that no parse is in */

/* ---------------------------------------------------------------- which grams a document has */

static inline int enter_gram(const zipfit_scratch *s, uint32_t gram) {
    int is_new = !has_gram(s, gram);
    s->filter[gram >> 3] |= (uint8_t)(1 << (gram & 7));
    return is_new;
}

/* Mark the questions that ask for a gram. */
static inline void mark(const zipfit_scratch *s, uint32_t gram) {
    for (uint32_t i = s->asking[gram]; i < s->asking[gram + 1]; i++) {
        uint32_t question = s->asked[i];
        s->marked[question >> 6] |= UINT64_C(1) << (question & 63);
    }
}

void zipfit_document(const zipfit_scratch *s, int32_t document) {
    memset(s->filter, 0, ZIPFIT_FILTER_BYTES);
    memset(s->marked, 0, (size_t)(s->n_questions / 64 + 1) * sizeof *s->marked);
    for (int32_t place = 0; place + 3 <= document; place++) {
        uint32_t gram = hash3(s->bytes + place);
        if (enter_gram(s, gram)) mark(s, gram);
    }
    for (int32_t place = 0; place + 4 <= document; place++) {
        uint32_t gram = gram4(s->bytes + place);
        if (enter_gram(s, gram)) mark(s, gram);
    }
}

/* Grams that begin in the document's last bytes and go on into the target are entered for one pair. */
typedef struct {
    uint32_t gram[5];
    int n;
} border_grams;

static void enter_border(const view *v, border_grams *b, uint32_t first, uint32_t last) {
    const zipfit_scratch *s = v->s;
    for (int32_t size = 3; size <= 4; size++) {
        for (int32_t place = larger(v->border - size + 1, 0); place < v->border && place + size <= v->total; place++) {
            uint32_t gram = size == 3 ? hash3(s->bytes + place) : gram4(s->bytes + place);
            if (!enter_gram(s, gram)) continue;
            b->gram[b->n++] = gram;
            for (uint32_t i = s->asking[gram]; i < s->asking[gram + 1]; i++) {
                uint32_t question = s->asked[i];
                if (question >= first && question < last) s->marked[question >> 6] |= UINT64_C(1) << (question & 63);
            }
        }
    }
}

static void leave_border(const view *v, const border_grams *b) {
    for (int i = 0; i < b->n; i++) v->s->filter[b->gram[i] >> 3] &= (uint8_t)~(1 << (b->gram[i] & 7));
}

void zipfit_index(zipfit_scratch *s, int64_t n) {
    uint32_t all = 0;
    memset(s->asking, 0, (ZIPFIT_GRAMS + 1) * sizeof *s->asking);
    for (int64_t j = 0; j < n; j++)
        for (int32_t i = 0; i < s->targets[j].n_questions; i++) s->asking[s->targets[j].grams[i]]++;
    for (int gram = 0; gram <= ZIPFIT_GRAMS; gram++) s->asking[gram] = all += s->asking[gram];
    s->n_questions = all;
    for (int64_t j = n - 1; j >= 0; j--) {
        s->targets[j].first_question = all -= (uint32_t)s->targets[j].n_questions;
        for (int32_t i = s->targets[j].n_questions - 1; i >= 0; i--)
            s->asked[--s->asking[s->targets[j].grams[i]]] = all + (uint32_t)i;
    }
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
        take(v, &z, look(v, &z), 0);
        if (z.symbols == symbols) continue;
        if (z.pending) add_symbol(t, v->s->bytes[at - 1], NO_DISTANCE);
        else
            add_symbol(t, 257 + zipfit_length_code((uint32_t)(length - SHORTEST)),
                       zipfit_distance_code((uint32_t)(distance - 1)));
    }
    if (z.pending) add_symbol(t, v->s->bytes[v->total - 1], NO_DISTANCE);
}

void zipfit_prepare(const zipfit_scratch *s, effort effort, const uint8_t *bytes, int32_t length, zipfit_target *t) {
    view v = {s, effort, length, 0, t->spots, NULL};
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
    for (; z->at < v->total; take(v, z, look(v, z), 0))
        if (z->at >= v->border && in_step(z, &t->stages[z->at - v->border], z->at))
            return t->stages[z->at - v->border].symbols;
    if (z->pending) tally_literal(z, v->s->bytes[v->total - 1]);
    return t->n_symbols;
}

/* The first marked question from `question` to last - 1; `last` where there is none. */
static inline uint32_t next_marked(const zipfit_scratch *s, uint32_t question, uint32_t last) {
    if (question >= last) return last;
    uint64_t word = s->marked[question >> 6] >> (question & 63);
    if (word) question += (uint32_t)__builtin_ctzll(word);
    else {
        uint32_t at = question >> 6;
        do {
            if (++at > (last - 1) >> 6) return last;
        } while (!s->marked[at]);
        question = at * 64 + (uint32_t)__builtin_ctzll(s->marked[at]);
    }
    return question < last ? question : last;
}

/* From a place in step, the next question that is answered by a longer match; its step is taken. Returns the question
 * after it, 0 where there is none. */
static uint32_t part_ways(const view *v, state *z, const zipfit_target *t, uint32_t question, int32_t *symbols) {
    const uint32_t first = t->first_question, last = first + (uint32_t)t->n_questions;
    for (;; question++) {
        question = next_marked(v->s, question, last);
        if (question == last) return 0;
        int32_t i = t->places[question - first], at = v->border + i;
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
        take(v, z, best, 0);
        return question + 1;
    }
}

void zipfit_follow(view *v, state *z, int32_t document, const zipfit_target *t) {
    border_grams border = {.n = 0};
    uint32_t question = t->first_question;
    int32_t from = 0;
    v->border = document;
    v->spots = t->spots;
    enter_border(v, &border, question, question + (uint32_t)t->n_questions);
    add_counts(&z->out.counts, &t->counts);
    for (;;) {
        take_out(&z->out.counts, t, from, catch_up(v, z, t));
        if (z->at >= v->total) break;
        question = part_ways(v, z, t, question, &from);
        if (!question) break;
    }
    z->at = v->total;
    leave_border(v, &border);
}
