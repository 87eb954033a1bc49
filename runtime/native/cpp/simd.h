// A few vector operations on LANES floats. The file that includes this sets LANES, which picks the instruction set:
// 16 AVX-512, 8 AVX2 with FMA, 4 whatever the platform always has (SSE2, NEON). Only intrinsics and compiler vectors,
// nothing of the standard library: code built for a wider instruction set must not leak into shared inline functions.
#pragma once

#include <cstdint>
#if LANES > 4
#include <immintrin.h>
#elif defined(__x86_64__)
#include <emmintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

#define QANET_INLINE static inline __attribute__((always_inline))
#define QANET_INLINE_METHOD inline __attribute__((always_inline))

namespace {

typedef float Floats __attribute__((vector_size(LANES * 4)));
typedef int32_t Ints __attribute__((vector_size(LANES * 4)));

template <typename Vector, typename Scalar>
QANET_INLINE Vector load(const Scalar* from) {
    Vector value;
    __builtin_memcpy(&value, from, sizeof value);
    return value;
}

template <typename Vector, typename Scalar>
QANET_INLINE void store(Scalar* to, Vector value) {
    __builtin_memcpy(to, &value, sizeof value);
}

QANET_INLINE Floats all(float value) { return value - Floats{}; }
QANET_INLINE Ints all(int32_t value) { return value - Ints{}; }

QANET_INLINE Ints select(Ints mask, Ints yes, Ints no) { return (mask & yes) | (~mask & no); }
QANET_INLINE Floats select(Ints mask, Floats yes, Floats no) { return (Floats)select(mask, (Ints)yes, (Ints)no); }

#if LANES == 16
QANET_INLINE Floats fma(Floats a, Floats b, Floats c) {
    return (Floats)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
}
// value > best ? value : best, which keeps `best` where either is not a number
QANET_INLINE Floats greater_of(Floats value, Floats best) { return (Floats)_mm512_max_ps((__m512)value, (__m512)best); }
QANET_INLINE Floats permute(Floats from, Ints lanes) {
    return (Floats)_mm512_permutexvar_ps((__m512i)lanes, (__m512)from);
}
// which, where value > best; else otherwise
QANET_INLINE Ints pick_greater(Floats value, Floats best, Ints which, Ints otherwise) {
    const __mmask16 greater = _mm512_cmp_ps_mask((__m512)value, (__m512)best, _CMP_GT_OQ);
    return (Ints)_mm512_mask_mov_epi32((__m512i)otherwise, greater, (__m512i)which);
}
// The low byte of each lane, LANES bytes.
QANET_INLINE void store_bytes(uint8_t* to, Ints value) { store(to, _mm512_cvtepi32_epi8((__m512i)value)); }
QANET_INLINE bool all_equal(Ints value) {
    const __m512i first = _mm512_broadcastd_epi32(_mm512_castsi512_si128((__m512i)value));
    return _mm512_cmpneq_epi32_mask((__m512i)value, first) == 0;
}
// Of lanes in 0 .. 2^25
QANET_INLINE uint32_t sum_of(Ints value) { return uint32_t(_mm512_reduce_add_epi32((__m512i)value)); }
#else
#if LANES == 8
QANET_INLINE Floats fma(Floats a, Floats b, Floats c) {
    return (Floats)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
}
QANET_INLINE Floats greater_of(Floats value, Floats best) { return (Floats)_mm256_max_ps((__m256)value, (__m256)best); }
QANET_INLINE Floats permute(Floats from, Ints lanes) {
    return (Floats)_mm256_permutevar8x32_ps((__m256)from, (__m256i)lanes);
}
QANET_INLINE void store_bytes(uint8_t* to, Ints value) {
    const __m128i low = _mm256_castsi256_si128((__m256i)value), high = _mm256_extracti128_si256((__m256i)value, 1);
    const __m128i pairs = _mm_packs_epi32(low, high);
    _mm_storel_epi64((__m128i*)to, _mm_packus_epi16(pairs, pairs));
}
QANET_INLINE bool all_equal(Ints value) {
    const __m256i first = _mm256_broadcastd_epi32(_mm256_castsi256_si128((__m256i)value));
    return _mm256_movemask_epi8(_mm256_cmpeq_epi32((__m256i)value, first)) == -1;
}
#elif defined(__aarch64__)
QANET_INLINE Floats fma(Floats a, Floats b, Floats c) {
    return (Floats)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b);
}
QANET_INLINE Floats greater_of(Floats value, Floats best) {
    return (Floats)vmaxnmq_f32((float32x4_t)value, (float32x4_t)best);
}
QANET_INLINE Floats permute(Floats from, Ints lanes) {  // a table look-up of bytes
    const Ints bytes = (lanes & all(3)) * all(0x04040404) + all(0x03020100);
    return (Floats)vqtbl1q_u8((uint8x16_t)from, (uint8x16_t)bytes);
}
QANET_INLINE void store_bytes(uint8_t* to, Ints value) {
    const uint8x16_t bytes = vqtbl1q_u8((uint8x16_t)value, (uint8x16_t)Ints{0x0c080400, -1, -1, -1});
    vst1q_lane_u32(reinterpret_cast<uint32_t*>(to), vreinterpretq_u32_u8(bytes), 0);
}
QANET_INLINE bool all_equal(Ints value) { return vmaxvq_s32((int32x4_t)value) == vminvq_s32((int32x4_t)value); }
#else
QANET_INLINE Floats fma(Floats a, Floats b, Floats c) { return a * b + c; }
QANET_INLINE Floats greater_of(Floats value, Floats best) { return select((Ints)(value > best), value, best); }
QANET_INLINE Floats permute(Floats from, Ints lanes) {
    return Floats{from[lanes[0] & 3], from[lanes[1] & 3], from[lanes[2] & 3], from[lanes[3] & 3]};
}
QANET_INLINE void store_bytes(uint8_t* to, Ints value) {
    int32_t lanes[LANES];
    store(lanes, value);
    __asm__ volatile("" ::: "memory");  // scalar loads are cheaper than taking the vector apart
    for (int i = 0; i < LANES; ++i) to[i] = uint8_t(lanes[i]);
}
QANET_INLINE bool all_equal(Ints value) {
    int32_t different = 0;
    const Ints unequal = value != all(value[0]);
    for (int i = 0; i < LANES; ++i) different |= unequal[i];
    return different == 0;
}
#endif
QANET_INLINE Ints pick_greater(Floats value, Floats best, Ints which, Ints otherwise) {
    return select((Ints)(value > best), which, otherwise);
}
QANET_INLINE uint32_t sum_of(Ints value) {
    uint32_t sum = 0;
    for (int i = 0; i < LANES; ++i) sum += uint32_t(value[i]);
    return sum;
}
#endif

#if LANES == 16
QANET_INLINE Floats lesser_of(Floats value, Floats best) { return (Floats)_mm512_min_ps((__m512)value, (__m512)best); }
#elif LANES == 8
QANET_INLINE Floats lesser_of(Floats value, Floats best) { return (Floats)_mm256_min_ps((__m256)value, (__m256)best); }
#elif defined(__aarch64__)
QANET_INLINE Floats lesser_of(Floats value, Floats best) {
    return (Floats)vminnmq_f32((float32x4_t)value, (float32x4_t)best);
}
#else
QANET_INLINE Floats lesser_of(Floats value, Floats best) { return select((Ints)(value < best), value, best); }
#endif
// LANES bytes as floats.
QANET_INLINE Floats floats_of_bytes(const uint8_t* from) {
#if LANES == 16
    return (Floats)_mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(load<__m128i>(from)));
#elif LANES == 8
    return (Floats)_mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i*)from)));
#elif defined(__aarch64__)
    const uint8x8_t bytes = vreinterpret_u8_u32(vdup_n_u32(load<uint32_t>(from)));
    return (Floats)vcvtq_f32_u32(vmovl_u16(vget_low_u16(vmovl_u8(bytes))));
#elif defined(__x86_64__)
    const __m128i zero = _mm_setzero_si128(), bytes = _mm_cvtsi32_si128(load<int32_t>(from));
    return (Floats)_mm_cvtepi32_ps(_mm_unpacklo_epi16(_mm_unpacklo_epi8(bytes, zero), zero));
#else
    return Floats{float(from[0]), float(from[1]), float(from[2]), float(from[3])};
#endif
}
// The greater of |value| and of `best`, which is not negative.
QANET_INLINE Floats greater_magnitude(Floats value, Floats best) {
#if LANES == 16
    return (Floats)_mm512_range_ps((__m512)value, (__m512)best, 0x0b);  // the greater magnitude, its sign cleared
#else
    return greater_of((Floats)((Ints)value & all(0x7fffffff)), best);
#endif
}
// Some lanes of a vector.
#if LANES == 16
typedef __mmask16 Where;
QANET_INLINE Where where_at_least(Floats value, Floats least) {
    return _mm512_cmp_ps_mask((__m512)value, (__m512)least, _CMP_GE_OQ);
}
QANET_INLINE Where where_equal(Where where, Ints a, Ints b) {
    return _mm512_mask_cmpeq_epi32_mask(where, (__m512i)a, (__m512i)b);
}
QANET_INLINE Ints add_where(Where where, Ints sum, Ints value) {
    return (Ints)_mm512_mask_add_epi32((__m512i)sum, where, (__m512i)sum, (__m512i)value);
}
QANET_INLINE Floats only(Where where, Floats value) { return (Floats)_mm512_maskz_mov_ps(where, (__m512)value); }
QANET_INLINE Ints only(Where where, Ints value) { return (Ints)_mm512_maskz_mov_epi32(where, (__m512i)value); }
QANET_INLINE Ints select(Where where, Ints yes, Ints no) {
    return (Ints)_mm512_mask_mov_epi32((__m512i)no, where, (__m512i)yes);
}
#else
typedef Ints Where;
QANET_INLINE Where where_at_least(Floats value, Floats least) { return (Ints)(value >= least); }
QANET_INLINE Where where_equal(Where where, Ints a, Ints b) { return (a == b) & where; }
QANET_INLINE Ints add_where(Where where, Ints sum, Ints value) { return sum + (value & where); }
QANET_INLINE Floats only(Where where, Floats value) { return (Floats)((Ints)value & where); }
QANET_INLINE Ints only(Where where, Ints value) { return value & where; }
#endif
// 1 / x of positive normal numbers, to a rounding or two.
QANET_INLINE Floats reciprocal(Floats x) {
#if LANES == 16
    const Floats near = (Floats)_mm512_rcp14_ps((__m512)x);
    return near * fma(-near, x, all(2.0f));
#else
    return all(1.0f) / x;
#endif
}
// Bit i of the result: whether lane i of value >= least.
QANET_INLINE uint32_t at_least(Floats value, Floats least) {
#if LANES == 16
    return _mm512_cmp_ps_mask((__m512)value, (__m512)least, _CMP_GE_OQ);
#elif LANES == 8
    return uint32_t(_mm256_movemask_ps(_mm256_cmp_ps((__m256)value, (__m256)least, _CMP_GE_OQ)));
#elif defined(__aarch64__)
    return uint32_t(vaddvq_s32((int32x4_t)((Ints)(value >= least) & Ints{1, 2, 4, 8})));
#else
    const Ints mask = (Ints)(value >= least);
    return uint32_t((mask[0] & 1) | (mask[1] & 2) | (mask[2] & 4) | (mask[3] & 8));
#endif
}

// 2^r for |r| <= 1/2 by a polynomial of least relative error (2e-9), 2^n put into the exponent; n is in the low bits of
// `shifted`, n + 1.5 * 2^23.
QANET_INLINE Floats exp2_of_parts(Floats r, Floats shifted) {
    Floats p = fma(all(1.535336196e-4f), r, all(1.339887502e-3f));
    p = fma(p, r, all(9.618436918e-3f));
    p = fma(p, r, all(5.550332367e-2f));
    p = fma(p, r, all(2.402264774e-1f));
    p = fma(p, r, all(6.931471825e-1f));
    p = fma(p, r, all(1.0f));
    typedef uint32_t Unsigned __attribute__((vector_size(LANES * 4)));
    return (Floats)((Unsigned)p + ((Unsigned)shifted << 23));
}

// 2^x for |x| < 126: x = n + r with |r| <= 1/2.
QANET_INLINE Floats exp2_of(Floats x) {
    const Floats shifted = x + all(12582912.0f);
    return exp2_of_parts(x - (shifted - all(12582912.0f)), shifted);
}

// 2^(x / 4) for |x| < 504.
QANET_INLINE Floats exp2_of_quarter(Floats x) {
    const Floats shifted = fma(x, all(0.25f), all(12582912.0f));
    return exp2_of_parts(fma(x, all(0.25f), all(12582912.0f) - shifted), shifted);
}

// e^x for x <= 0, relative error below 1.5e-7 down to -80; e^-80 = 1.8e-35 below that, which is lost beside the
// greatest's 1. x = n ln 2 + r with |r| <= ln 2 / 2 (ln 2 in two parts, so that r keeps all its bits), a polynomial of
// least relative error (3e-9) for e^r, n put into the exponent. The rounding to n is by adding 1.5 * 2^23.
QANET_INLINE Floats exp_of_negative(Floats x) {
    const Floats clamped = greater_of(x, all(-80.0f));
    const Floats shifted = fma(clamped, all(1.44269504088896341f), all(12582912.0f));
    const Floats n = shifted - all(12582912.0f);
    Floats r = fma(n, all(-0.693359375f), clamped);
    r = fma(n, all(2.12194440e-4f), r);
    Floats p = fma(all(1.381459879e-3f), r, all(8.368716575e-3f));
    p = fma(p, r, all(4.166838899e-2f));
    p = fma(p, r, all(1.666652113e-1f));
    p = fma(p, r, all(4.999999404e-1f));
    p = fma(p, r, all(1.0f));
    p = fma(p, r, all(1.0f));
    typedef uint32_t Unsigned __attribute__((vector_size(LANES * 4)));
    return (Floats)((Unsigned)p + ((Unsigned)shifted << 23));  // p lies in [0.7, 1.5]: its exponent has room
}

}  // namespace
