/* Targets prepared for many documents (levels 4 to 9), and a document followed by one.
 *
 * Alone, a target is parsed once. Behind a document, zlib parses it the same way, step for step, except where the document
 * has a longer match at a place that the parse looks at: then it goes its own way for a few steps, until it stands again
 * at a place in the state in which it stood there alone. So a pair starts from the counts of the target's symbols, looks
 * only at places whose first three or four bytes (as many as a better match must have) the document has too, steps where
 * the two parses differ, and exchanges those symbols.
 *
 * Prepared targets are at most ZIPFIT_PREPARED bytes long: a block holds all their symbols, and all their own places are
 * within reach. Longer ones, and a pair in which a block ends or zlib's buffer slides, are parsed without this.
 */
#ifndef CURATE_ZIPFIT_TARGET_H
#define CURATE_ZIPFIT_TARGET_H

#include "zipfit_parse.h"

enum { ZIPFIT_PREPARED = 16000 };

/* Prepare one target, whose arrays the caller has set; all heads must be 0, as they are again afterwards. */
void zipfit_prepare(const zipfit_scratch *s, effort effort, const uint8_t *bytes, int32_t length, zipfit_target *target);

/* After all n targets are prepared: which questions ask for a gram (asking, asked), and the order of the targets' own. */
void zipfit_index(zipfit_scratch *s, int64_t n);

/* Write down which grams the document in s->bytes has (filter), and mark the questions that ask for them. */
void zipfit_document(const zipfit_scratch *s, int32_t document);

/* Go on from `z`, inside the document, to the end of document and target, no block ending and no window sliding on the
 * way. The document's places are linked, those of its last two bytes too. */
void zipfit_follow(view *v, state *z, int32_t document, const zipfit_target *target);

#endif
