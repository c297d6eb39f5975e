/* What repeats inside one document: lines, paragraphs and n-grams of words, from the hashes that textrules.c made of them.
 *
 * An (n+1)-gram can only repeat where the n-gram at its place and the one behind both do. So of each n only the places that
 * are still possible are looked at: all for n = 2, few for 3, none for most longer ones. Cost O(words) once, and then O(places).
 */
#ifndef CURATE_TEXTREPEATS_H
#define CURATE_TEXTREPEATS_H

#include <stdint.h>

/* Arrays of at least as many items as units + 2, but for slots: repeats_slots() of them. */
typedef struct {
    uint64_t *word_hash, *line_hash; /* of lines that hold more than white space */
    uint32_t *word_end;              /* sums of lengths: words i .. j-1 have word_end[j] - word_end[i] characters */
    uint32_t *line_chars;            /* UINT32_MAX: a blank line */
    uint64_t *gram_hash;             /* of the n words from i */
    uint32_t *places, *first, *count; /* where an n-gram may repeat; the first equal one of each place; how many, by first */
    uint32_t *slots;
    int64_t n_words, n_lines;
} repeat_tables;

/* A power of two. */
int64_t repeats_slots(int64_t units);

/* found: [TEXTRULES_COLUMNS]; the first of these sets the columns of lines, the second those of paragraphs and n-grams. */
void repeats_lines(repeat_tables *t, int64_t *found);
void repeats_others(repeat_tables *t, int64_t *found);

#endif
