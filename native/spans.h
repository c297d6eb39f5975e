/* Spans carried out: what stands between them is copied, and in their place their own text.
 *
 *   offsets       int64[rows + 1]: the spans of row i are offsets[i] .. offsets[i + 1] - 1
 *   starts, stops int64[spans]: bytes from the row's first
 *   texts         as many rows as spans: what stands there instead
 *   out_offsets   int64[rows + 1], out uint8[out_bytes]: the new texts, without a gap
 *
 * Returns -1, or the first row whose spans are not sorted, disjoint and inside the text, or that `out` has no room for;
 * no byte is written beyond `out`. A null row has no bytes. Cost O(bytes).
 */
#ifndef CURATE_SPANS_H
#define CURATE_SPANS_H

#include <stdint.h>

#include "text.h"

typedef struct {
    const int64_t *offsets, *starts, *stops;
    int64_t n;
} span_rows;

int64_t spans_apply(const curate_text *text, const span_rows *spans, const curate_text *texts, int64_t *out_offsets,
                    uint8_t *out, int64_t out_bytes);

#endif
