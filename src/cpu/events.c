// The work around a compression. All sums run in a fixed ascending order, whatever the level of the kernels and the
// number of threads, so that the same rows are selected everywhere.
#include "cpu/events.h"

#include <math.h>
#include <string.h>

#include "cpu/kernels_isa.h"

// ------------------------------------------------------------------------------------------------ candidates

// Walks rows and spans side by side: both ascend by position. Writes up to `capacity` rows, returns the number of all.
static uint32_t unprotected(const pith_pages *pages, const pith_lane *lane, const pith_span *protect,
                            uint32_t n_protect, uint32_t capacity, uint32_t *rows) {
    uint32_t n = 0, span = 0;
    for (uint32_t row = 0; row < lane->n_rows; row++) {
        const int32_t pos = *pith_lane_pos(pages, lane, row);
        while (span < n_protect && protect[span].end <= pos) span++;
        if (span < n_protect && protect[span].begin <= pos) continue;
        if (n < capacity) rows[n] = row;
        n++;
    }
    return n;
}

uint32_t pith_candidates_lane(const pith_pages *pages, const pith_lane *lane, const pith_span *protect,
                              uint32_t n_protect, uint32_t n_tail, uint32_t *rows) {
    // Counted first: the caller has room for the candidates, not for the tail.
    const uint32_t all = unprotected(pages, lane, protect, n_protect, 0, rows), n = all > n_tail ? all - n_tail : 0;
    unprotected(pages, lane, protect, n_protect, n, rows);
    return n;
}

// ------------------------------------------------------------------------------------------------------ mass

enum { QUERY_BLOCK = 16 }; // queries that share one pass over the keys; bounds the scratch

// The parts of the scratch.
typedef struct mass_scratch {
    float *q;      // (QUERY_BLOCK, d)
    float *s;      // (QUERY_BLOCK, 64) scores of a page
    float *key;    // (d, 64) a page's keys rounded to bf16; BF16 only
    float *logits; // (QUERY_BLOCK, n)
} mass_scratch;

size_t pith_mass_scratch(const pith_geometry *geo, uint32_t n, uint32_t n_slots) {
    const size_t block = n_slots < QUERY_BLOCK ? n_slots : QUERY_BLOCK;
    return block * (geo->head_dim + PITH_PAGE_ROWS + n) + (size_t)PITH_PAGE_ROWS * geo->head_dim;
}

static mass_scratch mass_scratch_at(float *at, const pith_geometry *geo, uint32_t n_slots) {
    const size_t block = n_slots < QUERY_BLOCK ? n_slots : QUERY_BLOCK, d = geo->head_dim;
    mass_scratch p = {.q = at};
    p.s = p.q + block * d;
    p.key = p.s + block * PITH_PAGE_ROWS;
    p.logits = p.key + PITH_PAGE_ROWS * d;
    return p;
}

// A page's keys rounded to bf16, as f32.
static void round_keys(const pith_geometry *geo, const void *k, float *out) {
    const size_t count = (size_t)PITH_PAGE_ROWS * geo->head_dim;
    for (size_t i = 0; i < count; i++)
        out[i] =
            pith_bf16_round(geo->elt_bytes == 2 ? pith_f16_to_f32(((const uint16_t *)k)[i]) : ((const float *)k)[i]);
}

// logits (n_q, n) of the queries q (n_q, d), scaled (F32) or rounded (BF16), over the rows of the lane.
static void mass_logits(const pith_cpu_kernels *kernels, const pith_pages *pages, const pith_lane *lane, uint32_t n_q,
                        const uint32_t *rows, uint32_t n, pith_arith arith, const mass_scratch *scratch) {
    const pith_geometry *geo = &pages->geo;
    const uint32_t d = geo->head_dim;
    const float root = sqrtf((float)d);
    for (uint32_t j = 0, end; j < n; j = end) { // [j, end): the candidates of one page
        const uint32_t page = rows[j] / PITH_PAGE_ROWS;
        const void *k = pith_page_at(pages, lane->pages[page]);
        for (end = j + 1; end < n && rows[end] / PITH_PAGE_ROWS == page;) end++;

        if (arith == PITH_ARITH_BF16) {
            round_keys(geo, k, scratch->key);
            kernels->scores(scratch->q, d, n_q, scratch->key, sizeof(float), d, (pith_ahead){0}, scratch->s);
        } else {
            kernels->scores(scratch->q, d, n_q, k, geo->elt_bytes, d, (pith_ahead){0}, scratch->s);
        }
        for (uint32_t a = 0; a < n_q; a++)
            for (uint32_t i = j; i < end; i++) {
                float x = scratch->s[a * PITH_PAGE_ROWS + rows[i] % PITH_PAGE_ROWS];
                if (arith == PITH_ARITH_BF16) x = pith_bf16_round(pith_bf16_round(x) / root);
                scratch->logits[(size_t)a * n + i] = x;
            }
    }
}

// The largest of x (n); NaN is none. In 16 lanes, which compilers turn into vectors: maxima do not depend on order.
static float largest(const float *x, uint32_t n) {
    float lane[16], top;
    uint32_t i = 0;
    for (uint32_t j = 0; j < 16; j++) lane[j] = -INFINITY;
    for (; i + 16 <= n; i += 16)
        for (uint32_t j = 0; j < 16; j++) lane[j] = x[i + j] > lane[j] ? x[i + j] : lane[j];
    top = lane[0];
    for (uint32_t j = 1; j < 16; j++) top = lane[j] > top ? lane[j] : top;
    for (; i < n; i++) top = x[i] > top ? x[i] : top;
    return top;
}

// score[j] += softmax(x)[j]. x is overwritten.
static void add_softmax(const pith_cpu_kernels *kernels, float *x, uint32_t n, pith_arith arith, float *score) {
    const float sum = kernels->exp_sum(x, n, pith_soft_shift(largest(x, n)));
    if (arith == PITH_ARITH_BF16)
        for (uint32_t j = 0; j < n; j++) score[j] += pith_bf16_round(x[j] / sum);
    else
        for (uint32_t j = 0; j < n; j++) score[j] += x[j] / sum;
}

void pith_mass_lane(const pith_cpu_kernels *kernels, const pith_pages *pages, const pith_lane *lane, uint32_t kv_head,
                    const float *q, const uint32_t *slots, uint32_t n_slots, const uint32_t *rows, uint32_t n,
                    pith_arith arith, float *score, float *scratch) {
    const pith_geometry *geo = &pages->geo;
    const uint32_t d = geo->head_dim, g = geo->n_heads / geo->n_kv_heads;
    const mass_scratch at = mass_scratch_at(scratch, geo, n_slots);
    const float scale = 1.0f / sqrtf((float)d);

    memset(score, 0, (size_t)g * n * sizeof(float));
    for (uint32_t h = 0; h < g; h++) {
        float *sum = score + (size_t)h * n;
        for (uint32_t first = 0; first < n_slots; first += QUERY_BLOCK) {
            const uint32_t n_q = n_slots - first < QUERY_BLOCK ? n_slots - first : QUERY_BLOCK;
            for (uint32_t a = 0; a < n_q; a++) {
                const float *from = q + ((size_t)slots[first + a] * geo->n_heads + (size_t)kv_head * g + h) * d;
                for (uint32_t i = 0; i < d; i++)
                    at.q[(size_t)a * d + i] = arith == PITH_ARITH_BF16 ? pith_bf16_round(from[i]) : from[i] * scale;
            }
            mass_logits(kernels, pages, lane, n_q, rows, n, arith, &at);
            for (uint32_t a = 0; a < n_q; a++) add_softmax(kernels, at.logits + (size_t)a * n, n, arith, sum);
        }
        if (arith == PITH_ARITH_BF16)
            for (uint32_t j = 0; j < n; j++) sum[j] = pith_bf16_round(sum[j]);
    }
}

// --------------------------------------------------------------------------------------- aggregation, pooling

static void mean_rows(float *out, const float *in, uint32_t n_rows, uint32_t n, pith_arith arith) {
    if (out != in) memcpy(out, in, n * sizeof(float));
    for (uint32_t h = 1; h < n_rows; h++)
        for (uint32_t j = 0; j < n; j++) out[j] += in[(size_t)h * n + j];
    for (uint32_t j = 0; j < n; j++) {
        const float mean = out[j] / (float)n_rows;
        out[j] = arith == PITH_ARITH_BF16 ? pith_bf16_round(mean) : mean;
    }
}

static void max_rows(float *out, const float *in, uint32_t n_rows, uint32_t n) {
    if (out != in) memcpy(out, in, n * sizeof(float));
    for (uint32_t h = 1; h < n_rows; h++)
        for (uint32_t j = 0; j < n; j++) out[j] = in[(size_t)h * n + j] > out[j] ? in[(size_t)h * n + j] : out[j];
}

void pith_aggregate_scores(const pith_geometry *geo, pith_aggregate how, pith_arith arith, uint32_t n, float *score) {
    const uint32_t g = geo->n_heads / geo->n_kv_heads;
    if (how == PITH_AGG_LAYER) {
        mean_rows(score, score, geo->n_heads, n, arith);
        return;
    }
    // Set s goes to row s, which lies in a group that has been read already, or is the first row of its own.
    for (uint32_t s = 0; s < geo->n_kv_heads; s++) {
        float *out = score + (size_t)s * n;
        const float *in = score + (size_t)s * g * n;
        if (how == PITH_AGG_GROUP) mean_rows(out, in, g, n, arith);
        else max_rows(out, in, g, n);
    }
}

static float pool_one(pith_pool how, const float *x, uint32_t n, uint32_t width) {
    float sum = 0.0f, top = x[0];
    for (uint32_t i = 0; i < n; i++) {
        sum += x[i];
        top = x[i] > top ? x[i] : top;
    }
    return how == PITH_POOL_MAX ? top : sum / (float)width;
}

void pith_pool_scores(pith_pool how, uint32_t width, pith_arith arith, uint32_t n_sets, uint32_t n, float *score,
                      float *scratch) {
    const uint32_t half = width / 2;
    if (how == PITH_POOL_NONE) return;
    for (uint32_t s = 0; s < n_sets; s++) {
        float *set = score + (size_t)s * n;
        memcpy(scratch, set, n * sizeof(float));
        for (uint32_t j = 0; j < n; j++) {
            const uint32_t begin = j > half ? j - half : 0, end = n - j > half ? j + half + 1 : n;
            const uint32_t divisor = arith == PITH_ARITH_BF16 ? width : end - begin;
            const float x = pool_one(how, scratch + begin, end - begin, divisor);
            set[j] = arith == PITH_ARITH_BF16 ? pith_bf16_round(x) : x;
        }
    }
}

// ------------------------------------------------------------------------------------------------------- top

// An unsigned image of x that orders as floats do: 0 and -0 are one, NaN is below everything (-inf has 0x007fffff).
static uint32_t order_image(float x) {
    if (isnan(x)) return 0;
    const uint32_t bits = pith_f32_bits(x + 0.0f); // -0 + 0 is 0
    return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

// Finds the k-th largest image by its bytes, from the highest: each round counts the images that agree with what is
// known so far, by their next byte. Four passes over the data whatever it is.
void pith_top_scores(const float *score, uint32_t n, uint32_t k, uint32_t *keep, uint32_t *scratch) {
    if (k == 0) return;
    for (uint32_t j = 0; j < n; j++) scratch[j] = order_image(score[j]);

    uint32_t known = 0, mask = 0, wanted = k; // the answer is the wanted-th largest among those that match `known`
    for (uint32_t shift = 32; shift > 0;) {
        uint32_t count[256] = {0}, byte = 255;
        shift -= 8;
        for (uint32_t j = 0; j < n; j++)
            if ((scratch[j] & mask) == known) count[scratch[j] >> shift & 255u]++;
        for (; count[byte] < wanted; byte--) wanted -= count[byte];
        known |= byte << shift, mask |= 255u << shift;
    }

    // Everything above the k-th largest, and of its equals the `wanted` lowest.
    for (uint32_t j = 0, n_kept = 0; n_kept < k; j++) {
        if (scratch[j] < known || (scratch[j] == known && wanted == 0)) continue;
        if (scratch[j] == known) wanted--;
        keep[n_kept++] = j;
    }
}
