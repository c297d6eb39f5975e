#include "spans.h"

/* Append, or refuse where there is no room. */
static int put(uint8_t *out, int64_t *at, int64_t out_bytes, const uint8_t *from, int64_t bytes) {
    if (bytes > out_bytes - *at) return -1;
    if (bytes) memcpy(out + *at, from, (size_t)bytes);
    *at += bytes;
    return 0;
}

int64_t spans_apply(const curate_text *text, const span_rows *spans, const curate_text *texts, int64_t *out_offsets,
                    uint8_t *out, int64_t out_bytes) {
    int64_t at = out_offsets[0] = 0;
    for (int64_t row = 0; row < text->length; row++) {
        int64_t first = text_offset(text, row), size = text_offset(text, row + 1) - first, done = 0;
        const uint8_t *old = text->data + first;
        int64_t i = spans->offsets[row], last = spans->offsets[row + 1];
        if (i < 0 || last < i || last > spans->n) return row;
        if (text_is_null(text, row)) size = 0, i = last;
        for (; i < last; i++) {
            int64_t start = spans->starts[i], stop = spans->stops[i], from = text_offset(texts, i);
            if (start < done || stop < start || stop > size) return row;
            if (put(out, &at, out_bytes, old + done, start - done) < 0) return row;
            if (put(out, &at, out_bytes, texts->data + from, text_offset(texts, i + 1) - from) < 0) return row;
            done = stop;
        }
        if (put(out, &at, out_bytes, old + done, size - done) < 0) return row;
        out_offsets[row + 1] = at;
    }
    return -1;
}
