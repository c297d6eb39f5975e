#include "noise.h"

#include <math.h>

static inline uint64_t finalise(uint64_t z) {
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

static inline uint64_t draw(uint64_t key, uint64_t before, uint64_t after) {
    return finalise(finalise(key ^ before) + after);
}

static inline double to_open_unit(uint64_t bits) {
    return ((double)(bits >> 12) + 0.5) * 0x1p-52;
}

void noise_bits(const uint64_t *keys, int64_t n, uint64_t stream, uint64_t *out) {
    uint64_t before = finalise(stream + UINT64_C(0x9e3779b97f4a7c15));
    uint64_t after = finalise(stream + UINT64_C(0xd1b54a32d192ed03));
    for (int64_t i = 0; i < n; i++) out[i] = draw(keys[i], before, after);
}

void noise_uniform(const uint64_t *keys, int64_t n, uint64_t stream, double *out) {
    uint64_t before = finalise(stream + UINT64_C(0x9e3779b97f4a7c15));
    uint64_t after = finalise(stream + UINT64_C(0xd1b54a32d192ed03));
    for (int64_t i = 0; i < n; i++) out[i] = to_open_unit(draw(keys[i], before, after));
}

void noise_gumbel(const uint64_t *keys, int64_t n, uint64_t stream, double *out) {
    uint64_t before = finalise(stream + UINT64_C(0x9e3779b97f4a7c15));
    uint64_t after = finalise(stream + UINT64_C(0xd1b54a32d192ed03));
    for (int64_t i = 0; i < n; i++) out[i] = -log(-log(to_open_unit(draw(keys[i], before, after))));
}
