#include "textrepeats.h"

#include <string.h>

#include "mix64.h"
#include "simd.h"
#include "textrules.h"

int64_t repeats_slots(int64_t units) {
    int64_t n = 4;
    while (n < 2 * units) n *= 2;
    return n;
}

/* An empty table for n hashes; how far a hash is shifted to its slot. A slot holds a place and 1, or 0. */
static int table_clear(uint32_t *slots, int64_t n) {
    int64_t size = repeats_slots(n);
    int shift = 64;
    for (int64_t i = size; i > 1; i /= 2) shift--;
    memset(slots, 0, (size_t)size * sizeof *slots);
    return shift;
}

/* The first place with this hash; `place` itself where there was none, and from now on it is. */
CURATE_INLINE uint32_t table_first(uint32_t *slots, int shift, const uint64_t *hashes, uint32_t place) {
    uint64_t hash = hashes[place], mask = (UINT64_C(1) << (64 - shift)) - 1, at = hash >> shift;
    for (; slots[at]; at = (at + 1) & mask)
        if (hashes[slots[at] - 1] == hash) return slots[at] - 1;
    slots[at] = place + 1;
    return place;
}

void repeats_lines(repeat_tables *t, int64_t *found) {
    int shift = table_clear(t->slots, t->n_lines);
    for (int64_t i = 0; i < t->n_lines; i++) {
        if (t->line_chars[i] == UINT32_MAX || table_first(t->slots, shift, t->line_hash, (uint32_t)i) == i) continue;
        found[RULE_DUP_LINES]++;
        found[RULE_DUP_LINE_CHARS] += t->line_chars[i];
    }
}

/* gram_hash holds the paragraphs' hashes for a while. */
static void paragraphs(repeat_tables *t, int64_t *found) {
    int shift = table_clear(t->slots, t->n_lines);
    for (int64_t i = 0; i < t->n_lines;) {
        uint64_t hash = 0;
        int64_t chars = -1, first = i; /* the breaks between its lines count */
        for (; i < t->n_lines && t->line_chars[i] != UINT32_MAX; i++) {
            hash = mix64_append(hash, t->line_hash[i], &MIX64_FIRST);
            chars += t->line_chars[i] + 1;
        }
        if (chars >= 0) {
            found[RULE_PARAGRAPHS]++;
            t->gram_hash[first] = hash;
            if (table_first(t->slots, shift, t->gram_hash, (uint32_t)first) != first) {
                found[RULE_DUP_PARAGRAPHS]++;
                found[RULE_DUP_PARAGRAPH_CHARS] += chars;
            }
        }
        i++;
    }
}

/* gram = gram * odd + hash of the last word; words' hashes are mixed, so the sum's high bits are. */
CURATE_INLINE void gram_grow(repeat_tables *t, uint32_t place, int n) {
    t->gram_hash[place] = t->gram_hash[place] * UINT64_C(0x9e3779b97f4a7c15) + t->word_hash[place + (uint32_t)n - 1];
}

/* The most frequent n-gram, of those that are as frequent the first; one that stands once is at place 0. Returns how many
 * places an (n+1)-gram may repeat at. */
static int64_t top_gram(repeat_tables *t, int n, int64_t places, int64_t *found) {
    uint32_t most = 1, best = 0;
    int shift = table_clear(t->slots, places);
    for (int64_t i = 0; i < places; i++) {
        uint32_t place = t->places[i];
        gram_grow(t, place, n);
        uint32_t first = t->first[i] = table_first(t->slots, shift, t->gram_hash, place);
        if (first == place) {
            t->count[place] = 1;
            continue;
        }
        uint32_t count = ++t->count[first];
        if (count > most || (count == most && first < best)) most = count, best = first;
    }
    int64_t chars = t->word_end[best + (uint32_t)n] - t->word_end[best] + (uint32_t)(n - 1), next = 0;
    found[RULE_TOP + n - 2] = chars * most;
    if (most < 2) return 0;
    found[RULE_REPEATED] = n;
    for (int64_t i = 0; i + 1 < places; i++)
        if (t->places[i + 1] == t->places[i] + 1 && t->count[t->first[i]] > 1 && t->count[t->first[i + 1]] > 1)
            t->places[next++] = t->places[i];
    return next;
}

/* From left to right: an n-gram met before counts and is stepped over, any other is remembered. */
static int64_t duplicate_grams(repeat_tables *t, int n, int64_t places, int64_t *found) {
    int64_t chars = 0, step = 0, next = 0;
    int shift = table_clear(t->slots, places);
    for (int64_t i = 0; i < places; i++) {
        uint32_t place = t->places[i];
        gram_grow(t, place, n);
        if (place < step || table_first(t->slots, shift, t->gram_hash, place) == place) continue;
        chars += t->word_end[place + (uint32_t)n] - t->word_end[place];
        step = place + n;
    }
    found[RULE_DUP + n - 5] = chars;
    if (!chars) return 0;
    found[RULE_REPEATED] = n;
    for (int64_t i = 0; i + 1 < places; i++)
        if (t->places[i + 1] == t->places[i] + 1) t->places[next++] = t->places[i];
    return next;
}

void repeats_others(repeat_tables *t, int64_t *found) {
    paragraphs(t, found);
    int64_t places = t->n_words - 1;
    if (places < 1) return;
    memcpy(t->gram_hash, t->word_hash, (size_t)t->n_words * sizeof *t->gram_hash);
    for (int64_t i = 0; i < places; i++) t->places[i] = (uint32_t)i;
    for (int n = 2; n <= 4 && n <= t->n_words; n++) places = top_gram(t, n, places, found);
    for (int n = 5; n <= 10 && places > 0; n++) places = duplicate_grams(t, n, places, found);
}
