#include "textrules.h"

#include "mix64.h"
#include "simd.h"
#include "tokens.h"

/* Legend: a unit is a line or a paragraph; `hash` of words and units, `chars` their lengths; n_ their numbers. */
typedef struct {
    uint64_t hash;
    uint32_t count, first; /* count 0: empty */
} slot;

typedef struct {
    uint64_t *word_hash, *gram_hash; /* gram_hash[i]: of the n words from i */
    uint32_t *word_end;              /* sums of lengths: words i .. j-1 have word_end[j] - word_end[i] characters */
    uint64_t *line_hash;
    uint32_t *line_chars;
    slot *slots;
} tables;

typedef struct {
    const uint8_t *start, *end, *readable_end;
    int64_t inner;                       /* bytes seen that begin no character */
    const uint8_t *word;                 /* start of the open word, NULL between words */
    int64_t word_at;                     /* characters in front of it */
    int seen;                            /* LETTER, ALNUM of the open word */
    const uint8_t *line, *first, *last;  /* line: its start; first .. last: without white space at its ends */
    int64_t line_at;
    const uint8_t *dot;                  /* the last '.' */
    int dots, stops, flags;
    int64_t short_chars, n_words, n_lines;
    int64_t *found;                      /* [TEXTRULES_COLUMNS] of this document */
    tables t;
} scan;

enum { LETTER = 1, ALNUM = 2, SPACE = 4, SPECIAL = 8 };

/* Of each byte: '\n', '#', '.' and all beyond ASCII are special; '_' is neither letter nor digit. */
static const uint8_t KIND[256] = {
    0, 0, 0, 0, 0, 0, 0, 0, 0, 4, 12, 4, 4, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4, 4, 4, 4,
    4, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 8, 0, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 0, 0, 0, 0, 0, 0,
    0, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 0, 0, 0, 0, 0,
    0, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 0, 0, 0, 0, 0,
    8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8,
    8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8,
    8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8,
    8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8,
};

/* Unicode's Sentence_Terminal in the basic plane, and closing quotation marks. */
static const uint16_t TERMINAL[][2] = {
    {0x21, 0x21}, {0x22, 0x22}, {0x27, 0x27}, {0x2e, 0x2e}, {0x3f, 0x3f}, {0x589, 0x589},
    {0x61d, 0x61f}, {0x6d4, 0x6d4}, {0x700, 0x702}, {0x7f9, 0x7f9}, {0x837, 0x837}, {0x839, 0x839},
    {0x83d, 0x83e}, {0x964, 0x965}, {0x104a, 0x104b}, {0x1362, 0x1362}, {0x1367, 0x1368}, {0x166e, 0x166e},
    {0x1735, 0x1736}, {0x17d4, 0x17d5}, {0x1803, 0x1803}, {0x1809, 0x1809}, {0x1944, 0x1945}, {0x1aa8, 0x1aab},
    {0x1b5a, 0x1b5b}, {0x1b5e, 0x1b5f}, {0x1c3b, 0x1c3c}, {0x1c7e, 0x1c7f}, {0x2019, 0x2019}, {0x201d, 0x201d},
    {0x203c, 0x203d}, {0x2047, 0x2049}, {0x2e2e, 0x2e2e}, {0x2e3c, 0x2e3c}, {0x3002, 0x3002}, {0x300d, 0x300d},
    {0x300f, 0x300f}, {0xa4ff, 0xa4ff}, {0xa60e, 0xa60f}, {0xa6f3, 0xa6f3}, {0xa6f7, 0xa6f7}, {0xa876, 0xa877},
    {0xa8ce, 0xa8cf}, {0xa92f, 0xa92f}, {0xa9c8, 0xa9c9}, {0xaa5d, 0xaa5f}, {0xaaf0, 0xaaf1}, {0xabeb, 0xabeb},
    {0xfe52, 0xfe52}, {0xfe56, 0xfe57}, {0xff01, 0xff01}, {0xff0e, 0xff0e}, {0xff1f, 0xff1f}, {0xff61, 0xff61},
};

static int is_terminal(uint32_t code) {
    if (code < 0x80) return code == '.' || code == '!' || code == '?' || code == '"' || code == '\'';
    int low = 0, high = (int)(sizeof TERMINAL / sizeof TERMINAL[0]);
    while (low < high) {
        int middle = (low + high) / 2;
        if (code > TERMINAL[middle][1]) low = middle + 1;
        else high = middle;
    }
    return low < (int)(sizeof TERMINAL / sizeof TERMINAL[0]) && code >= TERMINAL[low][0];
}

static uint64_t hash_of(const uint8_t *p, int64_t bytes, const uint8_t *readable_end) {
    if (readable_end - (p + bytes) >= 16) return mix64_token(p, (uint64_t)bytes, &MIX64_FIRST);
    uint8_t tail[32] = {0};
    int64_t rest = ((bytes - 1) & 15) + 1;
    memcpy(tail, p + bytes - rest, (size_t)rest);
    uint64_t hash = mix64_token(tail, (uint64_t)rest, &MIX64_FIRST);
    if (bytes <= 16) return hash;
    uint64_t chain = mix64_chain(p, (uint64_t)bytes, &MIX64_FIRST);
    uint64_t first = mix64_word(tail) & MIX64_KEEP[rest][0], second = mix64_word(tail + 8) & MIX64_KEEP[rest][1];
    mix64_product product = mix64_mum(first ^ MIX64_FIRST.c[0] ^ chain, second ^ MIX64_FIRST.c[1]);
    return mix64_fold(product.low ^ MIX64_FIRST.c[2] ^ (uint64_t)bytes, product.high ^ MIX64_FIRST.c[3]);
}

CURATE_INLINE int64_t chars_at(const scan *s, const uint8_t *p) { return p - s->start - s->inner; }

/* The bit of a stop word, 0 for others. */
static int stop_bit(const uint8_t *p, int64_t bytes) {
    uint32_t word = 0;
    for (int64_t i = 0; i < bytes; i++) word = word << 8 | p[i];
    switch (word) {
        case 0x746865: return 1;
        case 0x6265: return 2;
        case 0x746f: return 4;
        case 0x6f66: return 8;
        case 0x616e64: return 16;
        case 0x74686174: return 32;
        case 0x68617665: return 64;
        case 0x77697468: return 128;
        default: return 0;
    }
}

static void word_close(scan *s, const uint8_t *p, int alone) {
    int64_t bytes = p - s->word, chars = chars_at(s, p) - s->word_at;
    s->found[RULE_PROPER] += (s->seen & ALNUM) != 0;
    s->found[RULE_ALPHA] += (s->seen & LETTER) != 0;
    if (alone) s->found[RULE_UNSPACED]++;
    else if (s->seen & ALNUM) {
        s->found[RULE_SPACED]++;
        s->found[RULE_SPACED_CHARS] += chars;
    }
    if (bytes >= 2 && bytes <= 4) s->stops |= stop_bit(s->word, bytes);
    if (s->flags & TEXTRULES_REPEATS) {
        s->t.word_hash[s->n_words] = hash_of(s->word, bytes, s->readable_end);
        s->t.word_end[s->n_words + 1] = s->t.word_end[s->n_words] + (uint32_t)chars;
    }
    s->n_words++;
    s->word = NULL;
    s->seen = 0;
}

CURATE_INLINE void word_open(scan *s, const uint8_t *p) {
    if (s->word) return;
    s->word = p;
    s->word_at = chars_at(s, p);
}

static int ends_in_ellipsis(const uint8_t *first, const uint8_t *last) {
    if (last - first < 3) return 0;
    return (last[-3] == '.' && last[-2] == '.' && last[-1] == '.') ||
           (last[-3] == 0xe2 && last[-2] == 0x80 && last[-1] == 0xa6);
}

static uint32_t last_code(const uint8_t *line, const uint8_t *p) {
    const uint8_t *at = p - 1;
    uint32_t code = 0;
    int class_;
    while (at > line && p - at < 4 && (*at & 0xc0) == 0x80) at--;
    return tokens_character(at, p, &code, &class_) == p - at ? code : 0;
}

static void line_close(scan *s, const uint8_t *p) {
    int64_t chars = chars_at(s, p) - s->line_at;
    s->found[RULE_LINES]++;
    if (s->first) {
        int64_t rest = s->last - s->first;
        s->found[RULE_BULLETS] += s->first[0] == '-' || (rest >= 3 && s->first[0] == 0xe2 && s->first[1] == 0x80 && s->first[2] == 0xa2);
        s->found[RULE_TRAILING] += ends_in_ellipsis(s->first, s->last);
        s->found[RULE_FILLED]++;
        s->found[RULE_PUNCTUATED] += is_terminal(last_code(s->line, p));
        s->found[RULE_SHORT] += chars <= s->short_chars;
    }
    if (s->flags & (TEXTRULES_LINES | TEXTRULES_REPEATS)) {
        s->t.line_hash[s->n_lines] = s->first ? hash_of(s->line, p - s->line, s->readable_end) : 0;
        s->t.line_chars[s->n_lines++] = s->first ? (uint32_t)chars : UINT32_MAX; /* a blank line */
    }
    s->first = NULL;
    s->line = p + 1;
    s->line_at = chars_at(s, p) + 1;
}

/* One character beyond ASCII; its bytes. */
static int wide(scan *s, const uint8_t *p) {
    uint32_t code = 0;
    int class_ = 0, bytes = tokens_character(p, s->end, &code, &class_);
    if (!bytes) bytes = 1; /* a bad byte is a symbol */
    if (class_ == 2) {
        if (s->word) word_close(s, p, 0);
        s->inner += bytes - 1;
        return bytes;
    }
    if (code == 0x2026) s->found[RULE_ELLIPSES]++;
    int alone = tokens_unspaced(code);
    if (alone && s->word) word_close(s, p, 0);
    word_open(s, p);
    if (!s->first) s->first = p;
    s->last = p + bytes;
    s->inner += bytes - 1;
    if (class_ == 1) s->seen |= LETTER | ALNUM;
    if (alone) word_close(s, p + bytes, 1);
    return bytes;
}

static void scan_text(scan *s) {
    const uint8_t *p = s->start;
    while (p < s->end) {
        int kind = KIND[*p];
        if (!(kind & (SPACE | SPECIAL))) {
            const uint8_t *from = p;
            int seen = 0;
            word_open(s, p);
            do seen |= kind;
            while (++p < s->end && !((kind = KIND[*p]) & (SPACE | SPECIAL)));
            s->seen |= seen;
            if (!s->first) s->first = from;
            s->last = p;
            continue;
        }
        if (kind & SPACE) {
            if (s->word) word_close(s, p, 0);
            if (*p == '\n') {
                s->found[RULE_NEWLINES]++;
                line_close(s, p);
            }
            p++;
        } else if (*p >= 0x80) {
            p += wide(s, p);
        } else {
            word_open(s, p);
            if (*p == '#') s->found[RULE_HASHES]++;
            else {
                s->dots = s->dot && s->dot == p - 1 ? s->dots + 1 : 1;
                if (s->dots == 3) s->found[RULE_ELLIPSES]++, s->dots = 0;
                s->dot = p;
            }
            if (!s->first) s->first = p;
            s->last = ++p;
        }
    }
    if (s->word) word_close(s, p, 0);
    if (p > s->line) line_close(s, p);
    s->found[RULE_CHARS] = chars_at(s, p);
    s->found[RULE_WORDS] = s->n_words;
    for (int bits = s->stops; bits; bits &= bits - 1) s->found[RULE_STOPS]++;
}

/* ---------------------------------------------------------------- repeats */

/* An empty table for n hashes; how far a hash is shifted to its slot. */
static int table_clear(slot *slots, int64_t n) {
    int bits = 2;
    while ((INT64_C(1) << bits) < 2 * n) bits++;
    memset(slots, 0, sizeof *slots << bits);
    return 64 - bits;
}

CURATE_INLINE slot *table_find(slot *slots, int shift, uint64_t hash) {
    uint64_t mask = (UINT64_C(1) << (64 - shift)) - 1, at = hash >> shift;
    while (slots[at].count && slots[at].hash != hash) at = (at + 1) & mask;
    return &slots[at];
}

/* Whether the unit was met before; it is from now on. */
static int unit_met(scan *s, int shift, uint64_t hash) {
    slot *found = table_find(s->t.slots, shift, hash);
    if (found->count) return 1;
    found->hash = hash;
    found->count = 1;
    return 0;
}

static void repeated_lines(scan *s) {
    int shift = table_clear(s->t.slots, s->n_lines);
    for (int64_t i = 0; i < s->n_lines; i++) {
        if (s->t.line_chars[i] == UINT32_MAX || !unit_met(s, shift, s->t.line_hash[i])) continue;
        s->found[RULE_DUP_LINES]++;
        s->found[RULE_DUP_LINE_CHARS] += s->t.line_chars[i];
    }
}

static void repeated_paragraphs(scan *s) {
    int shift = table_clear(s->t.slots, s->n_lines);
    for (int64_t i = 0; i < s->n_lines;) {
        uint64_t hash = 0;
        int64_t chars = -1; /* the breaks between its lines count */
        for (; i < s->n_lines && s->t.line_chars[i] != UINT32_MAX; i++) {
            hash = mix64_append(hash, s->t.line_hash[i], &MIX64_FIRST);
            chars += s->t.line_chars[i] + 1;
        }
        if (chars >= 0) {
            s->found[RULE_PARAGRAPHS]++;
            if (unit_met(s, shift, hash)) {
                s->found[RULE_DUP_PARAGRAPHS]++;
                s->found[RULE_DUP_PARAGRAPH_CHARS] += chars;
            }
        }
        i++;
    }
}

/* The n words from i: gram = gram * odd + hash of the last word; word hashes are mixed, so the sum's high bits are. */
CURATE_INLINE uint64_t gram_grow(scan *s, int64_t i, int n) {
    return s->t.gram_hash[i] = s->t.gram_hash[i] * UINT64_C(0x9e3779b97f4a7c15) + s->t.word_hash[i + n - 1];
}

/* Whether an n-gram repeats. Of those that are as frequent, the one that comes first in the text. */
static int top_gram(scan *s, int n) {
    int64_t grams = s->n_words - n + 1;
    uint32_t most = 1, first = 0;
    int shift = table_clear(s->t.slots, grams);
    for (int64_t i = 0; i < grams; i++) {
        uint64_t hash = gram_grow(s, i, n);
        slot *found = table_find(s->t.slots, shift, hash);
        if (!found->count) {
            *found = (slot){hash, 1, (uint32_t)i};
            continue;
        }
        uint32_t count = ++found->count;
        if (count > most || (count == most && found->first < first)) most = count, first = found->first;
    }
    if (most < 2) return 0;
    int64_t chars = s->t.word_end[first + n] - s->t.word_end[first] + (uint32_t)(n - 1);
    s->found[RULE_TOP + n - 2] = chars * most;
    return 1;
}

/* From left to right: an n-gram met before counts and is stepped over, any other is remembered. */
static int duplicate_grams(scan *s, int n) {
    int64_t grams = s->n_words - n + 1, chars = 0, step = 0;
    int shift = table_clear(s->t.slots, grams);
    for (int64_t i = 0; i < grams; i++) {
        uint64_t hash = gram_grow(s, i, n);
        if (i < step || !unit_met(s, shift, hash)) continue;
        chars += s->t.word_end[i + n] - s->t.word_end[i];
        step = i + n;
    }
    s->found[RULE_DUP + n - 5] = chars;
    return chars > 0;
}

static void repeated_grams(scan *s) {
    memcpy(s->t.gram_hash, s->t.word_hash, (size_t)s->n_words * sizeof *s->t.gram_hash);
    for (int n = 2; n <= 10 && s->n_words > n; n++)
        if (!(n <= 4 ? top_gram(s, n) : duplicate_grams(s, n))) return;
}

/* ---------------------------------------------------------------- rows */

/* Words and lines that a row can have at most: every separator and every byte that may begin an unspaced character. */
static int64_t most_units(const uint8_t *p, int64_t bytes) {
    int64_t units = 2;
    for (int64_t i = 0; i < bytes; i++) units += (p[i] <= ' ') + (p[i] == 0xc2) + 2 * (p[i] >= 0xe0);
    return units;
}

static int64_t most_of_rows(const curate_text *text) {
    int64_t most = 2;
    for (int64_t row = 0; row < text->length; row++) {
        if (text_is_null(text, row)) continue;
        int64_t start = text_offset(text, row), units = most_units(text->data + start, text_offset(text, row + 1) - start);
        if (units > most) most = units;
    }
    return most;
}

static int64_t slots_for(int64_t units) {
    int64_t n = 4;
    while (n < 2 * units) n *= 2;
    return n;
}

int64_t textrules_room_bytes(const curate_text *text) {
    int64_t units = most_of_rows(text) + 2;
    return units * (3 * 8 + 2 * 4) + slots_for(units) * (int64_t)sizeof(slot);
}

void textrules_count(const curate_text *text, int flags, int64_t short_chars, void *room, int64_t *counts) {
    int64_t rows = text->length, units = most_of_rows(text) + 2;
    const uint8_t *readable_end = rows ? text->data + text_offset(text, rows) : NULL;
    tables t = {.word_hash = room};
    t.gram_hash = t.word_hash + units;
    t.line_hash = t.gram_hash + units;
    t.slots = (slot *)(t.line_hash + units);
    t.word_end = (uint32_t *)(t.slots + slots_for(units));
    t.line_chars = t.word_end + units;
    t.word_end[0] = 0;
    memset(counts, 0, (size_t)(rows * TEXTRULES_COLUMNS) * sizeof *counts);
    for (int64_t row = 0; row < rows; row++) {
        if (text_is_null(text, row)) continue;
        int64_t found[TEXTRULES_COLUMNS] = {0};
        const uint8_t *start = text->data + text_offset(text, row);
        scan s = {.start = start, .end = text->data + text_offset(text, row + 1), .readable_end = readable_end,
                  .line = start, .flags = flags, .short_chars = short_chars, .found = found, .t = t};
        scan_text(&s);
        if (flags & (TEXTRULES_LINES | TEXTRULES_REPEATS)) repeated_lines(&s);
        if (flags & TEXTRULES_REPEATS) {
            repeated_paragraphs(&s);
            repeated_grams(&s);
        }
        for (int i = 0; i < TEXTRULES_COLUMNS; i++) counts[i * rows + row] = found[i];
    }
}
