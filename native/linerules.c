#include "lines.h"
#include "sentence.h"

#if CURATE_X86
#include <immintrin.h>
#endif

/* At most five of a line, and one for every '['. */
int64_t linerules_most_spans(const curate_text *text) {
    const uint8_t *p = text->data + text_offset(text, 0), *end = text->data + text_offset(text, text->length);
    int64_t most = 5 * text->length;
    while (p < end) {
        const uint8_t *stop = end - p > 255 ? p + 255 : end; /* sums of bytes that fit a byte go into vectors */
        uint8_t feeds = 0, brackets = 0;
        for (; p < stop; p++) {
            feeds += (uint8_t)(*p == '\n');
            brackets += (uint8_t)(*p == '[');
        }
        most += 5 * feeds + brackets;
    }
    return most;
}

int64_t linerules_room_bytes(const curate_text *text) {
    int64_t longest = 1;
    for (int64_t row = 0; row < text->length; row++) {
        int64_t bytes = text_offset(text, row + 1) - text_offset(text, row);
        if (bytes > longest) longest = bytes;
    }
    return longest;
}

enum { MAY_JAVASCRIPT = 1, MAY_POLICY = 2, MAY_LOREM = 4, MAY_CURLY = 8, MAY_CITE = 16 };

#define MAY_HOLD(w, x, y, z) ((uint8_t)(a == (w)) & (uint8_t)(b == (x)) & (uint8_t)(c == (y)) & (uint8_t)(d == (z)))

/* Which phrases a text may hold, by four bytes of each: compares that a compiler puts into vectors. */
static int phrases_of(const uint8_t *p, int64_t n) {
    uint8_t java = 0, policy = 0, lorem = 0, curly = 0, cite = 0;
    for (int64_t i = 0; i + 3 < n; i++) {
        uint8_t a = p[i] | 0x20, b = p[i + 1] | 0x20, c = p[i + 2] | 0x20, d = p[i + 3] | 0x20;
        java |= MAY_HOLD('j', 'a', 'v', 'a');
        policy |= MAY_HOLD('o', 'k', 'i', 'e') | MAY_HOLD('v', 'a', 'c', 'y') | MAY_HOLD('f', ' ', 'u', 's');
        lorem |= MAY_HOLD('m', ' ', 'i', 'p');
    }
    for (int64_t i = 0; i < n; i++) {
        curly |= (uint8_t)(p[i] == '{');
        cite |= (uint8_t)(p[i] == '[');
    }
    return (java ? MAY_JAVASCRIPT : 0) | (policy ? MAY_POLICY : 0) | (lorem ? MAY_LOREM : 0) | (curly ? MAY_CURLY : 0) |
           (cite ? MAY_CITE : 0);
}

static int has_policy(range line) {
    static const char *const phrases[] = {"terms of use",   "privacy policy", "cookie policy",
                                          "uses cookies", "use of cookies", "use cookies"};
    for (int i = 0; i < 6; i++)
        if (find(line.from, line.to, phrases[i])) return 1;
    return 0;
}

static int has_long_word(range line, int64_t most) {
    int64_t chars = 0;
    if (line.to - line.from <= most) return 0;
    for (const uint8_t *p = line.from; p < line.to;) {
        uint32_t code;
        int class_, bytes = character(p, line.to, &code, &class_);
        chars = class_ == 2 || tokens_unspaced(code) ? 0 : chars + 1;
        if (chars > most) return 1;
        p += bytes;
    }
    return 0;
}

/* Bytes of the citation at '[', 0 if it is none. */
static int64_t citation_bytes(const uint8_t *p, const uint8_t *end) {
    if (end - p >= 6 && memcmp(p, "[edit]", 6) == 0) return 6;
    if (end - p >= 17 && memcmp(p, "[citation needed]", 17) == 0) return 17;
    const uint8_t *at = p + 1;
    while (at < end && KIND[*at] & DIGIT) at++;
    return at < end && *at == ']' ? at + 1 - p : 0;
}

/* The line without its citations, copied to `room` if there are any. */
static range without_citations(range line, uint8_t *room, int64_t *found) {
    uint8_t *to = room;
    *found = 0;
    if (!memchr(line.from, '[', (size_t)(line.to - line.from))) return line;
    for (const uint8_t *p = line.from; p < line.to;) {
        int64_t bytes = *p == '[' ? citation_bytes(p, line.to) : 0;
        if (bytes) (*found)++;
        else *to++ = *p;
        p += bytes ? bytes : 1;
    }
    return *found ? (range){room, to} : line;
}

static int ends_well(range line) {
    if (line.to - line.from >= 3 && line.to[-1] == '.' && line.to[-2] == '.' && line.to[-3] == '.') return 0;
    uint32_t code = last_code(line);
    return code == '"' || sentence_terminal(code);
}

/* Whether the full stop at p belongs to the word before it: an initial or a title. */
static int is_abbreviation(const uint8_t *from, const uint8_t *p) {
    static const char *const known[] = {"mr", "mrs", "ms", "dr", "prof", "st", "vs", "etc", "jr", "sr", "inc", "ltd", "co"};
    const uint8_t *first = p;
    while (first > from && p - first < 5 && !(KIND[first[-1]] & (SPACE | HIGH)) && first[-1] != '.' && first[-1] != '(') first--;
    int64_t n = p - first;
    if (n == 1) return (*first | 0x20) >= 'a' && (*first | 0x20) <= 'z';
    for (int i = 0; i < 13; i++)
        if ((int64_t)strlen(known[i]) == n && begins(first, p, known[i])) return 1;
    return 0;
}

/* Behind the marks and closing quotes or brackets that follow a sentence's end. */
static const uint8_t *closed(const uint8_t *p, const uint8_t *end) {
    while (p < end) {
        uint32_t code;
        int class_, bytes = character(p, end, &code, &class_);
        if (!sentence_terminal(code) && !sentence_closing_quote(code) && code != ')' && code != ']') break;
        p += bytes;
    }
    return p;
}

/* The next byte that may end a sentence: . ! ? or one beyond ASCII. */
CURATE_INLINE const uint8_t *next_mark(const uint8_t *p, const uint8_t *end) {
#if CURATE_X86
    for (; end - p >= 16; p += 16) {
        __m128i bytes = _mm_loadu_si128((const __m128i *)p);
        __m128i marks = _mm_or_si128(_mm_cmpeq_epi8(bytes, _mm_set1_epi8('.')), _mm_cmpeq_epi8(bytes, _mm_set1_epi8('?')));
        marks = _mm_or_si128(_mm_or_si128(marks, _mm_cmpeq_epi8(bytes, _mm_set1_epi8('!'))), bytes);
        int bits = _mm_movemask_epi8(marks);
        if (bits) return p + __builtin_ctz((unsigned)bits);
    }
#endif
    while (p < end && !(KIND[*p] & (END | HIGH))) p++;
    return p;
}

/* Sentences of a line without white space at its end: up to a mark that white space or the line's end follows, and what is left
 * behind the last. */
static int64_t sentences_of(range line) {
    int64_t sentences = 0;
    const uint8_t *open = line.from;
    for (const uint8_t *p = line.from; (p = next_mark(p, line.to)) < line.to;) {
        uint32_t code;
        int class_, bytes = character(p, line.to, &code, &class_);
        if (!sentence_terminal(code)) {
            p += bytes;
            continue;
        }
        const uint8_t *behind = closed(p + bytes, line.to);
        int ends = behind == line.to || space_bytes(behind, line.to) || tokens_unspaced(code);
        if (ends && !(code == '.' && behind == p + 1 && behind < line.to && is_abbreviation(line.from, p))) {
            sentences++;
            open = behind;
        }
        p = behind;
    }
    return sentences + (open < line.to);
}

/* Which rule cuts a line: its column, BLANK, or STAYS. `text` is the line as it stays, without citations. */
static int c4_line(range whole, const c4_rules *rules, int may, uint8_t *room, range *text, int64_t *found) {
    range line = *text = stripped(whole);
    int64_t citations = 0;
    if (line.from == line.to) return rules->min_words > 0 || rules->flags & C4_RULE_END_MARKS ? BLANK : STAYS;
    found[C4_LINES]++;
    if (rules->max_word_chars && has_long_word(line, rules->max_word_chars)) return C4_LONG_WORD;
    if (may & MAY_CITE && rules->flags & C4_RULE_CITATIONS) *text = line = without_citations(line, room, &citations);
    if (rules->flags & C4_RULE_END_MARKS && !ends_well(line)) return C4_NO_END_MARK;
    if (words_of(line, rules->min_words) < rules->min_words) return C4_FEW_WORDS;
    if (may & MAY_LOREM && find(line.from, line.to, "lorem ipsum")) found[C4_LOREM]++;
    if (rules->flags & C4_RULE_JAVASCRIPT && may & MAY_JAVASCRIPT && find(line.from, line.to, "javascript")) return C4_JAVASCRIPT;
    if (may & MAY_CURLY && memchr(line.from, '{', (size_t)(line.to - line.from))) found[C4_CURLY]++;
    if (rules->flags & C4_RULE_POLICY && may & MAY_POLICY && has_policy(line)) return C4_POLICY;
    found[C4_CITATIONS] += citations;
    return STAYS;
}

static void c4_text(const uint8_t *start, const uint8_t *end, const c4_rules *rules, uint8_t *room, int64_t *found, span_list *spans) {
    int may = phrases_of(start, end - start);
    for (const uint8_t *line = start, *next; line < end; line = next) {
        const uint8_t *feed = memchr(line, '\n', (size_t)(end - line));
        range whole = {line, feed ? feed : end}, text;
        next = feed ? feed + 1 : end;
        int64_t cited = found[C4_CITATIONS];
        int rule = c4_line(whole, rules, may, room, &text, found);
        if (rule != STAYS) {
            if (rule >= 0) found[rule]++;
            cut(spans, line - start, next - start);
            continue;
        }
        found[C4_SENTENCES] += sentences_of(stripped(text));
        if (found[C4_CITATIONS] == cited) continue;
        for (const uint8_t *p = line; p < whole.to; p++) {
            int64_t bytes = *p == '[' ? citation_bytes(p, whole.to) : 0;
            if (!bytes) continue;
            cut(spans, p - start, p + bytes - start);
            p += bytes - 1;
        }
    }
}

void linerules_c4(const curate_text *text, const c4_rules *rules, void *room, int64_t *counts, int64_t *offsets, span_list *spans) {
    int64_t rows = text->length;
    offsets[0] = 0;
    for (int64_t row = 0; row < rows; row++) {
        int64_t found[C4_COLUMNS] = {0};
        spans->row_first = spans->n;
        if (!text_is_null(text, row))
            c4_text(text->data + text_offset(text, row), text->data + text_offset(text, row + 1), rules, room, found, spans);
        for (int i = 0; i < C4_COLUMNS; i++) counts[i * rows + row] = found[i];
        offsets[row + 1] = spans->n;
    }
}
