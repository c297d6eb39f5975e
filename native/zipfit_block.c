#include "zipfit_block.h"

#include <string.h>

#include "simd.h"

#if CURATE_X86
#include <emmintrin.h>
#endif

/* A node in a heap: weight (15 bits) << 15 | depth (5) << 10 | number (10). Weights sum to at most 16,384 in a block, so
 * no tree is deeper than 20 (Fibonacci). Leaves have their symbol's number, inner nodes follow in the order in which
 * they are made. Nodes compare by weight, then depth; the number does not count, and at a tie the first asked wins. */
enum { NODE_BITS = 10, WEIGHT_SHIFT = 15, LENGTH_CODES = 19, HEAP_ROWS = 512 };
#define NODE_MASK ((1 << NODE_BITS) - 1)
#define KEY_MASK (~NODE_MASK)
#define WEIGHT_MASK (~((1 << WEIGHT_SHIFT) - 1))
#define NOTHING 0x3fffffff /* past a heap's end: larger than any node (2^29 and a little), and two of them are an int */

/* One tree in each lane; a lane's leaves stand in its heap from row 1 on. */
typedef struct {
    int size[ZIPFIT_LANES];
    int last_symbol[ZIPFIT_LANES];
    int n_symbols, limit;
} forest;

/* ---------------------------------------------------------------- the heaps */

/* How many levels there are below row `from` of a heap. */
static inline int levels_of(int size, int from) {
    int levels = 0;
    while (from << (levels + 1) <= size) levels++;
    return levels;
}

#define HEAP_NAME join_4
#define HEAP_TARGET
#define HEAP_WIDTH 4
#define HEAP_WIDE 4
#include "zipfit_heap.h"

#if CURATE_X86
#define HEAP_NAME join_8
#define HEAP_TARGET CURATE_TARGET_AVX2
#define HEAP_WIDTH 8
#define HEAP_WIDE 5
#include "zipfit_heap.h"

#define HEAP_NAME join_16
#define HEAP_TARGET CURATE_TARGET_AVX512
#define HEAP_WIDTH 16
#define HEAP_WIDE 5
#include "zipfit_heap.h"
#endif

static int largest(const int *sizes, int n) {
    int size = 2;
    for (int i = 0; i < n; i++)
        if (sizes[i] > size) size = sizes[i];
    return size;
}

/* Build the trees of all lanes, as many at a time as a vector holds; joins[lane] becomes the number of rows joined. */
static void join_lanes(zipfit_block_scratch *s, const forest *f, int n, int simd, int *joins) {
    int width = simd & SIMD_AVX512 ? 16 : simd & SIMD_AVX2 ? 8 : 4;
    for (int lane = 0; lane < n; lane += width) {
        int most = lane + width < n ? width : n - lane, size = largest(f->size + lane, most);
        for (int i = 0; i < most; i++) joins[lane + i] = size - 1;
#if CURATE_X86
        if (width == 16) join_16(s->heap, s->joined, s->cost, size, f->n_symbols);
        else if (width == 8) join_8(s->heap + lane, s->joined + lane, s->cost + lane, size, f->n_symbols);
        else
#endif
            join_4(s->heap + lane, s->joined + lane, s->cost + lane, size, f->n_symbols);
    }
}

/* ---------------------------------------------------------------- leaves and code lengths */

/* One bit for each of 16 counts that is not 0. */
static inline uint32_t used16(const uint16_t *counts) {
#if CURATE_X86
    __m128i zero = _mm_setzero_si128();
    __m128i low = _mm_cmpeq_epi16(_mm_loadu_si128((const __m128i *)counts), zero);
    __m128i high = _mm_cmpeq_epi16(_mm_loadu_si128((const __m128i *)(counts + 8)), zero);
    return 0xffff ^ (uint32_t)_mm_movemask_epi8(_mm_packs_epi16(low, high));
#else
    uint32_t bits = 0;
    for (int i = 0; i < 16; i++) bits |= (uint32_t)(counts[i] != 0) << i;
    return bits;
#endif
}

/* A tree has two leaves at least: zlib adds symbols 0 and 1 where there are fewer, which cost nothing. */
static int plant(zipfit_block_scratch *s, forest *f, int lane, const uint16_t *counts) {
    int32_t *heap = s->heap + lane, size = 0;
    int last = -1, added = 0;
    for (int symbols = 0; symbols < f->n_symbols; symbols += 16) {
        uint32_t used = used16(counts + symbols);
        if (symbols + 16 > f->n_symbols) used &= (1u << (f->n_symbols - symbols)) - 1;
        for (; used; used &= used - 1) {
            last = symbols + __builtin_ctz(used);
            heap[++size * ZIPFIT_LANES] = (int32_t)counts[last] << WEIGHT_SHIFT | last;
        }
    }
    for (; size < 2; added++) {
        int symbol = last < 2 ? ++last : 0;
        heap[++size * ZIPFIT_LANES] = 1 << WEIGHT_SHIFT | symbol;
    }
    f->size[lane] = size;
    f->last_symbol[lane] = last;
    return added;
}

/* Lengths above the limit: zlib moves leaves up one by one, and deals the lengths out anew, longest to the rarest. */
static void limit_lengths(zipfit_block_scratch *s, const forest *f, int lane, const uint16_t *counts, int joins, int from) {
    const int32_t *order = s->joined + lane;
    uint8_t *lengths = s->lengths[lane] + 1;
    int of_length[32] = {0}, overflow = 0, next = 2 * from;
    for (int i = 2 * from; i < 2 * joins; i++) {
        int node = order[i * ZIPFIT_LANES] & NODE_MASK, bits = lengths[node] < f->limit ? lengths[node] : f->limit;
        overflow += lengths[node] > f->limit;
        if (node < f->n_symbols) of_length[bits]++;
    }
    for (; overflow > 0; overflow -= 2) {
        int bits = f->limit - 1;
        while (of_length[bits] == 0) bits--;
        of_length[bits]--;
        of_length[bits + 1] += 2;
        of_length[f->limit]--;
    }
    s->cost[lane] = 0;
    for (int bits = f->limit; bits > 0; bits--) {
        for (int n = of_length[bits]; n > 0; next++) {
            int node = order[next * ZIPFIT_LANES] & NODE_MASK;
            if (node >= f->n_symbols) continue;
            lengths[node] = (uint8_t)bits;
            s->cost[lane] += (uint32_t)(bits * counts[node]);
            n--;
        }
    }
}

/* Walk the joins back from the root, which has depth 0: both nodes of a join are one deeper than their parent. */
static void measure(zipfit_block_scratch *s, const forest *f, int lane, const uint16_t *counts, int joins) {
    const int32_t *order = s->joined + lane;
    uint8_t *lengths = s->lengths[lane] + 1;
    int from = joins + 1 - f->size[lane], n = f->n_symbols;
    int height = (s->heap[ZIPFIT_LANES + lane] & ~WEIGHT_MASK) >> NODE_BITS;
    memset(lengths, 0, (size_t)n);
    lengths[n + joins - 1] = 0;
    for (int i = joins - 1; i >= from; i--) {
        uint8_t depth = (uint8_t)(lengths[n + i] + 1);
        lengths[order[2 * i * ZIPFIT_LANES] & NODE_MASK] = depth;
        lengths[order[(2 * i + 1) * ZIPFIT_LANES] & NODE_MASK] = depth;
    }
    if (height > f->limit) limit_lengths(s, f, lane, counts, joins, from);
}

/* Code lengths of one tree for each block, in scratch->lengths; their cost is added to `bits`. */
static void grow(zipfit_block_scratch *s, forest *f, const uint16_t *const *counts, int n, int simd, uint32_t *bits) {
    int added[ZIPFIT_LANES], joins[ZIPFIT_LANES];
    for (int lane = 0; lane < n; lane++) added[lane] = plant(s, f, lane, counts[lane]);
    join_lanes(s, f, n, simd, joins);
    for (int lane = 0; lane < n; lane++) {
        measure(s, f, lane, counts[lane], joins[lane]);
        bits[lane] += s->cost[lane] - (uint32_t)added[lane];
        s->heap[ZIPFIT_LANES + lane] = NOTHING; /* the root: all others have been taken out */
    }
}

/* ---------------------------------------------------------------- how code lengths are sent */

/* What a run of `run` equal lengths is sent as: the length itself so often (bits 0..7), and codes 16 (8..15), 17 (16..23)
 * and 18 (24..31). Zeros: as such (1, 2), 17 for 3 to 10, 18 for 11 to 138. Others: once as such, then 16 for 3 to 6
 * more; what is shorter as such. */
static uint32_t run_of_zeros(int run) {
    uint32_t codes = (uint32_t)(run / 138) << 24;
    run %= 138;
    if (run < 3) return codes + (uint32_t)run;
    return codes + (run <= 10 ? 1u << 16 : 1u << 24);
}

static uint32_t run_of_others(int run) {
    int piece = run < 7 ? run : 7, rest = (run - piece) % 6;
    uint32_t codes = piece < 4 ? (uint32_t)piece : 1u + (1u << 8);
    codes += (uint32_t)((run - piece) / 6) << 8;
    return codes + (rest < 3 ? (uint32_t)rest : 1u << 8);
}

void zipfit_blocks_open(zipfit_block_scratch *scratch) {
    for (int i = 0; i < HEAP_ROWS * ZIPFIT_LANES; i++) scratch->heap[i] = NOTHING;
    for (int run = 0; run < ZIPFIT_RUNS; run++) {
        scratch->runs[0][run] = run_of_zeros(run);
        scratch->runs[1][run] = run_of_others(run);
    }
}

/* One bit for each of 16 lengths that is not the one before. */
static inline uint32_t changes16(const uint8_t *lengths) {
#if CURATE_X86
    __m128i here = _mm_loadu_si128((const __m128i *)lengths);
    __m128i before = _mm_loadu_si128((const __m128i *)(lengths - 1));
    return 0xffff ^ (uint32_t)_mm_movemask_epi8(_mm_cmpeq_epi8(here, before));
#else
    uint32_t bits = 0;
    for (int i = 0; i < 16; i++) bits |= (uint32_t)(lengths[i] != lengths[i - 1]) << i;
    return bits;
#endif
}

/* Count the codes of a tree's lengths. The first length has one before it, and those behind the last are room to read. */
static void count_lengths(const zipfit_block_scratch *s, const uint8_t *lengths, int last, uint16_t *counts) {
    uint32_t codes = 0;
    int start = 0;
    for (int block = 0; start <= last; block += 16) {
        uint32_t changes = changes16(lengths + block);
        if (block == 0) changes &= ~1u;
        if (block + 16 > last) changes = (changes & ((1u << (last - block + 1)) - 1)) | 1u << (last - block + 1);
        for (; changes; changes &= changes - 1) {
            int end = block + __builtin_ctz(changes), length = lengths[start];
            uint32_t run = s->runs[length != 0][end - start];
            counts[length] += (uint16_t)(run & 0xff);
            codes += run >> 8;
            start = end;
        }
    }
    counts[16] += (uint16_t)(codes & 0xff);
    counts[17] += (uint16_t)(codes >> 8 & 0xff);
    counts[18] += (uint16_t)(codes >> 16);
}

/* ---------------------------------------------------------------- blocks */

static uint32_t extra_bits(const zipfit_counts *c) {
    uint32_t bits = 0;
    for (int code = 8; code < 28; code++) bits += (uint32_t)c->literal[257 + code] * (uint32_t)(code / 4 - 1);
    for (int code = 4; code < 30; code++) bits += (uint32_t)c->distance[code] * (uint32_t)(code / 2 - 1);
    return bits;
}

/* The fixed code: 8 bits, but 9 for bytes from 144 and 7 for codes 256 to 279; 5 for a distance. */
static uint32_t fixed_bits(const zipfit_counts *c) {
    uint32_t bits = 0;
    for (int i = 0; i < 288; i++) bits += 8u * c->literal[i];
    for (int i = 144; i < 256; i++) bits += c->literal[i];
    for (int i = 256; i < 280; i++) bits -= c->literal[i];
    for (int i = 0; i < 30; i++) bits += 5u * c->distance[i];
    return bits;
}

/* Code lengths of code lengths are sent in this order, as far as the last that is used, but four at least. */
static uint32_t header_bits(const uint16_t *counts) {
    static const uint8_t sent[LENGTH_CODES] = {16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15};
    int last = LENGTH_CODES - 1;
    while (last > 3 && !counts[sent[last]]) last--;
    return 5 + 5 + 4 + 3 * (uint32_t)(last + 1) + 2u * counts[16] + 3u * counts[17] + 7u * counts[18];
}

static void choose(zipfit_block *block, uint32_t dynamic) {
    uint32_t extra = extra_bits(&block->counts);
    uint32_t fixed = fixed_bits(&block->counts) + extra;
    dynamic += extra;
    uint32_t dynamic_bytes = (dynamic + 3 + 7) >> 3, fixed_bytes = (fixed + 3 + 7) >> 3;
    uint32_t best_bytes = fixed_bytes <= dynamic_bytes ? fixed_bytes : dynamic_bytes;
    if (block->stored >= 0 && block->stored + 4 <= (int64_t)best_bytes)
        block->bits = ((block->bits + 3 + 7) & ~UINT64_C(7)) + 32 + 8 * (uint64_t)block->stored;
    else block->bits += 3 + (fixed_bytes == best_bytes ? fixed : dynamic);
}

void zipfit_blocks(zipfit_block *const *blocks, int n, int simd, zipfit_block_scratch *s) {
    const uint16_t *counts[ZIPFIT_LANES] = {0};
    uint32_t bits[ZIPFIT_LANES] = {0};
    forest literals = {.n_symbols = ZIPFIT_LITERALS, .limit = 15}, distances = {.n_symbols = ZIPFIT_DISTANCES, .limit = 15};
    forest codes = {.n_symbols = LENGTH_CODES, .limit = 7};
    memset(s->header, 0, sizeof s->header);
    for (int i = 0; i < n; i++) counts[i] = blocks[i]->counts.literal;
    grow(s, &literals, counts, n, simd, bits);
    for (int i = 0; i < n; i++) count_lengths(s, s->lengths[i] + 1, literals.last_symbol[i], s->header[i]);
    for (int i = 0; i < n; i++) counts[i] = blocks[i]->counts.distance;
    grow(s, &distances, counts, n, simd, bits);
    for (int i = 0; i < n; i++) count_lengths(s, s->lengths[i] + 1, distances.last_symbol[i], s->header[i]);
    for (int i = 0; i < n; i++) counts[i] = s->header[i];
    grow(s, &codes, counts, n, simd, bits);
    for (int i = 0; i < n; i++) choose(blocks[i], bits[i] + header_bits(s->header[i]));
}
