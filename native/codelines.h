/* What rules for source code measure: lengths of lines, letters and digits, and how much is comment.
 *
 *   syntax    uint16[rows]: CODE_ bits, how a row's language writes comments and strings; 0: unknown, no comments are sought
 *   counts    int64[CODE_COLUMNS, rows], column by column, owned by the caller; 0 for null rows
 *
 * A line ends at \n. Comments are told from strings: a quoted string ends at its quote, or at the end of the line at the latest;
 * `...` and Python's triple quotes may span lines. A Python string that begins a statement counts as a comment.
 * Cost O(bytes), two passes.
 */
#ifndef CURATE_CODELINES_H
#define CURATE_CODELINES_H

#include <stdint.h>

#include "text.h"

enum {
    CODE_HASH = 1,      /* # to the end of the line */
    CODE_SLASHES = 2,   /* // to the end of the line */
    CODE_BLOCK = 4,     /* slash star to star slash */
    CODE_DASHES = 8,    /* -- to the end of the line */
    CODE_PERCENT = 16,  /* % to the end of the line */
    CODE_MARKUP = 32,   /* <!-- to --> */
    CODE_SINGLE = 64,   /* '...' is a string */
    CODE_DOUBLE = 128,  /* "..." is a string */
    CODE_BACKTICK = 256,
    CODE_PYTHON = 512   /* triple quotes; strings that are statements */
};

enum {
    CODE_CHARS,
    CODE_LINES,          /* as str.split("\n") counts them, but for an empty last one */
    CODE_MAX_LINE_CHARS,
    CODE_LINE_CHARS,     /* characters that are no line feed */
    CODE_ALNUM,          /* letters and digits */
    CODE_COMMENT_CHARS,  /* marks included */
    CODE_HEAD_BYTES,     /* bytes of the first `head_lines` lines */
    CODE_COLUMNS
};

void codelines_count(const curate_text *text, const uint16_t *syntax, int64_t head_lines, int64_t *counts);

#endif
