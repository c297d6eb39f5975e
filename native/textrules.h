/* What the published document rules count (Gopher quality and repetition, FineWeb quality), in one scan of each text.
 *
 *   flags     TEXTRULES_WORDS, _LINES, _REPEATS: which groups of columns are wanted
 *   counts    int64[TEXTRULES_COLUMNS, rows], column by column, owned by the caller; 0 where not wanted or null
 *   room      textrules_room_bytes() of scratch, 8-byte aligned
 *
 * A word is a run without white space (str.isspace); a character of a script that puts no spaces between words is a word
 * of its own (tokens_unspaced). A line ends at \n. A paragraph is a run of lines that hold more than white space.
 * Lengths are characters. Repeats are found by 64-bit hashes.
 *
 * Cost O(bytes) for the scan, O(words) for n = 2, and for each longer n what is left of the places where one may repeat.
 */
#ifndef CURATE_TEXTRULES_H
#define CURATE_TEXTRULES_H

#include <stdint.h>

#include "text.h"

enum { TEXTRULES_WORDS = 1, TEXTRULES_LINES = 2, TEXTRULES_REPEATS = 4 };

enum {
    RULE_CHARS, /* always */
    RULE_NEWLINES,
    RULE_WORDS,
    RULE_UNSPACED,     /* words that are one character of an unspaced script */
    RULE_PROPER,       /* words with a letter or a digit */
    RULE_SPACED,       /* those of them that are not one unspaced character, */
    RULE_SPACED_CHARS, /* and their length */
    RULE_ALPHA,        /* words with a letter; a digit beyond ASCII counts as one */
    RULE_HASHES,       /* '#' */
    RULE_ELLIPSES,     /* "..." without overlap, and U+2026 */
    RULE_STOPS,        /* how many of: the be to of and that have with */
    RULE_LINES,        /* lines, empty ones too */
    RULE_BULLETS,      /* lines whose first character that is not white space is '-' or U+2022 */
    RULE_TRAILING,     /* lines that end in an ellipsis, white space left out */
    RULE_FILLED,       /* lines that hold more than white space; of these: */
    RULE_PUNCTUATED,   /* end in sentence punctuation */
    RULE_QUOTED,       /* end in a closing quotation mark */
    RULE_SHORT,        /* of at most `short_chars` characters */
    RULE_DUP_LINES,    /* equal to an earlier one, */
    RULE_DUP_LINE_CHARS,
    RULE_PARAGRAPHS,
    RULE_DUP_PARAGRAPHS,
    RULE_DUP_PARAGRAPH_CHARS,
    RULE_REPEATED, /* the largest n up to 10 of which a column below found a repeat; 0: none */
    RULE_TOP, /* n = 2, 3, 4: count times length, spaces between words included, of the most frequent; may stand once */
    RULE_DUP = RULE_TOP + 3, /* n = 5 .. 10: length without spaces of those met before, none counted twice */
    TEXTRULES_COLUMNS = RULE_DUP + 6
};

/* Scratch for the rows of `text`. */
int64_t textrules_room_bytes(const curate_text *text);

void textrules_count(const curate_text *text, int flags, int64_t short_chars, void *room, int64_t *counts);

#endif
