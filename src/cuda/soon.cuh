// The device's side of soon.h.
#ifndef PITH_CUDA_SOON_CUH
#define PITH_CUDA_SOON_CUH

#include "cuda/asm.cuh"
#include "cuda/soon.h"

namespace pith {

constexpr uint32_t SOON_AT_ONCE = 4096; // bytes of a request: all multiprocessors shall have some

// A thread's share of the pieces: of all requests, counted from the first bytes of every row of the first piece, those
// with number `share`, `share + n_shares` and so on. Also on the host, so that a test can see that shares are the
// whole.
template <typename Ask>
__host__ __device__ __forceinline__ Ask for_share(const pith_cuda_soon &soon, uint32_t share, uint32_t n_shares,
                                                  Ask ask) {
    for (uint32_t i = 0; i < soon.n_pieces; i++) {
        const pith_cuda_piece &p = soon.piece[i];
        const uint32_t n = p.count * ((p.bytes + SOON_AT_ONCE - 1) / SOON_AT_ONCE);
        for (; share < n; share += n_shares) {
            const uint32_t from = share / p.count * SOON_AT_ONCE, left = p.bytes - from;
            ask((const uint8_t *)p.at + (size_t)(share % p.count) * p.stride + from,
                left < SOON_AT_ONCE ? left : SOON_AT_ONCE);
        }
        share -= n;
    }
    return ask;
}

struct AskL2 {
    __device__ void operator()(const void *at, uint32_t bytes) const { prefetch_bytes(at, bytes); }
};

// Lanes of a warp ask one after the other, so shares of one warp should lie far apart: first a block's number, then its
// warp's, then the lane's.
__device__ __forceinline__ void ask_soon(const pith_cuda_soon &soon, uint32_t share, uint32_t n_shares) {
    for_share(soon, share, n_shares, AskL2());
}

} // namespace pith

#endif
