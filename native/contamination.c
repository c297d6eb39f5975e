#include "contamination.h"

#include "mix64.h"
#include "simd.h"

static const uint64_t MULTIPLIER = UINT64_C(0x243f6a8885a308d3); /* C0 */
static const uint64_t GOLDEN = UINT64_C(0x9e3779b97f4a7c15);

/* Of one document: terms and where they lie; known[j] is the short gram that begins at term j, -1 where it is none of
 * the index's. Over documents: marks of the row that met a gram or an item last (row + 1). */
typedef struct {
    token_stream stream;
    uint64_t *hash;
    uint32_t *starts, *ends, *gram_mark, *item_mark;
    int32_t *known, *touched;
    int64_t *few, *many, n;
} desk;

/* A term takes two bytes at least: one and a separator, or those of an unspaced character. */
static int64_t most_terms(int64_t lower_bytes) { return lower_bytes / 2 + 2 + TOKENS_SLACK; }

static int64_t longest_of(const curate_text *text) {
    int64_t longest = 0;
    for (int64_t row = 0; row < text->length; row++) {
        int64_t bytes = text_offset(text, row + 1) - text_offset(text, row);
        if (bytes > longest && !text_is_null(text, row)) longest = bytes;
    }
    return longest;
}

static int64_t in_eights(int64_t bytes) { return (bytes + 7) & ~INT64_C(7); }

int64_t contamination_room_bytes(const curate_text *text, int64_t n_grams, int64_t n_items) {
    int64_t lower = tokens_lower_bytes(longest_of(text)), terms = most_terms(lower);
    return in_eights(sizeof(desk)) + in_eights(lower) + terms * 8 + in_eights(terms * 12) + in_eights(n_grams * 4) + n_items * 24;
}

static void *take(uint8_t **at, int64_t bytes) {
    void *here = *at;
    *at += in_eights(bytes);
    return here;
}

/* Lay the desk out in the caller's memory; no row has met anything. */
static desk *desk_open(const curate_text *text, int simd, int64_t n_grams, int64_t n_items, void *space) {
    uint8_t *at = space;
    int64_t lower = tokens_lower_bytes(longest_of(text)), terms = most_terms(lower);
    desk *d = take(&at, sizeof(desk));
    d->stream.rules = (token_rules){TOKENS_TERMS, 1, simd};
    d->stream.lower = take(&at, lower);
    d->hash = take(&at, terms * 8);
    d->starts = take(&at, terms * 12);
    d->ends = d->starts + terms;
    d->known = (int32_t *)(d->ends + terms);
    d->gram_mark = take(&at, n_grams * 4);
    d->few = take(&at, n_items * 8);
    d->many = take(&at, n_items * 8);
    d->item_mark = take(&at, n_items * 8);
    d->touched = (int32_t *)(d->item_mark + n_items);
    memset(d->gram_mark, 0, (size_t)n_grams * 4);
    memset(d->item_mark, 0, (size_t)n_items * 4);
    return d;
}

/* All terms of a row, on the desk. */
static void read_row(desk *d, const curate_text *text, int64_t row) {
    int64_t start = text_offset(text, row), count;
    d->n = 0;
    tokens_open(&d->stream, text->data + start, text_offset(text, row + 1) - start, text->data + text_offset(text, text->length));
    while ((count = tokens_next(&d->stream, 0)) > 0) {
        const uint32_t *starts = d->stream.starts + d->stream.history, *ends = d->stream.ends + d->stream.history;
        for (int64_t j = 0; j < count; j++) {
            d->starts[d->n + j] = starts[j];
            d->ends[d->n + j] = ends[j];
            d->hash[d->n + j] = mix64_token(d->stream.lower + starts[j], ends[j] - starts[j], &MIX64_FIRST);
        }
        d->n += count;
    }
}

static uint64_t key_of(const uint64_t *hash, int64_t n) {
    uint64_t key = 0;
    for (int64_t i = 0; i < n; i++) key = key * MULTIPLIER + hash[i];
    return key;
}

/* ---------------------------------------------------------------- the index */

CURATE_INLINE uint64_t spread(uint64_t key) { return (key ^ key >> 32) * GOLDEN; }

void contamination_enter(const uint64_t *grams, int64_t n, uint64_t *keys, int32_t *ids, uint64_t slots, uint8_t *filter, int filter_bits) {
    for (int64_t g = 0; g < n; g++) {
        uint64_t place = spread(grams[g]), bit = place >> (64 - filter_bits), at = (place ^ place >> 29) & (slots - 1);
        while (ids[at] >= 0) at = (at + 1) & (slots - 1);
        keys[at] = grams[g];
        ids[at] = (int32_t)g;
        filter[bit >> 3] |= (uint8_t)(1 << (bit & 7));
    }
}

static int32_t probe(const contamination_index *index, uint64_t key, uint64_t place) {
    for (uint64_t at = (place ^ place >> 29) & (index->slots - 1); index->ids[at] >= 0; at = (at + 1) & (index->slots - 1))
        if (index->keys[at] == key) return index->ids[at];
    return -1;
}

CURATE_INLINE int32_t gram_id(const contamination_index *index, uint64_t key) {
    uint64_t place = spread(key), bit = place >> (64 - index->filter_bits);
    if (CURATE_UNLIKELY(index->filter[bit >> 3] >> (bit & 7) & 1)) return probe(index, key, place);
    return -1;
}

/* The row that is read now meets a gram: 1 the first time. */
CURATE_INLINE int first_met(desk *d, int32_t gram, uint32_t mark) {
    if (d->gram_mark[gram] == mark) return 0;
    d->gram_mark[gram] = mark;
    return 1;
}

/* known[] of the row on the desk; returns the number of short grams that the index has, repeats counted. */
static int64_t look_up(desk *d, const contamination_index *index) {
    int few = index->few;
    int64_t hits = 0, grams = d->n - few + 1;
    if (grams <= 0) return 0;
    uint64_t key = key_of(d->hash, few - 1), power = 1;
    for (int i = 0; i < few; i++) power *= MULTIPLIER;
    for (int64_t j = 0; j < grams; j++) {
        key = key * MULTIPLIER + d->hash[j + few - 1] - (j ? d->hash[j - 1] * power : 0);
        int32_t id = gram_id(index, key);
        d->known[j] = id;
        hits += id >= 0;
    }
    return hits;
}

/* The long gram that begins at term j, -1 for none. */
static int32_t long_at(const desk *d, const contamination_index *index, int64_t j) {
    return gram_id(index, key_of(d->hash + j, index->many) ^ MIX64_FIRST.c[5]);
}

/* ---------------------------------------------------------------- counting */

void contamination_terms(const curate_text *text, int simd, uint64_t *terms, int64_t *ends, void *space) {
    desk *d = desk_open(text, simd, 0, 0, space);
    int64_t written = 0;
    for (int64_t row = 0; row < text->length; row++) {
        if (!text_is_null(text, row)) {
            read_row(d, text, row);
            memcpy(terms + written, d->hash, (size_t)d->n * sizeof *terms);
            written += d->n;
        }
        ends[row] = written;
    }
}

/* What becomes of each different gram of the row on the desk. */
typedef void (*meet_gram)(desk *d, const contamination_index *index, int32_t gram, int is_long, uint32_t mark, int64_t *counts);

CURATE_INLINE void each_gram(desk *d, const contamination_index *index, uint32_t mark, meet_gram meet, int64_t *counts) {
    int64_t grams = d->n - index->few + 1, run = 0, needed = index->many - index->few + 1;
    for (int64_t j = 0; j < grams; j++) {
        if (d->known[j] < 0) {
            run = 0;
            continue;
        }
        if (first_met(d, d->known[j], mark)) meet(d, index, d->known[j], 0, mark, counts);
        if (++run >= needed) {
            int32_t id = long_at(d, index, j - needed + 1);
            if (id >= 0 && first_met(d, id, mark)) meet(d, index, id, 1, mark, counts);
        }
    }
}

static void meet_count(desk *d, const contamination_index *index, int32_t gram, int is_long, uint32_t mark, int64_t *documents) {
    (void)d, (void)index, (void)is_long, (void)mark;
    documents[gram]++;
}

void contamination_count(const curate_text *text, const contamination_index *index, int64_t *documents, void *space) {
    desk *d = desk_open(text, index->simd, index->n_grams, 0, space);
    for (int64_t row = 0; row < text->length; row++) {
        if (text_is_null(text, row)) continue;
        read_row(d, text, row);
        if (look_up(d, index)) each_gram(d, index, (uint32_t)row + 1, meet_count, documents);
    }
}

/* ---------------------------------------------------------------- matching */

/* few[] and many[] of every item that holds the gram; touched[] lists the items of this row, touched[0] at first none. */
static void meet_match(desk *d, const contamination_index *index, int32_t gram, int is_long, uint32_t mark, int64_t *n_touched) {
    for (int64_t p = index->starts[gram]; p < index->starts[gram + 1]; p++) {
        int32_t item = index->items[p];
        if (d->item_mark[item] != mark) {
            d->item_mark[item] = mark;
            d->few[item] = d->many[item] = 0;
            d->touched[(*n_touched)++] = item;
        }
        *(is_long ? &d->many[item] : &d->few[item]) += index->weights[gram];
    }
}

static int holds(const contamination_index *index, int32_t gram, int32_t item) {
    int64_t low = index->starts[gram], high = index->starts[gram + 1];
    while (low < high) {
        int64_t middle = low + (high - low) / 2;
        if (index->items[middle] < item) low = middle + 1;
        else high = middle;
    }
    return low < index->starts[gram + 1] && index->items[low] == item;
}

/* Whether all terms of an item stand in the row in a row. */
static int stands_whole(const desk *d, const contamination_index *index, int32_t item) {
    const uint64_t *terms = index->terms + index->term_starts[item];
    int64_t n = index->term_starts[item + 1] - index->term_starts[item];
    for (int64_t j = 0; j + n <= d->n; j++)
        if (d->hash[j] == terms[0] && memcmp(d->hash + j, terms, (size_t)n * sizeof *terms) == 0) return 1;
    return 0;
}

/* The first of the longest runs of the item's short grams, as bytes of the lower-cased text. */
static void passage(const desk *d, const contamination_index *index, int32_t item, int64_t *start, int64_t *stop) {
    int64_t grams = d->n - index->few + 1, run = 0, best = 0, from = 0;
    for (int64_t j = 0; j < grams; j++) {
        run = d->known[j] >= 0 && holds(index, d->known[j], item) ? run + 1 : 0;
        if (run > best) best = run, from = j - run + 1;
    }
    *start = d->starts[from];
    *stop = d->ends[from + best + index->few - 2];
}

static void sort_items(int32_t *items, int64_t n) {
    for (int64_t gap = n / 2; gap > 0; gap /= 2)
        for (int64_t i = gap; i < n; i++) {
            int32_t item = items[i];
            int64_t j = i;
            for (; j >= gap && items[j - gap] > item; j -= gap) items[j] = items[j - gap];
            items[j] = item;
        }
}

/* What the row on the desk shares with items, into found; returns their number. */
static int64_t match_row(desk *d, const contamination_index *index, int64_t row, int64_t *found) {
    int64_t touched = 0, n = 0;
    each_gram(d, index, (uint32_t)row + 1, meet_match, &touched);
    for (int64_t i = 0; i < touched; i++) {
        int32_t item = d->touched[i];
        int64_t terms = index->term_starts[item + 1] - index->term_starts[item];
        if (d->few[item] < index->least[item] && !d->many[item]) continue;
        if (terms < index->many && d->n >= terms) d->many[item] = stands_whole(d, index, item);
        d->touched[n++] = item;
    }
    sort_items(d->touched, n);
    for (int64_t i = 0; i < n; i++) {
        int32_t item = d->touched[i];
        int64_t *to = found + i * CONTAMINATION_FOUND;
        to[0] = row, to[1] = item, to[2] = d->few[item], to[3] = d->many[item];
        passage(d, index, item, &to[4], &to[5]);
    }
    return n;
}

int64_t contamination_match(const curate_text *text, const contamination_index *index, int64_t row, int64_t *words,
                            uint64_t *whole, int64_t *found, int64_t room, int64_t *n, void *space) {
    desk *d = desk_open(text, index->simd, index->n_grams, index->n_items, space);
    *n = 0;
    for (; row < text->length && room - *n >= index->n_items; row++) {
        words[row] = -1;
        whole[row] = 0;
        if (text_is_null(text, row)) continue;
        read_row(d, text, row);
        words[row] = d->n;
        whole[row] = key_of(d->hash, d->n);
        if (look_up(d, index)) *n += match_row(d, index, row, found + *n * CONTAMINATION_FOUND);
    }
    return row;
}
