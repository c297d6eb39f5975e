/* Languages of texts: a walk through an automaton over bytes, and naive Bayes over what it saw (Lui and Baldwin 2012).
 *
 *   next      uint32[]: the state behind byte b in state s is next[rows[s] * 256 + b]; state 0 begins
 *   rows      uint32[states]: states share rows of `next`
 *   outputs   int32[states]: the feature that entering the state counts, or `features` for none
 *   weights   int16[features][classes], in units of `unit`; prior float[classes]
 *   first     int32[classes]: the class whose label this class shares, itself where it is the label's first
 *
 * Of a text of n bytes in which feature f was seen count(f) times:
 *
 *   score(c) = prior(c) + sum over k of float(log1p(k)) * unit * (sum of weights[f][c] over the f with count(f) = k)
 *   share(c) = exp((score(c) - best) / sqrt(n)); classes of one label are added; labels sum to one
 *
 * The inner sums are of integers; the outer one runs over k upwards, so that the order in which features appear does not
 * show. labels[r] is the class of the largest share, the first of equals, and shares[r] its share; -1 and 0 for a null
 * text and for one in which no feature was seen. No variant of the processor changes a bit. A text has under 2^32 bytes.
 *
 * counts: uint32[lanes][features + 1], all zero before and after; seen: the same shape; sums: int32[levels][classes], all
 * zero before and after; scores: double[classes]; the caller's.
 * Cost: two loads that wait for each other a byte, of as many texts at once as there are lanes, and `classes` additions for
 * each different feature.
 */
#ifndef CURATE_LANGID_H
#define CURATE_LANGID_H

#include "text.h"

/* Texts that are walked at once; counts from 1 on that have sums of their own. */
enum { LANGID_LANES = 8, LANGID_LEVELS = 16 };

typedef struct {
    const uint32_t *next, *rows;
    const int32_t *outputs, *first;
    const int16_t *weights;
    const float *prior;
    double unit;
    int64_t states, features, classes;
} langid_model;

typedef struct {
    uint32_t *counts;
    int32_t *seen, *sums;
    double *scores;
} langid_room;

void langid_classify(const curate_text *text, const langid_model *model, langid_room room, int simd, int64_t *labels,
                     double *shares);

#endif
