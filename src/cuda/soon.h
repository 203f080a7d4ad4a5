// What a kernel asks L2 for on behalf of the next product.
//
// Between the last loads of one product and the first multiplications of the next, memory rests for several
// microseconds: sums are added, a norm is computed, x travels. What the next product reads first does not depend on any
// of it. So a launch is told where that lies, and its blocks, when they have no more loads of their own to issue, ask
// L2 for it. Not before: it would come out of their own bandwidth, and be gone again before its turn.
//
// A hint, which changes no value. This header is shared with CUDA sources: valid C and C++.
#ifndef PITH_CUDA_SOON_H
#define PITH_CUDA_SOON_H

#include <stdint.h>

#define PITH_CUDA_SOON_MOST 9u           // pieces: three matrices with three planes
#define PITH_CUDA_SOON_BYTES (16u << 20) // what fits into L2 beside what is there, and outlasts the rest in between

// `count` times `bytes` in a row, `stride` bytes from one to the next; all on 16 bytes.
typedef struct pith_cuda_piece {
    const void *at;
    uint32_t stride, bytes, count;
} pith_cuda_piece;

typedef struct pith_cuda_soon {
    pith_cuda_piece piece[PITH_CUDA_SOON_MOST];
    uint32_t n_pieces; // 0: nothing
} pith_cuda_soon;

#endif
