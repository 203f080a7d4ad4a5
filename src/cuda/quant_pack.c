#include "cuda/quant.h"

#include <string.h>

// One 32-weight step of one row, out of its block in the file.
typedef struct row_step {
    uint8_t code[PITH_STEP]; // as stored: Q8_0 the signed byte, Q4_* 0..15, Q6_K 0..63
    uint8_t scale[2];        // Q8_0, Q4_0: d (f16); Q4_K: scale, minimum; Q6_K: two scales
    uint8_t super[4];        // Q4_K: d, dmin; Q6_K: d (2 bytes)
} row_step;

// Q4_K keeps eight 6-bit scales and eight minima in 12 bytes: the first four of each whole in the low bits of bytes 0-3
// and 4-7; of the others the low four bits share bytes 8-11 and the high two are on top of bytes 0-7.
static void q4_k_scale(const uint8_t *s, uint32_t j, uint8_t out[2]) {
    if (j < 4) {
        out[0] = s[j] & 63;
        out[1] = s[j + 4] & 63;
    } else {
        out[0] = (uint8_t)((s[j + 4] & 15) | (s[j - 4] >> 6) << 4);
        out[1] = (uint8_t)(s[j + 4] >> 4 | (s[j] >> 6) << 4);
    }
}

static void read_step(pith_cuda_type type, const uint8_t *row, uint32_t step, row_step *out) {
    const pith_quant_layout l = pith_quant_layout_of(type);
    const uint8_t *b = row + (size_t)(step * PITH_STEP / l.block) * l.block_bytes;
    const uint32_t j = step % 8; // of a super-block's steps
    switch (type) {
    case PITH_CUDA_Q8_0:
        memcpy(out->scale, b, 2);
        memcpy(out->code, b + 2, 32);
        break;
    case PITH_CUDA_Q4_0:
        memcpy(out->scale, b, 2);
        for (uint32_t i = 0; i < 16; i++) out->code[i] = b[2 + i] & 15, out->code[i + 16] = b[2 + i] >> 4;
        break;
    case PITH_CUDA_Q4_K: // 16 bytes of scales, then 4 times 32 bytes: an even step in the low halves, the next above
        memcpy(out->super, b, 4);
        q4_k_scale(b + 4, j, out->scale);
        for (uint32_t i = 0; i < 32; i++) out->code[i] = b[16 + j / 2 * 32 + i] >> (j % 2 * 4) & 15;
        break;
    case PITH_CUDA_Q6_K: { // per 128 weights 64 bytes of low halves and 32 of high bits; then 16 scales; then d
        const uint8_t *low = b + j / 4 * 64 + j % 2 * 32, *high = b + 128 + j / 4 * 32;
        const uint32_t q = j % 4;
        for (uint32_t i = 0; i < 32; i++)
            out->code[i] = (uint8_t)((low[i] >> (q / 2 * 4) & 15) | (high[i] >> (2 * q) & 3) << 4);
        memcpy(out->scale, b + 192 + 2 * j, 2);
        memcpy(out->super, b + 208, 2);
        break;
    }
    default: break;
    }
}

// A lane's eight codes of one row into its place in the tile, which is zero so far.
static void write_codes(pith_cuda_type type, uint8_t *tile, uint32_t row, uint32_t t, const row_step *s) {
    const uint32_t mt = row / 16, g = row % 8, upper = row % 16 / 8, lane = 4 * g + t;
    for (uint32_t e = 0; e < 8; e++) {
        const uint8_t c = s->code[pith_quant_k(type, t, e)];
        if (type == PITH_CUDA_Q8_0) {
            static const uint8_t place[4] = {0, 2, 1, 3};
            tile[mt * 512 + lane * 16 + e / 4 * 8 + upper * 4 + place[e % 4]] = c;
            continue;
        }
        const uint32_t nibble = e / 2 + 4 * (e % 2);
        uint8_t *word = tile + mt / 2 * 512 + lane * 16 + mt % 2 * 8 + upper * 4;
        word[nibble / 2] |= (uint8_t)((c & 15) << (nibble % 2 * 4));
        if (type == PITH_CUDA_Q6_K) {
            const uint32_t bit = 8 * (e / 4 + 2 * (e % 2)) + 2 * (2 * upper + e / 2 % 2);
            tile[1024 + lane * 16 + mt * 4 + bit / 8] |= (uint8_t)((c >> 4) << (bit % 8));
        }
    }
}

bool pith_quant_pack(pith_cuda_type type, const void *file, const void *pair, uint32_t m, uint32_t k, uint32_t slab0,
                     uint32_t slab1, void *packed) {
    const pith_quant_layout l = pith_quant_layout_of(type);
    if (!l.block || k % l.block) return false;
    const uint32_t own = pair ? PITH_SLAB / 2 : PITH_SLAB; // rows of one matrix in a slab
    const uint32_t n_slabs = m / own + (m % own != 0), n_steps = k / PITH_STEP;
    const size_t row_bytes = (size_t)(k / l.block) * l.block_bytes;
    uint8_t *codes = packed, *scales = codes + pith_quant_scales_at(l, n_slabs, k);
    uint8_t *supers = codes + pith_quant_supers_at(l, n_slabs, k);

    for (uint32_t slab = slab0; slab < slab1; slab++)
        for (uint32_t step = 0; step < n_steps; step++) {
            const size_t at = (size_t)slab * n_steps + step;
            uint8_t *tile = codes + at * l.code_bytes;
            memset(tile, 0, l.code_bytes);
            for (uint32_t row = 0; row < PITH_SLAB; row++) {
                const uint32_t in_matrix = slab * own + row % own;
                row_step s;
                memset(&s, 0, sizeof s);
                if (in_matrix < m)
                    read_step(type, (const uint8_t *)(row < own ? file : pair) + in_matrix * row_bytes, step, &s);
                for (uint32_t t = 0; t < 4; t++) write_codes(type, tile, row, t, &s);
                const uint32_t lane = row / 16 * 8 + row % 8, upper = row % 16 / 8;
                memcpy(scales + at * l.scale_bytes + lane * 4 + upper * 2, s.scale, 2);
                if (l.super_bytes && step % 8 == 0) {
                    const size_t bytes = l.super_bytes / 64; // of one row
                    memcpy(supers + ((size_t)slab * (k / PITH_SUPER) + step / 8) * l.super_bytes + lane * bytes * 2 +
                               upper * bytes,
                           s.super, bytes);
                }
            }
        }
    return true;
}
