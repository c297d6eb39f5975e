#include "zipfit_fast.h"

#include <math.h>
#include <string.h>

#include "simd.h"

enum { STRIDE = 64 }; /* places looked up at once, so that their waits for memory overlap */

/* ---------------------------------------------------------------- grams */

/* Where to look, and what must stand there. 0 stands where nothing does, so no gram is called that. */
typedef struct {
    uint32_t bucket, tag;
} place;

static inline place place_of_4(const uint8_t *p, const zipfit_grams *grams) {
    uint32_t word;
    memcpy(&word, p, 4);
    return (place){(uint32_t)((word * UINT64_C(0x9E3779B97F4A7C15)) >> 32) & grams->mask, word + !word};
}

static inline place place_of_8(const uint8_t *p, const zipfit_grams *grams) {
    uint64_t word;
    memcpy(&word, p, 8);
    word ^= word >> 32;
    word *= UINT64_C(0x9E3779B97F4A7C15);
    word ^= word >> 32;
    word *= UINT64_C(0xD6E8FEB86659FD93);
    uint32_t tag = (uint32_t)word;
    return (place){(uint32_t)(word >> 32) & grams->mask, tag + !tag};
}

/* The bit of a gram's mark: of the bits of its tag that choose no bucket. */
static inline unsigned mark_of(place p) { return 1u << (p.tag & 15); }

/* Which of a bucket's four grams has the tag; any where none has. */
static inline int slot_of(const zipfit_bucket *bucket, uint32_t tag) {
    return (bucket->tag[1] == tag) + 2 * (bucket->tag[2] == tag) + 3 * (bucket->tag[3] == tag);
}

/* The bucket that has the gram, or else the one where it would stand: after a full one comes the next. A table that is
 * full, which none is, ends the search too. */
static inline zipfit_bucket *find(const zipfit_grams *grams, place p) {
    zipfit_bucket *bucket = grams->buckets + p.bucket;
    uint32_t left = grams->mask;
    while (CURATE_UNLIKELY(bucket->tag[ZIPFIT_WAYS - 1] && bucket->tag[slot_of(bucket, p.tag)] != p.tag) && left--)
        bucket = grams->buckets + (p.bucket = (p.bucket + 1) & grams->mask);
    return bucket;
}

int zipfit_grams_enter(const curate_text *targets, const uint8_t *group, int size, const zipfit_grams *grams) {
    int64_t used = 0, most = ((int64_t)grams->mask + 1) * ZIPFIT_WAYS / 3;
    for (int64_t j = 0; j < targets->length; j++) {
        const uint8_t *bytes = targets->data + text_offset(targets, j);
        int64_t length = text_offset(targets, j + 1) - text_offset(targets, j);
        for (int64_t at = 0; at + size <= length; at++) {
            place p = size == 8 ? place_of_8(bytes + at, grams) : place_of_4(bytes + at, grams);
            zipfit_bucket *bucket = find(grams, p);
            int i = slot_of(bucket, p.tag);
            grams->marks[p.bucket] |= (uint16_t)mark_of(p);
            if (bucket->tag[i] != p.tag) {
                if (++used > most) return 0;
                for (i = 0; bucket->tag[i];) i++;
                bucket->tag[i] = p.tag;
            }
            if (bucket->seen[i] == (uint32_t)j + 1) continue;
            bucket->seen[i] = (uint32_t)j + 1;
            if (bucket->targets[i][group[j]] < UINT16_MAX) bucket->targets[i][group[j]]++;
        }
    }
    return 1;
}

/* Add the targets of a gram that this text has not met before; says whether the gram is there at all. Nothing here is a
 * branch that a processor would have to guess. */
CURATE_INLINE int meet(const zipfit_grams *grams, place p, uint32_t stamp, uint32_t *sums) {
    zipfit_bucket *bucket = find(grams, p);
    int i = slot_of(bucket, p.tag);
    uint32_t is_there = bucket->tag[i] == p.tag, before = bucket->seen[i], adds = 0 - (is_there & (before != stamp));
    for (int g = 0; g < ZIPFIT_GROUPS; g++) sums[g] += bucket->targets[i][g] & adds;
    bucket->seen[i] = is_there ? stamp : before;
    return (int)is_there;
}

static void add_up(int64_t *sums, const uint32_t *few) {
    for (int g = 0; g < ZIPFIT_GROUPS; g++) sums[g] += few[g];
}

/* A gram of eight bytes can only be there where those of four are that it begins and ends with. */
static void count_grams(const uint8_t *bytes, int64_t length, const zipfit_grams *four, const zipfit_grams *eight,
                        uint32_t stamp, int64_t *sums) {
    uint8_t is_there[STRIDE + 4] = {0}; /* of the places from - 4 .. */
    place places[STRIDE];
    for (int64_t from = 0; from + 4 <= length; from += STRIDE) {
        int n = length - 3 - from < STRIDE ? (int)(length - 3 - from) : STRIDE, n_eight = 0, n_marked = 0;
        uint32_t few[2][ZIPFIT_GROUPS] = {{0}};
        for (int i = 0; i < n; i++) {
            places[i] = place_of_4(bytes + from + i, four);
            __builtin_prefetch(four->buckets + places[i].bucket);
        }
        for (int i = 0; i < n; i++) is_there[i + 4] = (uint8_t)meet(four, places[i], stamp, few[0]);
        for (int i = from ? 0 : 4; i < n; i++) {
            places[n_eight] = place_of_8(bytes + from + i - 4, eight);
            __builtin_prefetch(eight->marks + places[n_eight].bucket);
            n_eight += is_there[i] & is_there[i + 4];
        }
        for (int i = 0; i < n_eight; i++) {
            place p = places[n_marked] = places[i];
            n_marked += (eight->marks[p.bucket] & mark_of(p)) != 0;
        }
        for (int i = 0; i < n_marked; i++) __builtin_prefetch(eight->buckets + places[i].bucket);
        for (int i = 0; i < n_marked; i++) meet(eight, places[i], stamp, few[1]);
        memcpy(is_there, is_there + STRIDE, 4);
        add_up(sums, few[0]);
        add_up(sums + ZIPFIT_GROUPS, few[1]);
    }
}

void zipfit_grams_count(const curate_text *text, const zipfit_grams *four, const zipfit_grams *eight, uint32_t met,
                        int64_t *sums) {
    memset(sums, 0, (size_t)text->length * 2 * ZIPFIT_GROUPS * sizeof *sums);
    for (int64_t row = 0; row < text->length; row++, sums += 2 * ZIPFIT_GROUPS) {
        if (text_is_null(text, row)) continue;
        int64_t start = text_offset(text, row);
        count_grams(text->data + start, text_offset(text, row + 1) - start, four, eight, met + (uint32_t)row + 1, sums);
    }
}

/* ---------------------------------------------------------------- symbols */

static inline double xl(double x) { return x > 0 ? x * log2(x) : 0; }

void zipfit_shared(const uint32_t *counts, int64_t n, const double *gains, const double *mean, double *shared) {
    for (int64_t row = 0; row < n; row++, counts += ZIPFIT_SYMBOLS) {
        double sum = 0;
        for (int s = 0; s < ZIPFIT_SYMBOLS; s++) {
            uint32_t count = counts[s];
            if (!count) continue;
            if (CURATE_LIKELY(count < ZIPFIT_TABULATED)) sum += gains[s * ZIPFIT_TABULATED + count];
            else sum += xl(count + mean[s]) - xl(count) - xl(mean[s]);
        }
        shared[row] = sum;
    }
}
