#include "refinedlines.h"

#include "lines.h"

typedef struct {
    int64_t chars, upper, other, words; /* other: neither digit nor white space */
} line_counts;

CURATE_INLINE uint8_t is_space(uint8_t c) { return (uint8_t)((uint8_t)(c - 9) < 5) | (uint8_t)((uint8_t)(c - 28) < 5); }

/* Of a line of ASCII; 0 if it is none. Sums of bytes that fit a byte, which a compiler puts into vectors. */
static int counted_ascii(range line, line_counts *n) {
    int64_t bytes = line.to - line.from;
    const uint8_t *p = line.from;
    uint8_t high = 0;
    *n = (line_counts){.chars = bytes};
    if (!bytes) return 1;
    n->words = !is_space(*p); /* of the others, those behind a space begin one */
    for (int64_t at = 0; at < bytes;) {
        int64_t stop = bytes - at > 255 ? at + 255 : bytes;
        uint8_t upper = 0, plain = 0, words = 0;
        for (int64_t i = at; i < stop; i++) {
            uint8_t c = p[i];
            high |= c;
            upper += (uint8_t)((uint8_t)(c - 'A') < 26);
            plain += is_space(c) | (uint8_t)((uint8_t)(c - '0') < 10);
        }
        for (int64_t i = at ? at : 1; i < stop; i++) words += (uint8_t)(is_space(p[i - 1]) & !is_space(p[i]));
        n->upper += upper;
        n->other += stop - at - plain;
        n->words += words;
        at = stop;
    }
    return high < 0x80;
}

static line_counts counted(range line) {
    line_counts n;
    int inside = 0;
    if (counted_ascii(line, &n)) return n;
    n = (line_counts){0, 0, 0, 0};
    for (const uint8_t *p = line.from; p < line.to;) {
        int kind = KIND[*p];
        n.chars++;
        if (!(kind & HIGH)) {
            int word = !(kind & SPACE);
            n.upper += (kind & UPPER) != 0;
            n.other += !(kind & (SPACE | DIGIT));
            n.words += word & !inside;
            inside = word;
            p++;
            continue;
        }
        uint32_t code;
        int class_;
        p += character(p, line.to, &code, &class_);
        int alone = tokens_unspaced(code), word = class_ != 2;
        n.upper += tokens_upper(code);
        n.other += word;
        n.words += word && (!inside || alone);
        inside = word && !alone;
    }
    return n;
}

/* Behind what is neither letter, digit nor underscore. */
static const uint8_t *past_symbols(const uint8_t *p, const uint8_t *end) {
    while (p < end) {
        uint32_t code;
        int class_, bytes = character(p, end, &code, &class_);
        if (class_ == 1) break;
        p += bytes;
    }
    return p;
}

/* A number, perhaps of thousands or millions, and what it counts. */
static int is_counter(range line) {
    static const char *const things[] = {"like",   "share",  "comment",  "retweet", "repost", "quote",    "bookmark",
                                         "upvote", "downvote", "download", "view",    "follower"};
    const uint8_t *p = past_symbols(line.from, line.to);
    if (p == line.to || !(KIND[*p] & DIGIT)) return 0;
    while (p < line.to && (KIND[*p] & DIGIT || *p == ',' || *p == '.')) p++;
    if (p < line.to && (lower(*p) == 'k' || lower(*p) == 'm' || lower(*p) == 'b')) p++;
    const uint8_t *thing = p;
    int bytes;
    while (thing < line.to && (bytes = space_bytes(thing, line.to))) thing += bytes;
    if (thing == p) return 0;
    for (int i = 0; i < 12; i++) {
        if (!begins(thing, line.to, things[i])) continue;
        const uint8_t *behind = thing + strlen(things[i]);
        if (behind < line.to && lower(*behind) == 's') behind++;
        if (past_symbols(behind, line.to) == line.to) return 1;
    }
    return 0;
}

/* At most five ranges of `line` that are boilerplate phrases, a white space beside each included; their number. */
static int phrases_in(range line, range *found) {
    int n = 0, bytes;
    const uint8_t *p = line.from;
    if (begins(p, line.to, "sign-in")) {
        const uint8_t *behind = p + 7;
        if (behind < line.to && (bytes = space_bytes(behind, line.to))) behind += bytes;
        found[n++] = (range){p, behind};
        p = behind;
    }
    while (n < 4 && (p = find(p, line.to, "items in cart"))) {
        const uint8_t *from = p > line.from ? before(line.from, p) : p;
        if (from < p && (!space_bytes(from, p) || (n && from < found[n - 1].to))) from = p;
        found[n++] = (range){from, p + 13};
        p += 13;
    }
    for (int i = 0; i < 2; i++) {
        const char *phrase = i ? "read more\xe2\x80\xa6" : "read more...";
        int64_t size = (int64_t)strlen(phrase);
        const uint8_t *least = n ? found[n - 1].to : line.from;
        if (line.to - least < size || !begins(line.to - size, line.to, phrase)) continue;
        const uint8_t *from = line.to - size > least ? before(least, line.to - size) : least;
        if (!space_bytes(from, line.to)) from = line.to - size;
        found[n++] = (range){from, line.to};
        break;
    }
    return n;
}

/* Cut a short line's phrases, or all of it where nothing else is left; words that went. */
static int64_t edit(const uint8_t *start, range whole, const uint8_t *next, int64_t words, uint8_t *room, int64_t *found, span_list *spans) {
    range phrases[5];
    int n = phrases_in(whole, phrases);
    if (!n) return 0;
    uint8_t *to = room;
    const uint8_t *p = whole.from;
    for (int i = 0; i < n; i++) {
        memcpy(to, p, (size_t)(phrases[i].from - p));
        to += phrases[i].from - p;
        p = phrases[i].to;
    }
    memcpy(to, p, (size_t)(whole.to - p));
    to += whole.to - p;
    range left = stripped((range){room, to});
    found[REFINED_EDITED]++;
    if (left.from == left.to) {
        cut(spans, whole.from - start, next - start);
        return words;
    }
    for (int i = 0; i < n; i++) cut(spans, phrases[i].from - start, phrases[i].to - start);
    return words - words_of(left, words);
}

static int refined_line(range line, line_counts n, const refined_rules *rules) {
    if (n.words == 0) return STAYS;
    if ((double)n.upper > rules->max_uppercase * (double)n.chars) return REFINED_UPPERCASE;
    if (rules->numeric && n.other == 0) return REFINED_NUMERIC;
    if (rules->counters && is_counter(line)) return REFINED_COUNTER;
    if (n.words < rules->min_words) return REFINED_FEW_WORDS;
    return STAYS;
}

static void refined_text(const uint8_t *start, const uint8_t *end, const refined_rules *rules, uint8_t *room, int64_t *found, span_list *spans) {
    for (const uint8_t *line = start, *next; line < end; line = next) {
        const uint8_t *feed = memchr(line, '\n', (size_t)(end - line));
        range whole = {line, feed ? feed : end};
        next = feed ? feed + 1 : end;
        line_counts n = counted(whole);
        found[REFINED_LINES] += n.words > 0;
        found[REFINED_WORDS] += n.words;
        int rule = refined_line(whole, n, rules);
        if (rule != STAYS) {
            found[rule]++;
            found[REFINED_WORDS_CUT] += n.words;
            cut(spans, line - start, next - start);
        } else if (n.words > 0 && n.words <= rules->max_edit_words) {
            found[REFINED_WORDS_CUT] += edit(start, whole, next, n.words, room, found, spans);
        }
    }
}

void linerules_refined(const curate_text *text, const refined_rules *rules, void *room, int64_t *counts, int64_t *offsets, span_list *spans) {
    int64_t rows = text->length;
    offsets[0] = 0;
    for (int64_t row = 0; row < rows; row++) {
        int64_t found[REFINED_COLUMNS] = {0};
        spans->row_first = spans->n;
        if (!text_is_null(text, row))
            refined_text(text->data + text_offset(text, row), text->data + text_offset(text, row + 1), rules, room, found, spans);
        for (int i = 0; i < REFINED_COLUMNS; i++) counts[i * rows + row] = found[i];
        offsets[row + 1] = spans->n;
    }
}
