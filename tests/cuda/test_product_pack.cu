// Packed weights, on the host alone: every weight of a packed matrix, as the kernels' own decoding sees it from the
// place where a lane looks for it, as bf16 and as a byte, is exactly the weight of the file. Needs nvcc, no device.
#include "cuda/quant.cuh"
#include "product_ref.h"

#include <cstdio>

// A weight and its place in the slab, from a lane's registers: the roles of asm.cuh's mma.
template <pith_cuda_type TYPE>
static uint64_t check(uint32_t m, uint32_t k, bool paired, Random &r, uint64_t *n_checked) {
    const auto file = random_weights(TYPE, m, k, false, r), other = random_weights(TYPE, m, k, false, r);
    const pith_quant_layout l = pith_quant_layout_of(TYPE);
    const uint32_t own = paired ? 32 : 64, n_slabs = (m + own - 1) / own;
    std::vector<uint8_t> packed(pith_quant_bytes(l, n_slabs, k) + 64, 0xa5);
    uint64_t wrong = 0;
    const void *pair = paired ? other.data() : nullptr;
    for (uint32_t s = n_slabs; s-- > 0;) // slabs in any order
        wrong += !pith_quant_pack(TYPE, file.data(), pair, m, k, s, s + 1, packed.data());
    for (size_t i = packed.size() - 64; i < packed.size(); i++) wrong += packed[i] != 0xa5;

    for (uint32_t slab = 0; slab < n_slabs; slab++)
        for (uint32_t step = 0; step < k / 32; step++) {
            pith::Tile<TYPE> tile[32] = {};
            float4 scale[32];
            for (uint32_t lane = 0; lane < 32; lane++) {
                const pith::TileAt at = pith::tile_at<TYPE>(n_slabs, k, slab, step, lane);
                for (int i = 0; i < pith::Tile<TYPE>::CODE_LOADS; i++)
                    memcpy(&tile[lane].code[i], &packed[at.code + i * 512], 16);
                memcpy(&tile[lane].scale, &packed[at.scale], 4);
                if (l.super_bytes) memcpy(&tile[lane].super, &packed[at.super], l.super_bytes / 32);
                scale[lane] = tile[lane].scales();
            }
            for (uint32_t lane = 0; lane < 32; lane++)
                for (int mt = 0; mt < 4; mt++)
                    for (int upper = 0; upper < 2; upper++)
                        for (int e = 0; e < 8; e++) {
                            const uint32_t two = tile[lane].pair(mt, upper, e / 2);
                            const double c = pith_bf16_to_f32((uint16_t)(e % 2 ? two >> 16 : two));
                            const uint32_t at = pith::byte_of<TYPE>(e);
                            const uint8_t byte = (uint8_t)(tile[lane].bytes(mt, upper, at / 4) >> at % 4 * 8);
                            wrong += c + pith::Tile<TYPE>::ZERO != (TYPE == PITH_CUDA_Q8_0 ? (int8_t)byte : byte);
                            const float4 q = scale[mt * 8 + lane / 4];
                            const double s = upper ? q.z : q.x, o = upper ? q.w : q.y;
                            const double got = TYPE == PITH_CUDA_Q4_K            ? s * c - o
                                               : TYPE == PITH_CUDA_Q6_K && e > 3 ? o * c
                                                                                 : s * c;
                            const uint32_t row = mt * 16 + upper * 8 + lane / 4, in_matrix = slab * own + row % own;
                            const auto &from = row < own ? file : other;
                            const double want = in_matrix < m ? weight_at(TYPE, &from[in_matrix * row_bytes(TYPE, k)],
                                                                          step * 32 + pith_quant_k(TYPE, lane % 4, e))
                                                              : 0;
                            wrong += got != want;
                            ++*n_checked;
                        }
        }
    return wrong;
}

template <pith_cuda_type TYPE> static int run() {
    Random r = {88172645463325252ull + TYPE};
    int failed = 0;
    const uint32_t shape[][2] = {{64, 256}, {128, 768}, {5, 256}, {100, 512}, {33, 1024}};
    for (auto &s : shape)
        for (bool paired : {false, true}) {
            uint64_t n = 0;
            const uint64_t wrong = check<TYPE>(s[0], s[1], paired, r, &n);
            printf("pack %s (%u, %u)%s: %llu wrong of %llu\n", TYPE_NAME[TYPE], s[0], s[1], paired ? " paired" : "",
                   (unsigned long long)wrong, (unsigned long long)n);
            failed += wrong != 0;
        }
    return failed;
}

int main() {
    const int failed = run<PITH_CUDA_Q8_0>() + run<PITH_CUDA_Q4_0>() + run<PITH_CUDA_Q4_K>() + run<PITH_CUDA_Q6_K>();
    return failed != 0;
}
