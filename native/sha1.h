/* SHA-1, of which only the first four bytes are wanted: the hash that datasketch gives to a token.
 *
 * Cost: one block of 64 bytes for messages of up to 55 bytes. Nothing is allocated or kept.
 */
#ifndef CURATE_SHA1_H
#define CURATE_SHA1_H

#include <stdint.h>

/* The first four bytes of the digest, read as a little-endian number. */
uint32_t sha1_first(const uint8_t *message, int64_t bytes);

#endif
