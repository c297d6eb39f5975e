/* Bytes and words of texts. A word is what Python's str.split() splits off: a maximal run without Unicode white space.
 *
 *   bytes, words   int64[rows], owned by the caller; 0 and 0 for null
 *
 * Cost O(bytes), about 0.6 instructions a byte of ASCII with SSE2. Bytes that are not UTF-8 are not white space.
 */
#ifndef CURATE_TEXTSTATS_H
#define CURATE_TEXTSTATS_H

#include <stdint.h>

#include "text.h"

void text_stats(const curate_text *text, int simd, int64_t *bytes, int64_t *words);

#endif
