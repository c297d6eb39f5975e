/* A borrowed column of UTF-8 texts, as every text kernel takes it.
 *
 *   offsets32 / offsets64   length + 1 non-decreasing byte positions into data; exactly one of the two is set
 *                           (both NULL when length is 0). Already moved to the first row of an Arrow slice.
 *   validity                NULL, or a bitmap in which row i is bit (bit_offset + i), 1 = present
 *   data                    the bytes; readable up to the last offset, not one byte further
 *
 * The binding has checked that offsets start at >= 0 and never decrease, so start <= end holds for each row.
 */
#ifndef CURATE_TEXT_H
#define CURATE_TEXT_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

typedef struct {
    const uint8_t *data;
    const int32_t *offsets32;
    const int64_t *offsets64;
    const uint8_t *validity;
    int64_t bit_offset;
    int64_t length;
} curate_text;

/* Byte position at which row `row` starts; row == length gives the end of the last row. */
static inline int64_t text_offset(const curate_text *text, int64_t row) {
    if (text->offsets32) return text->offsets32[row];
    return text->offsets64 ? text->offsets64[row] : 0;
}

static inline int text_is_null(const curate_text *text, int64_t row) {
    if (!text->validity) return 0;
    int64_t bit = text->bit_offset + row;
    return !((text->validity[bit >> 3] >> (bit & 7)) & 1);
}

#endif
