#include "ops/random.h"

#include <string.h>

#include "base/half.h"
#include "base/rng.h"
#include "ggml.h"

// Values come from 16 random bits each, codes of a block from whole words: word i of a tensor is a function of its seed
// and i alone.
static uint64_t word(const pith_weight *w, uint64_t i) { return pith_mix64(w->seed + i * 0xd1342543de82ef95u); }

enum { PIECE = 64 }; // words that are made at a time

// ---------------------------------------------------------------------------------------------- floating point

// Element i of four in a word: (-scale, scale), symmetric.
static float value(uint64_t bits, int i, float scale) {
    return ((float)(bits >> 16 * i & 0xffff) - 32767.5f) * (scale / 32768.0f);
}

static void fill_f32(const pith_weight *w, uint64_t first, size_t n_words, void *out) {
    float *to = out;
    for (size_t j = 0; j < n_words; j++) {
        const uint64_t bits = word(w, first + j);
        for (int i = 0; i < 4; i++) to[4 * j + (size_t)i] = value(bits, i, w->scale);
    }
}

static void fill_f16(const pith_weight *w, uint64_t first, size_t n_words, void *out) {
    uint16_t *to = out;
    for (size_t j = 0; j < n_words; j++) {
        const uint64_t bits = word(w, first + j);
        for (int i = 0; i < 4; i++) to[4 * j + (size_t)i] = pith_f32_to_f16(value(bits, i, w->scale));
    }
}

// The one that is made row by row in every step, where embeddings have no table: in loops that become vectors.
static void fill_bf16(const pith_weight *w, uint64_t first, size_t n_words, void *out) {
    uint16_t *to = out;
    for (size_t j = 0; j < n_words; j += PIECE, to += 4 * PIECE) {
        const size_t n = n_words - j < PIECE ? n_words - j : PIECE;
        uint64_t bits[PIECE];
        int32_t sixteen[4 * PIECE];
        for (size_t k = 0; k < n; k++) bits[k] = word(w, first + j + k);
        for (size_t k = 0; k < 4 * n; k++) sixteen[k] = (int32_t)(bits[k / 4] >> 16 * (k % 4) & 0xffff);
        for (size_t k = 0; k < 4 * n; k++)
            to[k] = pith_f32_to_bf16(((float)sixteen[k] - 32767.5f) * (w->scale / 32768.0f));
    }
}

// ------------------------------------------------------------------------------------------------- quantised

// How a block of ggml's lies in memory: codes, and around them what is the same in every block.
typedef struct layout {
    int type;
    uint16_t codes_at, codes_bytes; // where its codes are
    uint16_t levels;                // of a code: step = 2 scale / levels
    void (*frame)(uint8_t *block, float step);
} layout;

static void put_f16(uint8_t *at, float x) {
    const uint16_t h = pith_f32_to_f16(x);
    memcpy(at, &h, sizeof h);
}

static void frame_d(uint8_t *block, float step) { put_f16(block, step); } // q8_0, q5_0, q4_0: d, then codes

// d and dmin, then 6-bit scales and minimums of eight sub-blocks, all 1: d code - dmin, about 0 when dmin is 7.5 d.
static void frame_q4_k(uint8_t *block, float step) {
    put_f16(block, step);
    put_f16(block + 2, 7.5f * step);
    memset(block + 4, 1, 8);
    memset(block + 12, 0x11, 4);
}

static void frame_q6_k(uint8_t *block, float step) { // codes, then 16 scales of 8 bits, then d
    memset(block + 192, 1, 16);
    put_f16(block + 208, step);
}

static const layout layouts[] = {
    {GGML_TYPE_Q8_0, 2, 32, 255, frame_d},      {GGML_TYPE_Q4_0, 2, 16, 16, frame_d},
    {GGML_TYPE_Q5_0, 2, 20, 32, frame_d},       {GGML_TYPE_Q4_K, 16, 128, 16, frame_q4_k},
    {GGML_TYPE_Q6_K, 0, 192, 64, frame_q6_k},
};
enum { N_LAYOUTS = sizeof layouts / sizeof *layouts, MOST_BLOCK = 256 };

static const layout *layout_of(int type) {
    for (size_t i = 0; i < N_LAYOUTS; i++)
        if (layouts[i].type == type) return &layouts[i];
    return NULL;
}

static void fill_blocks(const pith_weight *w, const layout *l, uint64_t first, size_t n_blocks, void *out) {
    const size_t block_bytes = ggml_type_size((enum ggml_type)w->type), n_words = (l->codes_bytes + 7u) / 8u;
    uint8_t frame[MOST_BLOCK] = {0};
    l->frame(frame, 2 * w->scale / (float)l->levels);
    uint8_t *block = out;
    for (size_t b = 0; b < n_blocks; b++, block += block_bytes) {
        uint64_t codes[MOST_BLOCK / 8];
        for (size_t j = 0; j < n_words; j++) codes[j] = word(w, (first + b) * n_words + j);
        memcpy(block, frame, block_bytes);
        memcpy(block + l->codes_at, codes, l->codes_bytes);
        // Q8_0 has no code -128: kernels may negate.
        for (size_t i = 0; w->type == GGML_TYPE_Q8_0 && i < 32; i++)
            block[2 + i] = (uint8_t)(block[2 + i] + (block[2 + i] == 0x80));
    }
}

// ---------------------------------------------------------------------------------------------------- rows

bool pith_random_has(int type) {
    return type == GGML_TYPE_F32 || type == GGML_TYPE_F16 || type == GGML_TYPE_BF16 || layout_of(type);
}

void pith_random_rows(const pith_weight *w, int64_t first, int64_t n, void *out) {
    const uint64_t block = (uint64_t)ggml_blck_size((enum ggml_type)w->type);
    const layout *l = layout_of(w->type);
    if (l) {
        const uint64_t row_blocks = (uint64_t)w->ne[0] / block;
        fill_blocks(w, l, (uint64_t)first * row_blocks, (uint64_t)n * row_blocks, out);
        return;
    }
    const uint64_t row_words = (uint64_t)w->ne[0] / 4; // rows of weights are multiples of 4
    const uint64_t from = (uint64_t)first * row_words, n_words = (uint64_t)n * row_words;
    if (w->type == GGML_TYPE_F32) fill_f32(w, from, n_words, out);
    if (w->type == GGML_TYPE_F16) fill_f16(w, from, n_words, out);
    if (w->type == GGML_TYPE_BF16) fill_bf16(w, from, n_words, out);
}
