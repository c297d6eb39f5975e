/* C4's rules for lines. What is cut comes back as spans, what was found as counts; refinedlines.h gives back the same.
 *
 *   counts    int64[C4_COLUMNS, rows], column by column, owned by the caller; 0 for null rows
 *   offsets   int64[rows + 1]: the spans of row i are offsets[i] .. offsets[i + 1] - 1
 *   starts, stops   int64[linerules_most_spans()]: bytes from the row's first; sorted, disjoint, between characters
 *   room      linerules_room_bytes() of scratch
 *
 * A line ends at \n, which is cut with it. A word is a run without white space; a character of an unspaced script is one.
 * Cost O(bytes): one pass of compares, one of the lines, and of the lines that stay one for their sentences.
 */
#ifndef CURATE_LINERULES_H
#define CURATE_LINERULES_H

#include <stdint.h>

#include "text.h"

typedef struct {
    int64_t *starts, *stops, n, row_first;
} span_list;

enum { C4_RULE_END_MARKS = 1, C4_RULE_JAVASCRIPT = 2, C4_RULE_POLICY = 4, C4_RULE_CITATIONS = 8 };

/* Of lines that hold more than white space; each line counts for the first rule that cuts it, in this order. */
enum {
    C4_LINES,
    C4_LONG_WORD,   /* a word of more than max_word_chars characters */
    C4_NO_END_MARK, /* no . ! ? " or other script's sentence end at its end, or an ellipsis */
    C4_FEW_WORDS,
    C4_JAVASCRIPT,
    C4_POLICY,
    C4_LOREM,     /* not cut: reached these checks and holds "lorem ipsum" */
    C4_CURLY,     /* not cut: reached these checks and holds '{' */
    C4_CITATIONS, /* [1], [edit], [citation needed] in lines that stay */
    C4_SENTENCES, /* in lines that stay */
    C4_COLUMNS
};

typedef struct {
    int64_t min_words, max_word_chars; /* 0: off */
    int flags;                         /* C4_RULE_ */
} c4_rules;

int64_t linerules_most_spans(const curate_text *text);
int64_t linerules_room_bytes(const curate_text *text);

void linerules_c4(const curate_text *text, const c4_rules *rules, void *room, int64_t *counts, int64_t *offsets, span_list *spans);

#endif
