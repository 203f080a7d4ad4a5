// The product of a warp, and copies that are under way.
#include <cuda_runtime.h>

#include <emulated_asm.h>

#include <deque>
#include <vector>

namespace pith {

struct copy {
    void *to;
    const void *from; // NULL: zeros
};
// Of each thread of the block that runs: groups, the last of which is still open.
static std::deque<std::vector<copy>> &copies_of_thread() {
    static std::deque<std::vector<copy>> of_thread[1024];
    auto &groups = of_thread[threadIdx.x];
    if (groups.empty()) groups.emplace_back();
    return groups;
}

void copy16_async(void *shared, const void *global, bool valid) {
    if ((reinterpret_cast<uintptr_t>(shared) | reinterpret_cast<uintptr_t>(global)) % 16)
        emulate::fault("a copy off 16 bytes");
    std::memset(shared, 0xff, 16);
    copies_of_thread().back().push_back({shared, valid ? global : nullptr});
}
void copies_commit() { copies_of_thread().emplace_back(); }
void copies_wait_for_all_but(unsigned n_groups) {
    auto &groups = copies_of_thread();
    while (groups.size() > n_groups + 1) {
        for (const copy &c : groups.front()) {
            if (c.from) std::memcpy(c.to, c.from, 16);
            else std::memset(c.to, 0, 16);
        }
        groups.pop_front();
    }
}

static float half_of(uint32_t two, int i, bool bf16) {
    const uint16_t bits = (uint16_t)(two >> 16 * i);
    return bf16 ? pith_bf16_to_f32(bits) : pith_f16_to_f32(bits);
}

void mma_of_warp(const mma_operands *in, mma_sums *out, bool bf16) {
    double a[16][16], b[16][8]; // (row, k), (k, column)
    for (int lane = 0; lane < 32; lane++)
        for (int i = 0; i < 2; i++) {
            const int p = lane / 4, k = lane % 4 * 2 + i;
            a[p][k] = half_of(in[lane].a[0], i, bf16), a[p + 8][k] = half_of(in[lane].a[1], i, bf16);
            a[p][k + 8] = half_of(in[lane].a[2], i, bf16), a[p + 8][k + 8] = half_of(in[lane].a[3], i, bf16);
            b[k][p] = half_of(in[lane].b[0], i, bf16), b[k + 8][p] = half_of(in[lane].b[1], i, bf16);
        }
    for (int row = 0; row < 16; row++) {
        double sum[8];
        for (int column = 0; column < 8; column++)
            sum[column] = (double)in[row % 8 * 4 + column / 2].c[row / 8 * 2 + column % 2];
        for (int k = 0; k < 16; k++)
            for (int column = 0; column < 8; column++) sum[column] += a[row][k] * b[k][column];
        for (int column = 0; column < 8; column++)
            out[row % 8 * 4 + column / 2].c[row / 8 * 2 + column % 2] = (float)sum[column];
    }
}

} // namespace pith
