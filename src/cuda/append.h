// What a layer does between its QKV product and attention, in one launch: QK norm, RoPE, the rows of the cache, the
// query of the policy's window, the query for attention.
#ifndef PITH_CUDA_APPEND_H
#define PITH_CUDA_APPEND_H

#include "cuda/cache.h"
#include "cuda/chain.h"
#include "ops/ops.h"

#ifdef __cplusplus
extern "C" {
#endif

// Cosines and sines of a step, for all its layers: out (n, n_rot/2, 2) f32, {cos, sin} times YaRN's magnitude. Angles
// are the f32 ones of ggml's CPU backend (the base position times theta_scale, again and again); their cosines are
// taken in double and rounded once. factors: device (n_rot/2) or NULL; rope->factors is not looked at. pos: device (n).
cudaError_t pith_cuda_rope_angles(const pith_rope *rope, const float *factors, const int32_t *pos, uint32_t n,
                                  float *out, cudaStream_t stream);

// All pointers are device memory. A token i belongs to the sequence seq[i], -1: the token is padding, nothing of it is
// read or written.
typedef struct pith_cuda_append {
    const float *q; // (q_parts, n, H*d) with stride `stride` between tokens, bias added: parts are added up in order
    const float *k; // (k_parts, n, G*d), same strides
    const float *v; // (v_parts, n, G*d), same strides
    size_t stride;  // floats from a token to the next
    size_t part_stride;                 // floats from a part to the next
    uint32_t q_parts, k_parts, v_parts; // 1 to PITH_CUDA_MOST_PARTS (product.h)
    const float *q_norm;                // (d) weight of the RMS norm of each query head, or NULL
    const float *k_norm;                // (d) of each key head, or NULL
    float norm_eps;
    const float *angles; // (n, n_rot/2, 2) of pith_cuda_rope_angles
    uint32_t n_rot;      // even, at most d; 0: no rotation
    bool neox;           // pairs (i, i + n_rot/2), else (2i, 2i+1)
    const int32_t *pos;  // (n) logical positions
    const int32_t *slot; // (n) window slot, -1: not observed; NULL: none is
    const int32_t *seq;  // (n) entries of the lane tables; in a prefill only seq[0] is read
    uint16_t *q_out;     // (n, H, d) of the cache's type, rotated and not scaled
    uint32_t layer;
    uint32_t n;
} pith_cuda_append;

// Decode: each token is its lane's last row, n_rows - 1; of what is read, a chain (chain.h) may make q, k and v.
// Prefill: the n tokens are the last n rows of one sequence.
cudaError_t pith_cuda_append_decode(const pith_cuda_cache *, const pith_cuda_windows *, const pith_cuda_append *,
                                    pith_cuda_follow, cudaStream_t);
cudaError_t pith_cuda_append_prefill(const pith_cuda_cache *, const pith_cuda_windows *, const pith_cuda_append *,
                                     cudaStream_t);

#ifdef __cplusplus
}
#endif
#endif
