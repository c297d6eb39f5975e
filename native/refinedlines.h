/* RefinedWeb's rules for lines: counts int64[REFINED_COLUMNS, rows]; spans, room, words and lines as in linerules.h. */
#ifndef CURATE_REFINEDLINES_H
#define CURATE_REFINEDLINES_H

#include "linerules.h"

enum {
    REFINED_LINES,
    REFINED_UPPERCASE, /* more than max_uppercase of its characters have a lower case */
    REFINED_NUMERIC,   /* nothing but digits 0-9 and white space */
    REFINED_COUNTER,   /* "3 likes" */
    REFINED_FEW_WORDS,
    REFINED_EDITED, /* of at most max_edit_words words, and a phrase was taken out */
    REFINED_WORDS,
    REFINED_WORDS_CUT,
    REFINED_COLUMNS
};

typedef struct {
    double max_uppercase;              /* above 1: off */
    int64_t min_words, max_edit_words; /* 0: off */
    int numeric, counters;
} refined_rules;

void linerules_refined(const curate_text *text, const refined_rules *rules, void *room, int64_t *counts, int64_t *offsets, span_list *spans);

#endif
