#include "ngrams.h"

#include <math.h>

#include "mix64.h"
#include "sha256.h"
#include "simd.h"

/* ---------------------------------------------------------------- buckets of a batch of tokens */

/* Fills scratch->buckets[k - 1][j] for the n-gram of order k that ends at the j-th token of the batch. Entries whose
 * n-gram would begin before the document hold something unused; the sinks begin behind them. */
CURATE_INLINE void mix64_bigrams(const ngram_spec *spec, ngram_scratch *scratch, int64_t count) {
    const token_stream *stream = &scratch->stream;
    const uint32_t *starts = stream->starts + stream->history, *ends = stream->ends + stream->history;
    const uint8_t *lower = stream->lower;
    const uint64_t buckets = spec->buckets;
    uint64_t before = scratch->first[0];
    for (int64_t j = 0; j < count; j++) {
        uint64_t token = mix64_token(lower + starts[j], ends[j] - starts[j], &MIX64_FIRST);
        scratch->buckets[0][j] = mix64_bucket(token, buckets);
        scratch->buckets[1][j] = mix64_bucket(mix64_append(before, token, &MIX64_FIRST), buckets);
        before = token;
    }
    scratch->first[0] = before;
}

CURATE_INLINE void append_token(uint64_t *ngrams, int n, uint64_t token, const mix64_constants *k) {
    for (int order = n - 1; order > 0; order--) ngrams[order] = mix64_append(ngrams[order - 1], token, k);
    ngrams[0] = token;
}

static void mix64_any(const ngram_spec *spec, ngram_scratch *scratch, int64_t count) {
    const token_stream *stream = &scratch->stream;
    for (int64_t j = 0; j < count; j++) {
        uint32_t start = stream->starts[stream->history + j], end = stream->ends[stream->history + j];
        append_token(scratch->first, spec->n, mix64_token(stream->lower + start, end - start, &MIX64_FIRST), &MIX64_FIRST);
        for (int order = 0; order < spec->n; order++)
            scratch->buckets[order][j] = mix64_bucket(scratch->first[order], spec->buckets);
    }
}

static void mix64_baseline(const ngram_spec *spec, ngram_scratch *scratch, int64_t count) {
    if (spec->n == 2) mix64_bigrams(spec, scratch, count);
    else mix64_any(spec, scratch, count);
}

#if CURATE_X86
CURATE_TARGET_AVX2 static void mix64_avx2(const ngram_spec *spec, ngram_scratch *scratch, int64_t count) {
    if (spec->n == 2) mix64_bigrams(spec, scratch, count);
    else mix64_any(spec, scratch, count);
}
#endif

/* The bucket of tokens last - order .. last of the stream, by SHA-256. */
static uint32_t sha256_bucket(const ngram_spec *spec, const token_stream *stream, int64_t last, int order) {
    sha256_state state;
    sha256_open(&state, spec->rules.simd);
    for (int64_t token = last - order; token <= last; token++) {
        if (token > last - order) sha256_take(&state, (const uint8_t *)" ", 1);
        sha256_take(&state, stream->lower + stream->starts[token], stream->ends[token] - stream->starts[token]);
    }
    return sha256_modulo(&state, spec->buckets);
}

static void sha256_buckets(const ngram_spec *spec, ngram_scratch *scratch, int64_t count, int64_t seen) {
    const token_stream *stream = &scratch->stream;
    for (int64_t j = 0; j < count; j++) {
        int64_t at = stream->history + j;
        const uint8_t *token = stream->lower + stream->starts[at];
        uint64_t bytes = stream->ends[at] - stream->starts[at];
        append_token(scratch->first, spec->n, mix64_token(token, bytes, &MIX64_FIRST), &MIX64_FIRST);
        append_token(scratch->second, spec->n, mix64_token(token, bytes, &MIX64_SECOND), &MIX64_SECOND);
        for (int order = 0; order < spec->n && order <= seen + j; order++) {
            ngram_cache_slot *slot = spec->cache + (scratch->first[order] & (spec->cache_slots - 1));
            if (!slot->used || slot->first != scratch->first[order] || slot->second != scratch->second[order])
                *slot = (ngram_cache_slot){scratch->first[order], scratch->second[order],
                                           sha256_bucket(spec, stream, at, order), 1};
            scratch->buckets[order][j] = slot->bucket;
        }
    }
}

/* The next batch of a document of which `seen` tokens have passed: its number of tokens, with buckets filled. */
static int64_t next_batch(const ngram_spec *spec, ngram_scratch *scratch, int64_t seen) {
    int64_t count = tokens_next(&scratch->stream, spec->hash == NGRAMS_SHA256 ? spec->n - 1 : 0);
    if (spec->hash == NGRAMS_SHA256) sha256_buckets(spec, scratch, count, seen);
#if CURATE_X86
    else if (spec->rules.simd & SIMD_AVX2) mix64_avx2(spec, scratch, count);
#endif
    else mix64_baseline(spec, scratch, count);
    return count;
}

static void open_row(const curate_text *text, int64_t row, const ngram_spec *spec, ngram_scratch *scratch) {
    int64_t start = text_offset(text, row), end = text_offset(text, row + 1);
    scratch->stream.rules = spec->rules;
    tokens_open(&scratch->stream, text->data + start, end - start, text->data + text_offset(text, text->length));
    memset(scratch->first, 0, sizeof scratch->first);
    memset(scratch->second, 0, sizeof scratch->second);
}

/* The first token of a batch, counted from the batch's start, that ends an n-gram of this order (0 = one token). */
static inline int64_t first_of_order(int order, int64_t seen) { return order > seen ? order - seen : 0; }

/* ---------------------------------------------------------------- counting */

static int64_t count_row(const curate_text *text, int64_t row, const ngram_spec *spec, int64_t *counts, int64_t step,
                         ngram_scratch *scratch) {
    int64_t seen = 0, count;
    open_row(text, row, spec, scratch);
    while ((count = next_batch(spec, scratch, seen)) > 0) {
        for (int order = 0; order < spec->n; order++) {
            const uint32_t *buckets = scratch->buckets[order];
            for (int64_t j = first_of_order(order, seen); j < count; j++) counts[buckets[j]] += step;
        }
        seen += count;
    }
    return seen;
}

void ngrams_count(const curate_text *text, const ngram_spec *spec, const uint8_t *cell, int64_t *counts,
                  ngram_scratch *scratch) {
    for (int64_t row = 0; row < text->length; row++) {
        if (text_is_null(text, row) || (cell && cell[row] == NGRAMS_SKIP_CELL)) continue;
        int64_t *into = counts + (cell ? (int64_t)cell[row] * spec->buckets : 0);
        /* Too short is known at the end only; such a document is short, so it is taken out again by a second walk. */
        if (count_row(text, row, spec, into, 1, scratch) < spec->min_tokens)
            count_row(text, row, spec, into, -1, scratch);
    }
}

/* ---------------------------------------------------------------- scoring */

/* lanes[4] += ratio[buckets[j]], lane (phase + j) % 4: four chains of additions, so that their latency is hidden. */
static void add_one_target(const uint32_t *buckets, int64_t count, int64_t phase, const double *ratio, double *lanes) {
    int64_t j = 0;
    for (; j < count && (phase + j) % NGRAMS_LANES; j++) lanes[(phase + j) % NGRAMS_LANES] += ratio[buckets[j]];
    double lane0 = lanes[0], lane1 = lanes[1], lane2 = lanes[2], lane3 = lanes[3];
    for (; j + NGRAMS_LANES <= count; j += NGRAMS_LANES) {
        lane0 += ratio[buckets[j]];
        lane1 += ratio[buckets[j + 1]];
        lane2 += ratio[buckets[j + 2]];
        lane3 += ratio[buckets[j + 3]];
    }
    lanes[0] = lane0, lanes[1] = lane1, lanes[2] = lane2, lanes[3] = lane3;
    for (; j < count; j++) lanes[(phase + j) % NGRAMS_LANES] += ratio[buckets[j]];
}

static void add_targets(const uint32_t *buckets, int64_t count, int64_t phase, const double *ratio, int64_t targets,
                        double *lanes) {
    for (int64_t j = 0; j < count; j++) {
        const double *from = ratio + (int64_t)buckets[j] * targets;
        double *to = lanes + (phase + j) % NGRAMS_LANES * targets;
        for (int64_t t = 0; t < targets; t++) to[t] += from[t];
    }
}

static int64_t score_row(const curate_text *text, int64_t row, const ngram_spec *spec, const double *ratio,
                         int64_t targets, double *lanes, ngram_scratch *scratch) {
    int64_t seen = 0, count;
    open_row(text, row, spec, scratch);
    for (int64_t i = 0; i < spec->n * NGRAMS_LANES * targets; i++) lanes[i] = 0.0;
    while ((count = next_batch(spec, scratch, seen)) > 0) {
        for (int order = 0; order < spec->n; order++) {
            int64_t from = first_of_order(order, seen);
            if (from >= count) break;
            const uint32_t *buckets = scratch->buckets[order] + from;
            double *into = lanes + order * NGRAMS_LANES * targets;
            if (targets == 1) add_one_target(buckets, count - from, seen + from, ratio, into);
            else add_targets(buckets, count - from, seen + from, ratio, targets, into);
        }
        seen += count;
    }
    return seen;
}

void ngrams_score(const curate_text *text, const ngram_spec *spec, const double *ratio, int64_t targets, double *scores,
                  int64_t *tokens, double *lanes, ngram_scratch *scratch) {
    for (int64_t row = 0; row < text->length; row++) {
        double *score = scores + row * targets;
        tokens[row] = text_is_null(text, row) ? -1 : score_row(text, row, spec, ratio, targets, lanes, scratch);
        int counts = tokens[row] > 0 && tokens[row] >= spec->min_tokens;
        for (int64_t t = 0; t < targets; t++) {
            double total = 0.0;
            for (int order = 0; counts && order < spec->n; order++) {
                const double *lane = lanes + order * NGRAMS_LANES * targets + t;
                total += (lane[0] + lane[targets]) + (lane[2 * targets] + lane[3 * targets]);
            }
            score[t] = counts ? total : (double)NAN;
        }
    }
}

/* ---------------------------------------------------------------- one n-gram */

uint32_t ngrams_bucket(const curate_text *tokens, const ngram_spec *spec, ngram_scratch *scratch) {
    sha256_state state;
    uint64_t ngram = 0;
    sha256_open(&state, spec->rules.simd);
    for (int64_t row = 0; row < tokens->length; row++) {
        int64_t start = text_offset(tokens, row), bytes = text_offset(tokens, row + 1) - start;
        memcpy(scratch->stream.lower, tokens->data + start, (size_t)bytes); /* padded: the hash reads past the end */
        uint64_t token = mix64_token(scratch->stream.lower, (uint64_t)bytes, &MIX64_FIRST);
        ngram = row ? mix64_append(ngram, token, &MIX64_FIRST) : token;
        if (row) sha256_take(&state, (const uint8_t *)" ", 1);
        sha256_take(&state, scratch->stream.lower, (uint64_t)bytes);
    }
    return spec->hash == NGRAMS_SHA256 ? sha256_modulo(&state, spec->buckets) : mix64_bucket(ngram, spec->buckets);
}
