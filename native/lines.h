/* Lines of a text, as the rules that judge lines see them: characters, words, phrases, and the spans that are cut.
 *
 * Nothing here reads beyond the end that it is given. A byte that is not well-formed UTF-8 is a symbol of its own.
 */
#ifndef CURATE_LINES_H
#define CURATE_LINES_H

#include "linerules.h"
#include "simd.h"
#include "tokens.h"

enum { SPACE = 1, UPPER = 2, DIGIT = 4, HIGH = 8, END = 16 };

/* Of each byte; END is '.', '!' and '?'. */
static const uint8_t KIND[256] = {
    0,  0,  0,  0,  0,  0,  0,  0,  0, 1, 1, 1, 1, 1, 0,  0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1,
    1,  16, 0,  0,  0,  0,  0,  0,  0, 0, 0, 0, 0, 0, 16, 0, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 0, 0, 0, 0, 0, 16,
    0,  2,  2,  2,  2,  2,  2,  2,  2, 2, 2, 2, 2, 2, 2,  2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 0, 0, 0, 0, 0,
    0,  0,  0,  0,  0,  0,  0,  0,  0, 0, 0, 0, 0, 0, 0,  0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    8,  8,  8,  8,  8,  8,  8,  8,  8, 8, 8, 8, 8, 8, 8,  8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8,
    8,  8,  8,  8,  8,  8,  8,  8,  8, 8, 8, 8, 8, 8, 8,  8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8,
    8,  8,  8,  8,  8,  8,  8,  8,  8, 8, 8, 8, 8, 8, 8,  8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8,
    8,  8,  8,  8,  8,  8,  8,  8,  8, 8, 8, 8, 8, 8, 8,  8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8,
};

typedef struct {
    const uint8_t *from, *to;
} range;

/* Bytes of the character at p, at least 1; a bad byte is a symbol. */
CURATE_INLINE int character(const uint8_t *p, const uint8_t *end, uint32_t *code, int *class_) {
    *code = 0;
    int bytes = tokens_character(p, end, code, class_);
    if (bytes) return bytes;
    *class_ = 0;
    return 1;
}

CURATE_INLINE int space_bytes(const uint8_t *p, const uint8_t *end) {
    if (!(KIND[*p] & HIGH)) return KIND[*p] & SPACE;
    uint32_t code;
    int class_, bytes = character(p, end, &code, &class_);
    return class_ == 2 ? bytes : 0;
}

static inline const uint8_t *before(const uint8_t *from, const uint8_t *p) {
    const uint8_t *at = p - 1;
    while (at > from && p - at < 4 && (*at & 0xc0) == 0x80) at--;
    uint32_t code;
    int class_;
    return character(at, p, &code, &class_) == p - at ? at : p - 1;
}

static inline uint32_t last_code(range line) {
    if (line.from == line.to) return 0;
    uint32_t code;
    int class_;
    character(before(line.from, line.to), line.to, &code, &class_);
    return code;
}

static inline range stripped(range line) {
    int bytes;
    while (line.from < line.to && (bytes = space_bytes(line.from, line.to))) line.from += bytes;
    while (line.from < line.to) {
        const uint8_t *last = before(line.from, line.to);
        if (!space_bytes(last, line.to)) break;
        line.to = last;
    }
    return line;
}

CURATE_INLINE uint8_t lower(uint8_t c) { return KIND[c] & UPPER ? c | 0x20 : c; }

/* A phrase of small ASCII letters, in any case. */
static inline int begins(const uint8_t *p, const uint8_t *end, const char *phrase) {
    for (; *phrase; phrase++, p++)
        if (p == end || lower(*p) != (uint8_t)*phrase) return 0;
    return 1;
}

static inline const uint8_t *find(const uint8_t *p, const uint8_t *end, const char *phrase) {
    for (; p < end; p++)
        if ((*p | 0x20) == (uint8_t)*phrase && begins(p, end, phrase)) return p;
    return NULL;
}

/* Words of a line; those behind the `enough`-th are not counted. */
static inline int64_t words_of(range line, int64_t enough) {
    int64_t words = 0;
    int inside = 0;
    for (const uint8_t *p = line.from; p < line.to && words < enough;) {
        int kind = KIND[*p];
        if (!(kind & (SPACE | HIGH))) {
            words += !inside;
            inside = 1;
            p++;
            continue;
        }
        if (kind & SPACE) {
            inside = 0;
            p++;
            continue;
        }
        uint32_t code;
        int class_;
        p += character(p, line.to, &code, &class_);
        int alone = tokens_unspaced(code);
        words += class_ != 2 && (!inside || alone);
        inside = class_ != 2 && !alone;
    }
    return words;
}

CURATE_INLINE void cut(span_list *spans, int64_t start, int64_t stop) {
    if (start == stop) return;
    if (spans->n > spans->row_first && spans->stops[spans->n - 1] == start) {
        spans->stops[spans->n - 1] = stop;
        return;
    }
    spans->starts[spans->n] = start;
    spans->stops[spans->n++] = stop;
}

enum { STAYS = -1, BLANK = -2 }; /* what a line's judge says beside the column of the rule that cuts it */

#endif
