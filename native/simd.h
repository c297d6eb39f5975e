/* Which instructions a kernel may use. The caller passes a set of these bits; a kernel takes the best variant it has.
 * SSE2 is part of x86-64 itself. All variants give the same bits; tests run every one of them. */
#ifndef CURATE_SIMD_H
#define CURATE_SIMD_H

#include <stdint.h>

enum { SIMD_SSE2 = 1, SIMD_AVX2 = 2, SIMD_SHA = 4, SIMD_AVX512 = 8 };

#if defined(__x86_64__) && defined(__GNUC__)
#define CURATE_X86 1
#define CURATE_TARGET_AVX2 __attribute__((target("avx2,bmi,bmi2,popcnt,lzcnt")))
#define CURATE_TARGET_AVX512 __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx2,bmi,bmi2,popcnt,lzcnt")))
#define CURATE_TARGET_SHA __attribute__((target("sha,sse4.1,ssse3")))
#else
#define CURATE_X86 0
#endif

#if defined(__GNUC__)
#define CURATE_INLINE static inline __attribute__((always_inline))
#define CURATE_LIKELY(x) __builtin_expect(!!(x), 1)
#define CURATE_UNLIKELY(x) __builtin_expect(!!(x), 0)
#else
#define CURATE_INLINE static inline
#define CURATE_LIKELY(x) (x)
#define CURATE_UNLIKELY(x) (x)
#endif

/* The set that this processor has. */
int simd_features(void);

#endif
