#include "langid.h"

#include <math.h>

#include "simd.h"

typedef void (*add_kernel)(const int16_t *weights, int64_t classes, int32_t *sums);

CURATE_INLINE void add_body(const int16_t *weights, int64_t classes, int32_t *sums) {
    for (int64_t c = 0; c < classes; c++) sums[c] += weights[c];
}

static void add_any(const int16_t *weights, int64_t classes, int32_t *sums) { add_body(weights, classes, sums); }

#if CURATE_X86
CURATE_TARGET_AVX2 static void add_avx2(const int16_t *weights, int64_t classes, int32_t *sums) {
    add_body(weights, classes, sums);
}

CURATE_TARGET_AVX512 static void add_avx512(const int16_t *weights, int64_t classes, int32_t *sums) {
    add_body(weights, classes, sums);
}
#endif

static add_kernel add_for(int simd) {
#if CURATE_X86
    if (simd & SIMD_AVX512) return add_avx512;
    if (simd & SIMD_AVX2) return add_avx2;
#endif
    (void)simd;
    return add_any;
}

/* A text on its way through the automaton. */
typedef struct {
    const uint8_t *at, *end;
    int64_t row, n;
    uint32_t *counts;
    int32_t *seen;
    uint32_t state;
} lane;

/* One byte: enter the next state and count its feature, listed where it appears first. Nothing branches: whether a byte
 * ends a feature cannot be foretold. The state that counts none counts a feature of its own that has been seen already. */
CURATE_INLINE void step(const langid_model *model, lane *l) {
    l->state = model->next[(uint64_t)model->rows[l->state] * 256 + *l->at++];
    int32_t feature = model->outputs[l->state];
    uint32_t before = l->counts[feature]++;
    l->seen[l->n] = feature;
    l->n += before == 0;
}

/* Move all lanes by as many bytes as the shortest has left. The automaton is far larger than a cache, so a step waits for
 * memory; the lanes wait together. */
static void walk(const langid_model *model, lane *lanes, int n) {
    int64_t bytes = lanes[0].end - lanes[0].at;
    for (int i = 1; i < n; i++)
        if (lanes[i].end - lanes[i].at < bytes) bytes = lanes[i].end - lanes[i].at;
    if (n == LANGID_LANES)
        for (; bytes > 0; bytes--)
            for (int i = 0; i < LANGID_LANES; i++) step(model, &lanes[i]);
    for (; bytes > 0; bytes--)
        for (int i = 0; i < n; i++) step(model, &lanes[i]);
}

/* Give a lane the next text that has bytes; 0 where there is none. */
static int load(lane *l, const curate_text *text, int64_t none, int64_t *row, int64_t *labels, double *shares) {
    for (; *row < text->length; (*row)++) {
        int64_t start = text_offset(text, *row), stop = text_offset(text, *row + 1);
        labels[*row] = -1;
        shares[*row] = 0;
        if (start == stop || text_is_null(text, *row)) continue;
        l->at = text->data + start;
        l->end = text->data + stop;
        l->state = 0;
        l->n = 0;
        l->counts[none] = 1;
        l->row = (*row)++;
        return 1;
    }
    l->counts[none] = 0;
    return 0;
}

/* The weights do not fit into a cache, and which rows of them come next is known: four features are fetched ahead. */
enum { AHEAD = 4, WEIGHTS_OF_A_LINE = 32 };

CURATE_INLINE void fetch(const int16_t *weights, int64_t classes) {
#if defined(__GNUC__)
    for (int64_t c = 0; c < classes; c += WEIGHTS_OF_A_LINE) __builtin_prefetch(weights + c);
#else
    (void)weights, (void)classes;
#endif
}

/* Move the sums of the features that were seen k times into the scores, and clear them. */
static void weigh(const langid_model *model, uint32_t k, int32_t *sums, double *scores) {
    double weight = (double)(float)log1p((double)k) * model->unit;
    for (int64_t c = 0; c < model->classes; c++) scores[c] += weight * (double)sums[c];
    memset(sums, 0, (size_t)model->classes * sizeof *sums);
}

/* Turn scores into shares of the labels; returns the class of the largest. */
static int32_t decide(const langid_model *model, int64_t bytes, double *scores, double *share) {
    double best = scores[0], sum = 0;
    for (int64_t c = 1; c < model->classes; c++)
        if (scores[c] > best) best = scores[c];
    double softness = sqrt((double)bytes);
    for (int64_t c = 0; c < model->classes; c++) {
        double own = exp((scores[c] - best) / softness);
        int32_t label = model->first[c]; /* never behind c, so it is a share by now */
        scores[c] = 0;
        scores[label] += own;
        sum += own;
    }
    int32_t found = 0;
    for (int32_t c = 1; c < model->classes; c++)
        if (scores[c] > scores[found]) found = c;
    *share = scores[found] / sum;
    return found;
}

/* Sum up the weights of what a lane has counted, clear it, and score. Counts above the levels are rare: they are looked for
 * in ascending order, so that sums of doubles have one order. */
static void score(const langid_model *model, lane *l, int64_t bytes, add_kernel add, langid_room room, int64_t *label,
                  double *share) {
    if (l->n == 0) return;
    int64_t left = 0;
    for (int64_t i = 0; i < l->n; i++) {
        int32_t feature = l->seen[i];
        if (i + AHEAD < l->n) fetch(model->weights + l->seen[i + AHEAD] * model->classes, model->classes);
        uint32_t k = l->counts[feature];
        if (k > LANGID_LEVELS) {
            l->seen[left++] = feature;
            continue;
        }
        l->counts[feature] = 0;
        add(model->weights + feature * model->classes, model->classes, room.sums + (k - 1) * model->classes);
    }
    for (int64_t c = 0; c < model->classes; c++) room.scores[c] = (double)model->prior[c];
    for (uint32_t k = 1; k <= LANGID_LEVELS; k++) weigh(model, k, room.sums + (k - 1) * model->classes, room.scores);
    while (left > 0) {
        uint32_t k = UINT32_MAX;
        for (int64_t i = 0; i < left; i++)
            if (l->counts[l->seen[i]] < k) k = l->counts[l->seen[i]];
        int64_t rest = 0;
        for (int64_t i = 0; i < left; i++) {
            int32_t feature = l->seen[i];
            if (l->counts[feature] != k) {
                l->seen[rest++] = feature;
                continue;
            }
            l->counts[feature] = 0;
            add(model->weights + feature * model->classes, model->classes, room.sums);
        }
        weigh(model, k, room.sums, room.scores);
        left = rest;
    }
    *label = decide(model, bytes, room.scores, share);
}

void langid_classify(const curate_text *text, const langid_model *model, langid_room room, int simd, int64_t *labels,
                     double *shares) {
    add_kernel add = add_for(simd);
    lane lanes[LANGID_LANES];
    int64_t row = 0;
    int n = 0;
    for (int i = 0; i < LANGID_LANES; i++) {
        lanes[i].counts = room.counts + i * (model->features + 1);
        lanes[i].seen = room.seen + i * (model->features + 1);
    }
    while (n < LANGID_LANES && load(&lanes[n], text, model->features, &row, labels, shares)) n++;
    while (n > 0) {
        walk(model, lanes, n);
        for (int i = n - 1; i >= 0; i--) {
            if (lanes[i].at < lanes[i].end) continue;
            int64_t done = lanes[i].row, bytes = text_offset(text, done + 1) - text_offset(text, done);
            score(model, &lanes[i], bytes, add, room, &labels[done], &shares[done]);
            if (load(&lanes[i], text, model->features, &row, labels, shares)) continue;
            lane ended = lanes[i]; /* its counters go to the end, where the next call's lanes would look for them */
            lanes[i] = lanes[--n];
            lanes[n] = ended;
        }
    }
}
