#include "codelines.h"

#include "lines.h"

static int is_alnum(uint8_t c) { return KIND[c] & (UPPER | DIGIT) || (c >= 'a' && c <= 'z'); }

static void measure_lines(const uint8_t *start, const uint8_t *end, int64_t head_lines, int64_t *found) {
    int64_t here = 0;
    for (const uint8_t *p = start; p < end;) {
        uint8_t c = *p;
        found[CODE_CHARS]++;
        if (c == '\n') {
            if (here > found[CODE_MAX_LINE_CHARS]) found[CODE_MAX_LINE_CHARS] = here;
            here = 0;
            if (++found[CODE_LINES] == head_lines) found[CODE_HEAD_BYTES] = p + 1 - start;
            p++;
            continue;
        }
        here++;
        found[CODE_LINE_CHARS]++;
        if (!(KIND[c] & HIGH)) {
            found[CODE_ALNUM] += is_alnum(c);
            p++;
            continue;
        }
        uint32_t code;
        int class_;
        p += character(p, end, &code, &class_);
        found[CODE_ALNUM] += class_ == 1;
    }
    if (here > found[CODE_MAX_LINE_CHARS]) found[CODE_MAX_LINE_CHARS] = here;
    if (here) found[CODE_LINES]++;
    if (found[CODE_LINES] <= head_lines) found[CODE_HEAD_BYTES] = end - start;
}

static int64_t characters_of(const uint8_t *p, const uint8_t *end) {
    int64_t chars = 0;
    for (; p < end; p++) chars += (*p & 0xc0) != 0x80;
    return chars;
}

static const uint8_t *line_end(const uint8_t *p, const uint8_t *end) {
    const uint8_t *feed = p < end ? memchr(p, '\n', (size_t)(end - p)) : NULL;
    return feed ? feed : end;
}

/* Behind the next `closing`, or the text's end. */
static const uint8_t *behind(const uint8_t *p, const uint8_t *end, const char *closing) {
    int64_t n = (int64_t)strlen(closing);
    for (; end - p >= n; p++)
        if (memcmp(p, closing, (size_t)n) == 0) return p + n;
    return end;
}

/* Behind a string that opens at p with one quote, or three. */
static const uint8_t *string_end(const uint8_t *p, const uint8_t *end, int syntax) {
    uint8_t quote = *p;
    int triple = syntax & CODE_PYTHON && end - p >= 3 && p[1] == quote && p[2] == quote;
    for (p += triple ? 3 : 1; p < end; p++) {
        if (*p == '\\') {
            if (++p == end) break;
        } else if (*p == quote && (!triple || (end - p >= 3 && p[1] == quote && p[2] == quote))) {
            return p + (triple ? 3 : 1);
        } else if (*p == '\n' && !triple && quote != '`') {
            return p;
        }
    }
    return end;
}

/* Behind the comment that opens at p; p where none does. */
static const uint8_t *comment_end(const uint8_t *p, const uint8_t *end, int syntax) {
    uint8_t next = p + 1 < end ? p[1] : 0;
    if ((*p == '#' && syntax & CODE_HASH) || (*p == '%' && syntax & CODE_PERCENT)) return line_end(p, end);
    if ((*p == '/' && next == '/' && syntax & CODE_SLASHES) || (*p == '-' && next == '-' && syntax & CODE_DASHES)) return line_end(p, end);
    if (*p == '/' && next == '*' && syntax & CODE_BLOCK) return behind(p + 2, end, "*/");
    if (*p == '<' && syntax & CODE_MARKUP && end - p >= 4 && memcmp(p, "<!--", 4) == 0) return behind(p + 4, end, "-->");
    return p;
}

/* Whether a letter says that the string behind it is raw or of Unicode: still the first thing of its statement. */
static int is_prefix(const uint8_t *p, const uint8_t *end) {
    return (lower(*p) == 'r' || lower(*p) == 'u') && p + 1 < end && (p[1] == '"' || p[1] == '\'');
}

/* Characters in comments. `fresh`: nothing but white space stands before p in its statement; `depth`: open brackets. */
static int64_t comments_of(const uint8_t *start, const uint8_t *end, int syntax) {
    int64_t chars = 0, depth = 0;
    int fresh = 1;
    for (const uint8_t *p = start; p < end;) {
        const uint8_t *stop = comment_end(p, end, syntax);
        if (stop > p) {
            chars += characters_of(p, stop);
            p = stop;
            continue;
        }
        int string = (*p == '\'' && syntax & CODE_SINGLE) || (*p == '"' && syntax & CODE_DOUBLE) || (*p == '`' && syntax & CODE_BACKTICK);
        if (string) {
            stop = string_end(p, end, syntax);
            if (syntax & CODE_PYTHON && fresh && depth == 0) chars += characters_of(p, stop);
            p = stop;
            fresh = 0;
            continue;
        }
        if (*p == '(' || *p == '[' || *p == '{') depth++;
        else if ((*p == ')' || *p == ']' || *p == '}') && depth) depth--;
        if (*p == '\n') fresh = 1;
        else if (!(KIND[*p] & SPACE) && !(fresh && is_prefix(p, end))) fresh = 0;
        p++;
    }
    return chars;
}

void codelines_count(const curate_text *text, const uint16_t *syntax, int64_t head_lines, int64_t *counts) {
    int64_t rows = text->length;
    for (int64_t row = 0; row < rows; row++) {
        int64_t found[CODE_COLUMNS] = {0};
        if (!text_is_null(text, row)) {
            const uint8_t *start = text->data + text_offset(text, row), *end = text->data + text_offset(text, row + 1);
            measure_lines(start, end, head_lines, found);
            if (syntax[row]) found[CODE_COMMENT_CHARS] = comments_of(start, end, syntax[row]);
        }
        for (int i = 0; i < CODE_COLUMNS; i++) counts[i * rows + row] = found[i];
    }
}
