#include "zipfit.h"

#include "zipfit_fast.h"
#include "zipfit_target.h"

static const effort efforts[10] = {
    {0, 0, 0, 0},      {4, 4, 8, 4},       {4, 5, 16, 8},      {4, 6, 32, 32},       {4, 4, 16, 16},
    {8, 16, 32, 32},   {8, 16, 128, 128},  {8, 32, 128, 256},  {32, 128, 258, 1024}, {32, 258, 258, 4096},
};

/* Add a block's symbols to those of its document. */
static void add_symbols(uint32_t *to, const zipfit_counts *counts) {
    for (int i = 0; i < ZIPFIT_DISTANCE_AT; i++) to[i] += counts->literal[i];
    for (int i = 0; i < ZIPFIT_SYMBOLS - ZIPFIT_DISTANCE_AT; i++) to[ZIPFIT_DISTANCE_AT + i] += counts->distance[i];
}

void zipfit_end_block(const view *v, state *z) {
    zipfit_block *block = &z->out;
    if (v->symbols) add_symbols(v->symbols, &block->counts);
    block->stored = stored_bytes(z);
    zipfit_blocks(&block, 1, v->s->simd, v->s->blocks);
    z->block = z->at;
    z->symbols = 0;
    memset(&block->counts, 0, sizeof block->counts);
    block->counts.literal[ZIPFIT_END] = 1;
}

/* ---------------------------------------------------------------- levels 4 to 9 */

/* Go on to the text's end; with `watch`, to the first step that more text could change, and stand before it. */
CURATE_INLINE void parse_slow(const view *v, state *z, int watch) {
    for (;;) {
        int32_t ahead = v->total - z->at;
        if (watch && (ahead < SHORTEST || slides_for_the_end(z, v->total))) return;
        if (CURATE_UNLIKELY(slides(z, v->total))) z->base += WINDOW;
        if (ahead == 0) return;
        match best = look(v, z);
        if (watch && ahead < LONGEST && best.length >= ahead) return;
        take(v, z, best, 1);
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
        if (full) zipfit_end_block(v, z);
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

/* The trees of neighbours are built side by side, and the largest sets the pace: put equal ones together. */
static void order_by_leaves(const zipfit_scratch *s, int64_t n) {
    int64_t ends[288] = {0};
    for (int64_t j = 0; j < n; j++) ends[s->targets[j].n_leaves]++;
    for (int i = 1; i < 288; i++) ends[i] += ends[i - 1];
    for (int64_t j = n - 1; j >= 0; j--) s->order[--ends[s->targets[j].n_leaves]] = j;
}

static void prepare_all(const curate_text *targets, int level, zipfit_scratch *s) {
    uint8_t *room = s->prepared;
    for (int64_t j = 0; j < targets->length; j++) s->targets[j].n_leaves = s->targets[j].n_questions = 0;
    for (int64_t j = 0; level > 3 && j < targets->length; j++) {
        int32_t length;
        const uint8_t *bytes = row_of(targets, j, &length);
        if (length > ZIPFIT_PREPARED) continue;
        zipfit_target *t = &s->targets[j];
        t->symbols = (zipfit_symbol *)room;
        t->spots = (zipfit_spot *)(t->symbols + length);
        t->stages = (zipfit_stage *)(t->spots + length);
        t->grams = (uint16_t *)(t->stages + length);
        t->places = t->grams + length;
        room += (size_t)length * ZIPFIT_PREPARED_BYTES;
        zipfit_prepare(s, efforts[level], bytes, length, t);
    }
    zipfit_index(s, targets->length);
    order_by_leaves(s, targets->length);
}

/* Follow the document with a target, from the state at which they part ways, up to the last block, which is left open. */
static void join(view *v, state *z, int is_fast, int32_t document, int32_t size, const zipfit_target *target) {
    int32_t from = larger(document - SHORTEST + 1, 0), entered = z->entered;
    int is_quick = document > 0 && size > 0 && size <= ZIPFIT_PREPARED && v->total - z->base < SLIDES_AT &&
                   z->symbols + v->total - z->at < ZIPFIT_BLOCK_SYMBOLS;
    int32_t linked = is_quick ? smaller(v->total, document + SHORTEST - 1) : v->total;
    v->border = NOWHERE;
    if (is_fast) {
        parse_fast(v, z, 0);
        leave(v, z, entered);
        return;
    }
    link_places(v->s, from, linked);
    if (is_quick) zipfit_follow(v, z, document, target);
    else parse_slow_to_end(v, z);
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
                        const zipfit_scratch *s, queue *q, int64_t *own, int64_t *joined, uint32_t *symbols) {
    state parting = {.length = SHORTEST - 1, .out.counts.literal[ZIPFIT_END] = 1};
    int is_fast = level <= 3;
    view v = {s, efforts[level], length, NOWHERE, NULL, symbols};
    memcpy(s->bytes, document, (size_t)length);
    if (is_fast) parse_fast(&v, &parting, 1);
    else {
        link_places(s, 0, length);
        if (targets->length) zipfit_document(s, length);
        parse_slow(&v, &parting, 1);
    }
    for (int64_t i = -1; i < targets->length; i++) {
        int64_t j = i < 0 ? -1 : s->order[i]; /* -1: nothing follows */
        int32_t size = 0;
        const uint8_t *target = j < 0 ? s->bytes : row_of(targets, j, &size);
        memcpy(s->bytes + length, target, (size_t)size);
        v.total = length + size;
        q->states[q->n] = parting;
        join(&v, &q->states[q->n], is_fast, length, size, j < 0 ? NULL : s->targets + j);
        if (symbols) add_symbols(symbols, &q->states[q->n].out.counts);
        q->out[q->n++] = j < 0 ? own : joined + j;
        if (q->n == ZIPFIT_LANES) finish(s, q);
    }
    forget(s, length);
}

void zipfit_measure(const curate_text *text, const curate_text *targets, int level, zipfit_scratch *scratch,
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
        measure_one(document, length, targets, level, scratch, &q, own, joined, NULL);
    }
    finish(scratch, &q);
}

void zipfit_profile(const curate_text *text, int level, zipfit_scratch *scratch, int64_t *own, uint32_t *counts) {
    queue q = {.n = 0};
    const curate_text none = {.length = 0};
    zipfit_blocks_open(scratch->blocks);
    memset(counts, 0, (size_t)text->length * ZIPFIT_SYMBOLS * sizeof *counts);
    for (int64_t row = 0; row < text->length; row++, own++, counts += ZIPFIT_SYMBOLS) {
        *own = -1;
        if (text_is_null(text, row)) continue;
        int32_t length;
        const uint8_t *document = row_of(text, row, &length);
        measure_one(document, length, &none, level, scratch, &q, own, NULL, counts);
    }
    finish(scratch, &q);
}
