// The product of a warp.
#include <cuda_runtime.h>

#include <emulated_asm.h>

namespace pith {

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

static int byte_at(uint32_t four, int i, bool is_signed) {
    const uint8_t byte = (uint8_t)(four >> 8 * i);
    return is_signed ? (int)(int8_t)byte : (int)byte;
}

void mma_bytes_of_warp(const byte_operands *in, byte_sums *out, bool is_signed) {
    int a[16][32], b[32][8]; // (row, k), (k, column)
    for (int lane = 0; lane < 32; lane++)
        for (int i = 0; i < 4; i++) {
            const int p = lane / 4, k = lane % 4 * 4 + i;
            a[p][k] = byte_at(in[lane].a[0], i, is_signed), a[p + 8][k] = byte_at(in[lane].a[1], i, is_signed);
            a[p][k + 16] = byte_at(in[lane].a[2], i, is_signed),
                     a[p + 8][k + 16] = byte_at(in[lane].a[3], i, is_signed);
            b[k][p] = byte_at(in[lane].b[0], i, true), b[k + 16][p] = byte_at(in[lane].b[1], i, true);
        }
    for (int row = 0; row < 16; row++)
        for (int column = 0; column < 8; column++) {
            const int lane = row % 8 * 4 + column / 2, at = row / 8 * 2 + column % 2;
            int sum = 0;
            for (int k = 0; k < 32; k++) sum += a[row][k] * b[k][column];
            out[lane].d[at] = in[lane].c[at] + (uint32_t)sum;
        }
}

} // namespace pith
