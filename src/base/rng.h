// Random numbers by key, without state: the same key gives the same number wherever and whenever it is asked for, which
// is what makes a sample independent of its neighbours in the batch.
#ifndef PITH_BASE_RNG_H
#define PITH_BASE_RNG_H

#include <stdint.h>

// Output function of SplitMix64 (Steele, Lea, Flood 2014): a bijection that passes BigCrush as a counter hash.
static inline uint64_t pith_mix64(uint64_t x) {
    x += 0x9e3779b97f4a7c15u;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

// Uniform in [0, 1) with 53 bits, for token `index` of stream `stream` under `seed`.
static inline double pith_uniform(uint64_t seed, uint64_t stream, uint64_t index) {
    uint64_t bits = pith_mix64(pith_mix64(pith_mix64(seed) + stream) + index);
    return (double)(bits >> 11) * 0x1p-53;
}

#endif
