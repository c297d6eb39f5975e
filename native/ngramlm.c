#include "ngramlm.h"

#include <math.h>

#define UNSEEN UINT32_MAX

/* ---------------------------------------------------------------- tokens */

static inline int is_white(uint8_t c) { return c == ' ' || (uint8_t)(c - '\t') < 5; }

static inline int is_word(uint8_t c) {
    return c >= 0x80 || (uint8_t)((c | 32) - 'a') < 26 || (uint8_t)(c - '0') < 10 || c == '_';
}

/* Length of a UTF-8 sequence that is a token by itself, or 0. Scripts that write no spaces would otherwise give one
 * token per clause, and quotation marks would stick to their words. */
static int64_t alone(const uint8_t *p, int64_t length) {
    int64_t need;
    if (p[0] == 0xC2) need = 2;
    else if ((p[0] >= 0xE2 && p[0] <= 0xE9) || p[0] == 0xEF) need = 3;
    else if (p[0] >= 0xF0 && p[0] <= 0xF4) need = 4;
    else return 0;
    if (length < need) return 0;
    for (int64_t i = 1; i < need; i++)
        if ((p[i] & 0xC0) != 0x80) return 0;
    return need;
}

/* The part of a token after its space: a word, an alone or a sign. */
static int64_t core(const uint8_t *p, int64_t length) {
    if (!is_word(p[0])) return 1;
    int64_t single = alone(p, length);
    if (single) return single;
    int64_t most = length < NGRAMLM_TOKEN_BYTES ? length : NGRAMLM_TOKEN_BYTES;
    int64_t i = 1;
    while (i < most && is_word(p[i]) && !(p[i] >= 0xC2 && alone(p + i, length - i))) i++;
    return i;
}

int64_t ngramlm_token(const uint8_t *p, int64_t length) {
    if (!is_white(p[0])) return core(p, length);
    int64_t most = length < NGRAMLM_TOKEN_BYTES ? length : NGRAMLM_TOKEN_BYTES;
    int64_t i = 1;
    while (i < most && is_white(p[i])) i++;
    int before_core = i < length && !is_white(p[i]) && p[i - 1] == ' ';
    if (!before_core) return i;
    return i == 1 ? 1 + core(p + 1, length - 1) : i - 1;
}

int64_t ngramlm_split(const uint8_t *p, int64_t length, int64_t *ends) {
    int64_t n = 0;
    for (int64_t at = 0; at < length; n++) ends[n] = at += ngramlm_token(p + at, length - at);
    return n;
}

/* ---------------------------------------------------------------- tables */

static inline uint64_t mix(uint64_t h) {
    h = (h ^ (h >> 32)) * UINT64_C(0xd6e8feb86659fd93);
    h = (h ^ (h >> 32)) * UINT64_C(0xd6e8feb86659fd93);
    return h ^ (h >> 32);
}

static uint64_t hash_bytes(const uint8_t *p, int64_t length) {
    uint64_t h = (uint64_t)length, word;
    for (; length >= 8; length -= 8, p += 8) {
        memcpy(&word, p, 8);
        h = (h ^ word) * UINT64_C(0x9e3779b97f4a7c15);
        h ^= h >> 29;
    }
    if (length) {
        word = 0;
        memcpy(&word, p, (size_t)length);
        h = (h ^ word) * UINT64_C(0x9e3779b97f4a7c15);
        h ^= h >> 29;
    }
    return h;
}

/* A quarter stays empty: probes end, and stay short (about 8 at the worst moment for an absent key). */
static inline int64_t room(uint64_t mask) { return (int64_t)((mask + 1) - (mask + 1) / 4); }

static const ngramlm_slot *find_gram(const ngramlm_slot *slots, uint64_t mask, uint64_t key) {
    uint64_t at = mix(key) & mask;
    while (slots[at].id && slots[at].key != key) at = (at + 1) & mask;
    return &slots[at];
}

/* The token's slot, or the empty slot where it belongs. Equal hashes are told apart by the bytes. */
static ngramlm_slot *find_token(const ngramlm_vocabulary *v, uint64_t hash, const uint8_t *p, int64_t length) {
    uint64_t at = mix(hash) & v->mask;
    for (;; at = (at + 1) & v->mask) {
        ngramlm_slot *slot = &v->slots[at];
        if (!slot->id) return slot;
        if (slot->key != hash) continue;
        int64_t start = v->ends[slot->id - 1];
        if (v->ends[slot->id] - start == length && memcmp(v->arena + start, p, (size_t)length) == 0) return slot;
    }
}

void ngramlm_rehash(const ngramlm_slot *from, int64_t n, ngramlm_slot *to, uint64_t to_mask) {
    for (int64_t i = 0; i < n; i++) {
        if (!from[i].id) continue;
        uint64_t at = mix(from[i].key) & to_mask;
        while (to[at].id) at = (at + 1) & to_mask;
        to[at] = from[i];
    }
}

/* ---------------------------------------------------------------- counting */

int ngramlm_intern(const curate_text *text, ngramlm_vocabulary *v, int64_t cursor[4], uint32_t *ids) {
    int64_t row = cursor[0], skip = cursor[1], written = cursor[2], types = cursor[3];
    int64_t most = room(v->mask) < v->ends_room ? room(v->mask) : v->ends_room;
    for (; row < text->length; row++, skip = 0) {
        if (text_is_null(text, row)) continue;
        const uint8_t *p = text->data ? text->data + text_offset(text, row) : NULL;
        int64_t length = text_offset(text, row + 1) - text_offset(text, row);
        while (skip < length) {
            int64_t size = ngramlm_token(p + skip, length - skip);
            uint64_t hash = hash_bytes(p + skip, size);
            ngramlm_slot *slot = find_token(v, hash, p + skip, size);
            if (!slot->id) {
                int64_t end = v->ends[types - 1];
                if (types >= most || end + size > v->arena_room) {
                    cursor[0] = row, cursor[1] = skip, cursor[2] = written, cursor[3] = types;
                    return 0;
                }
                memcpy(v->arena + end, p + skip, (size_t)size);
                v->ends[types] = end + size;
                *slot = (ngramlm_slot){hash, (uint32_t)types++, 0};
            }
            ids[written++] = slot->id;
            skip += size;
        }
        ids[written++] = NGRAMLM_END;
    }
    cursor[0] = row, cursor[1] = 0, cursor[2] = written, cursor[3] = types;
    return 1;
}

static inline uint64_t key_at(const uint32_t *symbols, const uint32_t *lower, int64_t i) {
    uint64_t context = i == 0 || symbols[i - 1] == NGRAMLM_END ? 0 : lower[i - 1];
    return context << 32 | symbols[i];
}

int64_t ngramlm_count(const uint32_t *symbols, const uint32_t *lower, int64_t start, int64_t n, ngramlm_slot *slots,
                      uint64_t mask, int64_t *known, uint32_t *left, int64_t n_left, uint32_t *grams) {
    const int64_t ahead = 12; /* enough misses in flight to hide one to memory (80 ns / 7 ns per gram) */
    int64_t grams_known = *known, most = room(mask), i;
    for (i = start; i < n; i++) {
        if (i + ahead < n) __builtin_prefetch(&slots[mix(key_at(symbols, lower, i + ahead)) & mask], 1);
        uint64_t key = key_at(symbols, lower, i);
        uint64_t at = mix(key) & mask;
        while (slots[at].id && slots[at].key != key) at = (at + 1) & mask;
        if (!slots[at].id) {
            if (grams_known >= most) break;
            if (lower[i] >= n_left) return -1;
            slots[at].key = key;
            slots[at].id = (uint32_t)++grams_known;
            left[lower[i]]++;
        }
        slots[at].count++;
        grams[i] = slots[at].id;
    }
    *known = grams_known;
    return i;
}

int ngramlm_fold(ngramlm_slot *slots, int64_t n, const uint32_t *left, int64_t n_left, uint32_t *contexts,
                 int64_t n_contexts, int64_t histogram[4]) {
    for (int64_t i = 0; i < n; i++) {
        if (!slots[i].id) continue;
        int64_t context = (int64_t)(slots[i].key >> 32);
        if (context >= n_contexts || (left && slots[i].id >= n_left)) return -1;
        if (left) slots[i].count = left[slots[i].id];
        uint32_t c = slots[i].count;
        contexts[context * 4] += c;
        contexts[context * 4 + (c < 3 ? c : 3)]++;
        if (c <= 4) histogram[c - 1]++;
    }
    return 0;
}

/* ---------------------------------------------------------------- probabilities */

/* state[k] = id of the gram of k symbols that ends just before, UNSEEN where training never had it. */
typedef struct {
    uint32_t state[NGRAMLM_ORDERS + 1];
} position;

static const position at_start = {{0}};

/* One step of the recursion: (count - discount + discounted mass * p) / t. */
static inline double interpolate(const ngramlm_level *level, const uint32_t *context, uint32_t count, double p) {
    double t = (double)context[0];
    double mass = level->discount[1] * (double)context[1] + level->discount[2] * (double)context[2] +
                  level->discount[3] * (double)context[3];
    double own = count ? (double)count - level->discount[count < 3 ? count : 3] : 0.0;
    return (own + mass * p) / t;
}

/* log2 of the probability of `symbol` (UNSEEN allowed), given log2 p_0, and move on to it. */
static double predict(const ngramlm_grams *g, position *here, uint32_t symbol, double log2_base) {
    position next;
    int is_known = symbol < g->n_symbols && g->first[symbol] > 0;
    /* A token never seen has p = (product of the discounted masses) * p_0: kept apart, so that p_0 cannot underflow. */
    double p = is_known ? exp2(log2_base) : 1.0;
    if (g->levels[1].contexts[0])
        p = interpolate(&g->levels[1], g->levels[1].contexts, is_known ? g->first[symbol] : 0, p);
    next.state[0] = 0;
    next.state[1] = is_known ? symbol : UNSEEN;
    for (int k = 2; k <= g->order; k++) {
        const ngramlm_level *level = &g->levels[k];
        uint32_t context = here->state[k - 1];
        next.state[k] = UNSEEN;
        if ((int64_t)context >= level->n_contexts || !level->contexts[(size_t)context * 4]) continue;
        const ngramlm_slot *slot = NULL;
        if (is_known) slot = find_gram(level->slots, level->mask, (uint64_t)context << 32 | symbol);
        if (slot && slot->id) next.state[k] = slot->id;
        p = interpolate(level, level->contexts + (size_t)context * 4, slot && slot->id ? slot->count : 0, p);
    }
    *here = next;
    return is_known ? log2(p) : log2(p) + log2_base;
}

/* log2 p_0 of a token: its bytes, then the token's end. Fills out (bits per symbol) where it is given. */
static double spelling(const ngramlm_grams *bytes, const uint8_t *p, int64_t length, double *out) {
    const double uniform = -log2((double)(NGRAMLM_BYTE_SYMBOLS - 1));
    position here = at_start;
    double sum = 0.0;
    for (int64_t i = 0; i <= length; i++) {
        uint32_t symbol = i < length ? (uint32_t)(NGRAMLM_FIRST + p[i]) : NGRAMLM_END;
        double one = predict(bytes, &here, symbol, uniform);
        if (out) out[i] = -one;
        sum += one;
    }
    return sum;
}

static double token_bits(const ngramlm_model *m, position *here, const uint8_t *p, int64_t length) {
    uint32_t id = NGRAMLM_END;
    if (length) {
        const ngramlm_slot *slot = find_token(&m->vocabulary, hash_bytes(p, length), p, length);
        id = slot->id ? slot->id : UNSEEN;
    }
    return -predict(&m->words, here, id, spelling(&m->bytes, p, length, NULL));
}

void ngramlm_score(const ngramlm_model *model, const curate_text *text, double *out) {
    for (int64_t row = 0; row < text->length; row++) {
        if (text_is_null(text, row)) {
            out[row] = NAN;
            continue;
        }
        const uint8_t *p = text->data ? text->data + text_offset(text, row) : NULL;
        int64_t length = text_offset(text, row + 1) - text_offset(text, row);
        position here = at_start;
        double bits = 0.0;
        for (int64_t size; length > 0; p += size, length -= size) {
            size = ngramlm_token(p, length);
            bits += token_bits(model, &here, p, size);
        }
        out[row] = bits + token_bits(model, &here, NULL, 0);
    }
}

void ngramlm_score_tokens(const ngramlm_model *model, const uint8_t *data, const int64_t *ends, int64_t n,
                          double *out) {
    position here = at_start;
    int64_t start = 0;
    for (int64_t i = 0; i < n; start = ends[i], i++)
        out[i] = token_bits(model, &here, data + start, ends[i] - start);
    out[n] = token_bits(model, &here, NULL, 0);
}

void ngramlm_spell(const ngramlm_model *model, const uint8_t *data, int64_t length, double *out) {
    spelling(&model->bytes, data, length, out);
}
