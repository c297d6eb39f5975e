/* Processor features, asked of the processor once per call (a caller keeps the answer). */
#include "simd.h"

#if CURATE_X86
#include <cpuid.h>

int simd_features(void) {
    int features = SIMD_SSE2;
    unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
    __builtin_cpu_init();
    /* The builtin also asks whether the system saves the wide registers. */
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2") &&
        __builtin_cpu_supports("popcnt"))
        features |= SIMD_AVX2;
    if (features & SIMD_AVX2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl"))
        features |= SIMD_AVX512;
    /* SHA is bit 29 of EBX in leaf 7; older compilers' builtin does not know its name. */
    if (__builtin_cpu_supports("sse4.1") && __get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) && ((ebx >> 29) & 1))
        features |= SIMD_SHA;
    return features;
}
#else
int simd_features(void) { return 0; }
#endif
