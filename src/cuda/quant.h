// Quantised weights on the device: GGUF's blocks, cut into aligned planes and put in the order in which a warp wants
// them.
//
// GGUF's blocks are 34, 18, 144 and 210 bytes: no 16-byte load can start at one. A packed matrix holds the same codes
// and the same scales in three planes, one after the other:
//
//     codes    one tile for 64 rows (a slab) and 32 k (a step): what one warp multiplies at a time, and nothing else
//     scales   4 bytes for a pair of rows (r, r + 8) and a step
//     supers   K types: 8 or 4 bytes for a pair of rows and 256 k
//
// Inside a tile lane `lane` of a warp owns 16 bytes of every 512: the codes of the rows and k of its part of the tensor
// core's A operand (PTX ISA, mma.m16n8k16), so that a warp's load is 512 bytes in a row and needs no exchange. With
// g = lane / 4 and t = lane % 4, a lane has rows g and g + 8 of each of the slab's four 16-row tiles, and of each row
// eight elements e: k = 8 t + e, in Q6_K (whose scales are for 16 weights) k = 4 t + e for e < 4, else 16 + 4 t + e
// - 4.
//
//     Q8_0     512 bytes per tile: words 0, 2 row g, words 1, 3 row g + 8, as an operand's registers are; the bytes of
//              a row's first word are elements 0, 2, 1, 3
//     Q4_*     512 bytes per two tiles: words row g, row g + 8 of the first, then of the second; element e is nibble
//              e/2 + 4 (e%2)
//     Q6_K     low halves like Q4_*, then 512 bytes: word `tile`, of its byte e/4 + 2 (e%2) bits 2 f and 2 f + 1, with
//              f = 2 (row >= 8) + e/2%2
//
// (A shift and a mask make four bytes at once of nibbles or high bits, of which even and odd elements lie 16 bits
// apart, so that a mask and an or make two bf16 as well.)
//
//     scales   lane 8 tile + g: Q8_0, Q4_0: d of both rows (f16); Q4_K: scale and minimum of the first row, then of the
//              second, widened from 6 to 8 bits; Q6_K: the scales of two times 16 weights, then those of the second row
//     supers   lane 8 tile + g: Q4_K: d, dmin, d, dmin; Q6_K: d, d (f16)
//
// Bytes are those of the file, but for Q4_K's widened scales (148 for 144) and rows padded to 64 with zeros.
//
// This header is shared with CUDA sources: valid C and C++.
#ifndef PITH_CUDA_QUANT_H
#define PITH_CUDA_QUANT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __CUDACC__
#define PITH_BOTH __host__ __device__
#else
#define PITH_BOTH
#endif

// How a weight matrix lies in device memory. BF16 and F16 are (M, K) as in the file; the others are packed.
typedef enum pith_cuda_type {
    PITH_CUDA_BF16,
    PITH_CUDA_F16,
    PITH_CUDA_Q8_0,
    PITH_CUDA_Q4_0,
    PITH_CUDA_Q4_K,
    PITH_CUDA_Q6_K
} pith_cuda_type;

enum {
    PITH_SLAB = 64,   // rows of a tile
    PITH_STEP = 32,   // k of a tile
    PITH_SUPER = 256, // k of a super-block
};

// Bytes of a slab and step in the first two planes, of a slab and super-block in the third, of a block in the file.
typedef struct pith_quant_layout {
    uint32_t code_bytes, scale_bytes, super_bytes;
    uint32_t block, block_bytes; // weights and bytes
} pith_quant_layout;

static PITH_BOTH inline pith_quant_layout pith_quant_layout_of(pith_cuda_type type) {
    pith_quant_layout l = {0, 0, 0, 0, 0};
    if (type == PITH_CUDA_Q8_0) l.code_bytes = 2048, l.scale_bytes = 128, l.block = 32, l.block_bytes = 34;
    if (type == PITH_CUDA_Q4_0) l.code_bytes = 1024, l.scale_bytes = 128, l.block = 32, l.block_bytes = 18;
    if (type == PITH_CUDA_Q4_K)
        l.code_bytes = 1024, l.scale_bytes = 128, l.super_bytes = 256, l.block = 256, l.block_bytes = 144;
    if (type == PITH_CUDA_Q6_K)
        l.code_bytes = 1536, l.scale_bytes = 128, l.super_bytes = 128, l.block = 256, l.block_bytes = 210;
    return l;
}
static PITH_BOTH inline uint32_t pith_quant_slabs(uint32_t m) { return m / PITH_SLAB + (m % PITH_SLAB != 0); }

// Where the planes begin, for a matrix of this many slabs; k is a multiple of the type's block.
static PITH_BOTH inline size_t pith_quant_scales_at(pith_quant_layout l, uint32_t n_slabs, uint32_t k) {
    return (size_t)n_slabs * (k / PITH_STEP) * l.code_bytes;
}
static PITH_BOTH inline size_t pith_quant_supers_at(pith_quant_layout l, uint32_t n_slabs, uint32_t k) {
    return pith_quant_scales_at(l, n_slabs, k) + (size_t)n_slabs * (k / PITH_STEP) * l.scale_bytes;
}
static PITH_BOTH inline size_t pith_quant_bytes(pith_quant_layout l, uint32_t n_slabs, uint32_t k) {
    return pith_quant_supers_at(l, n_slabs, k) + (size_t)n_slabs * (k / PITH_SUPER) * l.super_bytes;
}

// Element e of a lane's eight, as an offset inside the step.
static PITH_BOTH inline uint32_t pith_quant_k(pith_cuda_type type, uint32_t t, uint32_t e) {
    if (type != PITH_CUDA_Q6_K) return 8 * t + e;
    return (e < 4 ? 0 : 16) + 4 * t + e % 4;
}

#ifdef __cplusplus
extern "C" {
#endif

// Packs slabs [slab0, slab1) of an (m, k) matrix of file blocks into `packed`, which is the start of the whole packed
// matrix: pith_quant_bytes() bytes on 16. Slabs are independent: threads may share a matrix out. False if the type is
// not packed or k no multiple of its block.
//
// `pair`, if not NULL, is a second matrix of the same shape: slab i is then rows 32 i to 32 i + 31 of `file`, followed
// by the same rows of `pair`, and the packed matrix has ceil(m / 32) slabs. This is how gate and up are multiplied.
bool pith_quant_pack(pith_cuda_type type, const void *file, const void *pair, uint32_t m, uint32_t k, uint32_t slab0,
                     uint32_t slab1, void *packed);

#ifdef __cplusplus
}
#endif

#endif
