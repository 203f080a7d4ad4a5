// In place of the toolkit's header: f16, as bits.
#ifndef PITH_EMULATE_FP16_H
#define PITH_EMULATE_FP16_H

#include "base/half.h"

struct __half {
    uint16_t bits;
};
struct alignas(4) __half2 {
    __half x, y;
};
inline __half __float2half_rn(float x) { return {pith_f32_to_f16(x)}; }
inline float __half2float(__half x) { return pith_f16_to_f32(x.bits); }
inline uint16_t __half_as_ushort(__half x) { return x.bits; }
inline __half __ushort_as_half(uint16_t bits) { return {bits}; }
inline __half2 __floats2half2_rn(float x, float y) { return {__float2half_rn(x), __float2half_rn(y)}; }
inline float2 __half22float2(__half2 x) { return {__half2float(x.x), __half2float(x.y)}; }

#endif
