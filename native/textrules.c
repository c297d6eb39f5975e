#include "textrules.h"

#include "blockbits.h"
#include "mix64.h"
#include "sentence.h"
#include "simd.h"
#include "textrepeats.h"
#include "tokens.h"

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
    int64_t short_chars, n_words;
    int64_t *found;                      /* [TEXTRULES_COLUMNS] of this document */
    repeat_tables t;
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

/* Stop words as little-endian words, each in the place that stop_place gives it: be to the of and that have with. */
CURATE_INLINE uint32_t stop_place(uint32_t word) { return word * 0xcd613e31u >> 28; }

/* The first bytes of four; none of a longer word. */
static const uint32_t STOP_KEEP[6] = {0, 0xff, 0xffff, 0xffffff, 0xffffffff, 0};
static const uint32_t STOPS[16] = {
    0x00000000, 0x00656874, 0x00000000, 0x00006f74, 0x65766168, 0x74616874, 0x00000000, 0x68746977,
    0x00000000, 0x00000000, 0x00000000, 0x00000000, 0x0000666f, 0x00000000, 0x00646e61, 0x00006562,
};

/* The bit of a stop word, 0 for others; four bytes at p are readable. Without a branch: lengths of words are hard to foretell. */
CURATE_INLINE int stop_bit(const uint8_t *p, int64_t bytes) {
    uint32_t word = (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
    word &= STOP_KEEP[bytes > 5 ? 5 : bytes];
    uint32_t place = stop_place(word);
    return (int)(STOPS[place] == word && word) << place;
}

/* The word from p, known to hold what `seen` says. */
CURATE_INLINE void word_add(scan *s, const uint8_t *p, int64_t bytes, int64_t chars, int seen, int alone) {
    s->found[RULE_PROPER] += (seen & ALNUM) != 0;
    s->found[RULE_ALPHA] += (seen & LETTER) != 0;
    s->found[RULE_UNSPACED] += alone;
    int spaced = !alone && seen & ALNUM;
    s->found[RULE_SPACED] += spaced;
    s->found[RULE_SPACED_CHARS] += spaced ? chars : 0;
    if (CURATE_LIKELY(s->readable_end - p >= 4)) s->stops |= stop_bit(p, bytes);
    else {
        uint8_t last[4] = {0};
        memcpy(last, p, (size_t)(bytes < 4 ? bytes : 4));
        s->stops |= stop_bit(last, bytes);
    }
    if (s->flags & TEXTRULES_REPEATS) {
        s->t.word_hash[s->n_words] = hash_of(p, bytes, s->readable_end);
        s->t.word_end[s->n_words + 1] = s->t.word_end[s->n_words] + (uint32_t)chars;
    }
    s->n_words++;
}

static void word_close(scan *s, const uint8_t *p, int alone) {
    word_add(s, s->word, p - s->word, chars_at(s, p) - s->word_at, s->seen, alone);
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
        uint32_t code = last_code(s->line, p);
        s->found[RULE_PUNCTUATED] += sentence_terminal(code);
        s->found[RULE_QUOTED] += sentence_closing_quote(code);
        s->found[RULE_SHORT] += chars <= s->short_chars;
    }
    if (s->flags & (TEXTRULES_LINES | TEXTRULES_REPEATS)) {
        s->t.line_hash[s->t.n_lines] = s->first ? hash_of(s->line, p - s->line, s->readable_end) : 0;
        s->t.line_chars[s->t.n_lines++] = s->first ? (uint32_t)chars : UINT32_MAX; /* a blank line */
    }
    s->first = NULL;
    s->line = p + 1;
    s->line_at = chars_at(s, p) + 1;
}

/* "..." counts at its third full stop. */
CURATE_INLINE void dot_seen(scan *s, const uint8_t *p) {
    s->dots = s->dot && s->dot == p - 1 ? s->dots + 1 : 1;
    if (s->dots == 3) s->found[RULE_ELLIPSES]++, s->dots = 0;
    s->dot = p;
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

/* Bytes from p up to `stop`, or a few more where a character goes on behind it. */
static const uint8_t *scan_bytes(scan *s, const uint8_t *p, const uint8_t *stop) {
    while (p < stop) {
        int kind = KIND[*p];
        if (!(kind & (SPACE | SPECIAL))) {
            const uint8_t *from = p;
            int seen = 0;
            word_open(s, p);
            do seen |= kind;
            while (++p < stop && !((kind = KIND[*p]) & (SPACE | SPECIAL)));
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
            else dot_seen(s, p);
            if (!s->first) s->first = p;
            s->last = ++p;
        }
    }
    return p;
}

CURATE_INLINE void block_dots(scan *s, const uint8_t *p, uint64_t dot) {
    if (!(dot & dot << 1) && !(dot & 1 && s->dot == p - 1)) {
        s->dot = p + highest(dot);
        s->dots = 1;
        return;
    }
    for (; dot; dot &= dot - 1) dot_seen(s, p + lowest(dot));
}

CURATE_INLINE int seen_in(const block_bits *b, uint64_t range) {
    return (b->letter & range ? LETTER : 0) | (b->alnum & range ? ALNUM : 0);
}

CURATE_INLINE void block_words(scan *s, const uint8_t *p, const block_bits *b) {
    uint64_t word = ~b->space, before = word << 1 | (s->word != NULL);
    uint64_t starts = word & ~before, ends = b->space & before;
    if (s->word) {
        if (!ends) {
            s->seen |= seen_in(b, word);
            return;
        }
        int end = lowest(ends);
        s->seen |= seen_in(b, below(end));
        word_close(s, p + end, 0);
        ends &= ends - 1;
    }
    for (; ends; ends &= ends - 1, starts &= starts - 1) {
        int start = lowest(starts), end = lowest(ends);
        word_add(s, p + start, end - start, end - start, seen_in(b, below(end) & ~below(start)), 0);
    }
    if (!starts) return;
    word_open(s, p + lowest(starts));
    s->seen = seen_in(b, ~below(lowest(starts)));
}

CURATE_INLINE void block_lines(scan *s, const uint8_t *p, const block_bits *b) {
    uint64_t rest = ~b->space;
    for (uint64_t feed = b->feed;; feed &= feed - 1) {
        int at = feed ? lowest(feed) : 63;
        uint64_t here = feed ? rest & below(at) : rest;
        if (here) {
            if (!s->first) s->first = p + lowest(here);
            s->last = p + highest(here) + 1;
        }
        if (!feed) return;
        s->found[RULE_NEWLINES]++;
        line_close(s, p + at);
        rest &= ~below(at); /* the line feed itself is white space */
    }
}

static void scan_text(scan *s) {
    const uint8_t *p = s->start;
    while (s->end - p >= 64) {
        block_bits b = block_of(p);
        if (b.high) {
            p = scan_bytes(s, p, p + 64);
            continue;
        }
        block_words(s, p, &b);
        block_lines(s, p, &b);
        if (b.dot) block_dots(s, p, b.dot);
        for (uint64_t hash = b.hash; hash; hash &= hash - 1) s->found[RULE_HASHES]++;
        p += 64;
    }
    p = scan_bytes(s, p, s->end);
    if (s->word) word_close(s, p, 0);
    if (p > s->line) line_close(s, p);
    s->found[RULE_CHARS] = chars_at(s, p);
    s->found[RULE_WORDS] = s->n_words;
    for (int bits = s->stops; bits; bits &= bits - 1) s->found[RULE_STOPS]++;
}

/* ---------------------------------------------------------------- rows */

/* Words and lines that a row can have at most: every separator and every byte that may begin an unspaced character. */
static int64_t most_units(const uint8_t *p, int64_t bytes) {
    int64_t units = 2;
    for (int64_t at = 0; at < bytes;) {
        int64_t stop = bytes - at > 127 ? at + 127 : bytes; /* sums that fit a byte go into vectors */
        uint8_t here = 0;
        for (int64_t i = at; i < stop; i++)
            here += (uint8_t)(p[i] <= ' ') + (uint8_t)(p[i] == 0xc2) + (uint8_t)(p[i] >= 0xe0) + (uint8_t)(p[i] >= 0xe0);
        units += here;
        at = stop;
    }
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

int64_t textrules_room_bytes(const curate_text *text) {
    int64_t units = most_of_rows(text) + 2;
    return units * (3 * 8 + 5 * 4) + repeats_slots(units) * 4;
}

static repeat_tables tables_in(void *room, int64_t units) {
    repeat_tables t = {.word_hash = room};
    t.gram_hash = t.word_hash + units;
    t.line_hash = t.gram_hash + units;
    t.word_end = (uint32_t *)(t.line_hash + units);
    t.line_chars = t.word_end + units;
    t.places = t.line_chars + units;
    t.first = t.places + units;
    t.count = t.first + units;
    t.slots = t.count + units;
    t.word_end[0] = 0;
    return t;
}

void textrules_count(const curate_text *text, int flags, int64_t short_chars, void *room, int64_t *counts) {
    int64_t rows = text->length;
    const uint8_t *readable_end = rows ? text->data + text_offset(text, rows) : NULL;
    repeat_tables t = tables_in(room, most_of_rows(text) + 2);
    memset(counts, 0, (size_t)(rows * TEXTRULES_COLUMNS) * sizeof *counts);
    for (int64_t row = 0; row < rows; row++) {
        if (text_is_null(text, row)) continue;
        int64_t found[TEXTRULES_COLUMNS] = {0};
        const uint8_t *start = text->data + text_offset(text, row);
        scan s = {.start = start, .end = text->data + text_offset(text, row + 1), .readable_end = readable_end,
                  .line = start, .flags = flags, .short_chars = short_chars, .found = found, .t = t};
        scan_text(&s);
        s.t.n_words = s.n_words;
        if (flags & (TEXTRULES_LINES | TEXTRULES_REPEATS)) repeats_lines(&s.t, found);
        if (flags & TEXTRULES_REPEATS) repeats_others(&s.t, found);
        for (int i = 0; i < TEXTRULES_COLUMNS; i++) counts[i * rows + row] = found[i];
    }
}
