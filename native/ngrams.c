#include "ngrams.h"

#include <math.h>

#include "mix64.h"
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
        uint64_t token = mix64_token(stream->lower + start, end - start, &MIX64_FIRST);
        append_token(scratch->first, spec->n, token, &MIX64_FIRST);
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

/* The bytes of the n-gram of tokens last - order .. last, joined by spaces. */
static uint64_t ngram_bytes(const token_stream *stream, int64_t last, int order) {
    uint64_t bytes = (uint64_t)order;
    for (int64_t token = last - order; token <= last; token++) bytes += stream->ends[token] - stream->starts[token];
    return bytes;
}

static uint32_t sha256_long(const ngram_spec *spec, const ngram_scratch *scratch, int64_t last, int order) {
    const token_stream *stream = &scratch->stream;
    sha256_state state;
    sha256_open(&state, spec->rules.simd);
    for (int64_t token = last - order; token <= last; token++) {
        if (token > last - order) sha256_take(&state, (const uint8_t *)" ", 1);
        sha256_take(&state, stream->lower + stream->starts[token], stream->ends[token] - stream->starts[token]);
    }
    return sha256_close(&state, &scratch->modulus);
}

static void queue_flush(const ngram_spec *spec, ngram_scratch *scratch) {
    sha256_queue *queue = &scratch->queue;
    uint32_t residues[SHA256_LANES];
    if (!queue->count) return;
    sha256_short(queue->blocks, queue->count, &scratch->modulus, spec->rules.simd, residues);
    for (int i = 0; i < queue->count; i++) {
        *queue->answers[i] = queue->fresh[i].bucket = residues[i];
        *queue->slots[i] = queue->fresh[i];
    }
    queue->count = 0;
}

/* An n-gram that is not in the cache: its bucket goes to *answer, now or when the queue is flushed. */
static void sha256_miss(const ngram_spec *spec, ngram_scratch *scratch, int64_t last, int order, const uint64_t key[2],
                        uint32_t *answer) {
    const token_stream *stream = &scratch->stream;
    sha256_queue *queue = &scratch->queue;
    ngram_cache_slot *slot = spec->cache + (key[0] & (spec->cache_slots - 1));
    uint64_t bytes = ngram_bytes(stream, last, order);
    if (bytes > SHA256_SHORT) {
        *answer = sha256_long(spec, scratch, last, order);
        *slot = (ngram_cache_slot){key[0], key[1], *answer, 1};
        return;
    }
    uint8_t *to = queue->blocks[queue->count];
    for (int64_t token = last - order; token <= last; token++) {
        uint32_t length = stream->ends[token] - stream->starts[token];
        memcpy(to, stream->lower + stream->starts[token], length);
        to[length] = ' ';
        to += length + 1;
    }
    sha256_pad_short(queue->blocks[queue->count], bytes);
    queue->fresh[queue->count] = (ngram_cache_slot){key[0], key[1], 0, 1};
    queue->slots[queue->count] = slot;
    queue->answers[queue->count] = answer;
    if (++queue->count == SHA256_LANES) queue_flush(spec, scratch);
}

/* Both hashes of the n-grams that end at tokens from .. to - 1 of the batch; their slots are on the way afterwards. */
static void sha256_keys(const ngram_spec *spec, ngram_scratch *scratch, int64_t from, int64_t to) {
    const token_stream *stream = &scratch->stream;
    for (int64_t j = from; j < to; j++) {
        uint32_t start = stream->starts[stream->history + j], bytes = stream->ends[stream->history + j] - start;
        const uint8_t *token = stream->lower + start;
        append_token(scratch->first, spec->n, mix64_token(token, bytes, &MIX64_FIRST), &MIX64_FIRST);
        append_token(scratch->second, spec->n, mix64_token(token, bytes, &MIX64_SECOND), &MIX64_SECOND);
        for (int order = 0; order < spec->n; order++) {
            scratch->keys[j - from][order][0] = scratch->first[order];
            scratch->keys[j - from][order][1] = scratch->second[order];
#if defined(__GNUC__)
            __builtin_prefetch(spec->cache + (scratch->first[order] & (spec->cache_slots - 1)), 1);
#endif
        }
    }
}

static void sha256_buckets(const ngram_spec *spec, ngram_scratch *scratch, int64_t count, int64_t seen) {
    for (int64_t from = 0; from < count; from += NGRAMS_AHEAD) {
        int64_t to = count - from < NGRAMS_AHEAD ? count : from + NGRAMS_AHEAD;
        sha256_keys(spec, scratch, from, to);
        for (int64_t j = from; j < to; j++) {
            for (int order = 0; order < spec->n && order <= seen + j; order++) {
                const uint64_t *key = scratch->keys[j - from][order];
                const ngram_cache_slot *slot = spec->cache + (key[0] & (spec->cache_slots - 1));
                if (slot->used && slot->first == key[0] && slot->second == key[1])
                    scratch->buckets[order][j] = slot->bucket;
                else
                    sha256_miss(spec, scratch, scratch->stream.history + j, order, key, &scratch->buckets[order][j]);
            }
        }
    }
    queue_flush(spec, scratch);
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

static void open_call(const ngram_spec *spec, ngram_scratch *scratch) {
    scratch->modulus = sha256_modulus_of(spec->buckets);
    scratch->queue.count = 0;
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
    open_call(spec, scratch);
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
    open_call(spec, scratch);
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
    open_call(spec, scratch);
    sha256_open(&state, spec->rules.simd);
    for (int64_t row = 0; row < tokens->length; row++) {
        int64_t start = text_offset(tokens, row), bytes = text_offset(tokens, row + 1) - start;
        memcpy(scratch->stream.lower, tokens->data + start, (size_t)bytes); /* padded: the hash reads past the end */
        uint64_t token = mix64_token(scratch->stream.lower, (uint64_t)bytes, &MIX64_FIRST);
        ngram = row ? mix64_append(ngram, token, &MIX64_FIRST) : token;
        if (row) sha256_take(&state, (const uint8_t *)" ", 1);
        sha256_take(&state, scratch->stream.lower, (uint64_t)bytes);
    }
    return spec->hash == NGRAMS_SHA256 ? sha256_close(&state, &scratch->modulus) : mix64_bucket(ngram, spec->buckets);
}
