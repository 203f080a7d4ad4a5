// Bodies of the custom graph nodes. Every thread of the step runs a body; tasks are claimed from the node's counter,
// so that a thread without a CPU holds nothing up but what it has claimed. Who claims what changes no bit: tasks write
// disjoint outputs, and merging orders are fixed.
#include <math.h>
#include <string.h>

#include "cpu/cpu.h"

enum {
    LEAST_ROWS = 32,         // weight rows of a claim: tens of kilobytes, much more than a claim costs
    AHEAD_BYTES = 128 << 10, // a fraction of the L2, and about what memory delivers between two products
    SOON_BYTES = 512 << 10,  // the same of each of the two products after attention, which leaves more time
    SOON_LEAST = 4096,       // less is not worth a place in attention's loop
};

// Rows of a thread's first range: half of an even share.
static int64_t first_rows(int64_t m, int nth) { return m / (2 * nth) / PITH_PRODUCT_ROW_STEP * PITH_PRODUCT_ROW_STEP; }

static uint32_t claim(pith_node *node) { return atomic_fetch_add_explicit(&node->next, 1, memory_order_relaxed); }

// A range of what is left of `n`: half of it, divided by the threads, in multiples of `step`, at least `least`. Large
// ranges first, since each leaves a gap in the stream from memory; small ones at the end, so that no thread waits long.
static bool claim_range(pith_node *node, int nth, int64_t n, int64_t step, int64_t least, int64_t *from, int64_t *to) {
    uint32_t done = atomic_load_explicit(&node->next, memory_order_relaxed), size;
    do {
        const int64_t left = n - done;
        if (left <= 0) return false;
        int64_t want = left / (2 * nth) / step * step;
        if (want < least) want = least;
        size = (uint32_t)(want < left ? want : left);
    } while (!atomic_compare_exchange_weak_explicit(&node->next, &done, done + size, memory_order_relaxed,
                                                    memory_order_relaxed));
    *from = done, *to = (int64_t)done + size;
    return true;
}

// The next range of weight rows for this thread; *r1 is 0 before its first call. The first range of a thread is its own
// place in the matrix, where fetch_ahead has begun to read for it. The others are claimed.
static bool next_rows(pith_node *node, int ith, int nth, int64_t *r0, int64_t *r1) {
    const int64_t first = first_rows(node->m, nth);
    if (*r1 == 0 && first > 0) {
        *r0 = ith * first, *r1 = *r0 + first;
        return true;
    }
    if (!claim_range(node, nth, node->m - first * nth, PITH_PRODUCT_ROW_STEP, LEAST_ROWS, r0, r1)) return false;
    *r0 += first * nth, *r1 += first * nth;
    return true;
}

// The first bytes that a thread will read of a product, at most `most`: of the one matrix that its first row is in.
static pith_stream first_bytes(const pith_node *product, int ith, int nth, size_t most) {
    const int64_t n_rows = first_rows(product->m, nth), row = ith * n_rows;
    const pith_joint *j = &product->joint[product->n_joint - 1];
    while (row < j->first) j--;
    const int64_t at = row - j->first, left = j->matrix.m - at;
    const size_t part = (size_t)(left < n_rows ? left : n_rows) * j->matrix.row_bytes;
    return (pith_stream){j->matrix.data + (size_t)at * j->matrix.row_bytes, part < most ? part : most};
}

// Between two products come a barrier and small nodes that read nothing: a thread that has no more rows starts to read
// its first rows of the next weights.
static void fetch_ahead(const pith_node *product, int ith, int nth) {
    if (!product) return;
    const pith_stream ahead = first_bytes(product, ith, nth, AHEAD_BYTES);
    for (size_t i = 0; i < ahead.bytes; i += 64) __builtin_prefetch(ahead.at + i, 0, 2);
}

// Rows [r0, r1) of one product, for all columns. residual: (n, M), added to them, or NULL.
static void product_rows(const pith_node *node, const pith_joint *j, const uint8_t *packed, int64_t r0, int64_t r1,
                         const float *residual, float *y) {
    const pith_matrix *w = &j->matrix;
    const size_t m = (size_t)w->m;
    for (uint32_t c = 0; c < node->n; c += PITH_PRODUCT_MAX_COLUMNS) {
        const uint32_t cols = node->n - c < PITH_PRODUCT_MAX_COLUMNS ? node->n - c : PITH_PRODUCT_MAX_COLUMNS;
        w->product->rows(w->product, w->data, w->row_bytes, w->k, packed + c * node->packed_bytes, cols, r0, r1,
                         y + c * m, m);
    }
    for (uint32_t c = 0; c < node->n && j->bias; c++)
        for (int64_t r = r0; r < r1; r++) y[c * m + (size_t)r] += j->bias[r];
    for (uint32_t c = 0; c < node->n && residual; c++)
        for (int64_t r = r0; r < r1; r++) y[c * m + (size_t)r] += residual[c * m + (size_t)r];
}

// dst: (n, M) for each of the products, one behind the other, from src 0: packed rows, or what the node packs, then
// with src 1; weights (M, K). SRC_RESIDUAL: what is added, or none.
void pith_node_product(struct ggml_tensor *dst, int ith, int nth, void *userdata) {
    pith_node *node = userdata;
    const uint8_t *packed = node->pack ? pith_cpu_pack_own(node->pack, dst->src[0], dst->src[1], ith)
                                       : pith_align64(dst->src[0]->data);
    const float *residual = dst->src[SRC_RESIDUAL] ? dst->src[SRC_RESIDUAL]->data : NULL;
    float *y = node->to_step ? node->plan->step->logits : dst->data;

    for (int64_t r0 = 0, r1 = 0; next_rows(node, ith, nth, &r0, &r1);)
        for (const pith_joint *j = node->joint; j < node->joint + node->n_joint; j++) {
            const int64_t from = r0 > j->first ? r0 - j->first : 0, to = r1 - j->first;
            const int64_t end = to < j->matrix.m ? to : j->matrix.m;
            if (from < end) product_rows(node, j, packed, from, end, residual, y + j->y);
        }
    fetch_ahead(node->then, ith, nth);
}

// Sources: q (n, H*d), k (n, G*d), v (n, G*d). A task is one token.
void pith_node_append(struct ggml_tensor *dst, int ith, int nth, void *userdata) {
    (void)ith, (void)nth;
    pith_node *node = userdata;
    const pith_step *step = node->plan->step;
    const pith_geometry *geo = &node->plan->geo;
    const pith_cpu *cpu = node->plan->cpu;
    const uint32_t d = geo->head_dim;
    const float *q = dst->src[0]->data, *k = dst->src[1]->data, *v = dst->src[2]->data;

    for (uint32_t t; (t = claim(node)) < node->plan->shape.n_tokens;) {
        const pith_segment *seg = &step->segments[node->plan->shape.cls == PITH_CLASS_DECODE ? t : 0];
        for (uint32_t h = 0; h < geo->n_kv_heads; h++) {
            const pith_lane *lane = &seg->lanes[pith_lane_index(geo, node->layer, h)];
            uint32_t row = lane->n_rows - seg->n_tokens + (t - seg->first);
            size_t at = ((size_t)t * geo->n_kv_heads + h) * d;
            pith_append_row(cpu->kernels, &cpu->pages, lane, row, k + at, v + at, step->pos[t]);
        }
        if (step->slot[t] >= 0) {
            size_t q_floats = (size_t)geo->n_heads * d;
            size_t slot = (size_t)node->layer * seg->window->cap + (size_t)step->slot[t];
            memcpy(seg->window->q + slot * q_floats, q + t * q_floats, q_floats * sizeof(float));
        }
    }
}

// Copies the g query heads of KV head h for tokens [t0, t1) into scratch, scaled.
static void load_queries(const pith_geometry *geo, const float *q, uint32_t h, uint32_t t0, uint32_t t1, float *out) {
    const uint32_t d = geo->head_dim, g = geo->n_heads / geo->n_kv_heads;
    const float scale = 1.0f / sqrtf((float)d);
    for (uint32_t t = t0; t < t1; t++) {
        const float *from = q + ((size_t)t * geo->n_heads + (size_t)h * g) * d;
        for (size_t i = 0; i < (size_t)g * d; i++) *out++ = from[i] * scale;
    }
}

// Reads parts [0, n_parts) of the lane in ascending order into `sum`.
static void attend_parts(const pith_cpu *cpu, const pith_lane *lane, uint32_t n_parts, uint32_t n_q, uint32_t d,
                         const pith_cpu_scratch *s, pith_stream *soon) {
    pith_attend_part(cpu->kernels, &cpu->pages, lane, 0, s->q, d, n_q, s->n_seen, s->sum, s->work, soon);
    for (uint32_t part = 1; part < n_parts; part++) {
        pith_attend_part(cpu->kernels, &cpu->pages, lane, part, s->q, d, n_q, s->n_seen, s->part, s->work, soon);
        pith_attend_merge(cpu->kernels, n_q, d, s->sum, s->part);
    }
}

static uint32_t parts_of(uint32_t n_rows) { return (n_rows + PITH_PART_ROWS - 1) / PITH_PART_ROWS; }

// With few (sequence, KV head) pairs the parts of a lane go to different threads and a second node merges them.
static bool is_split(const struct pith_plan *plan) {
    return plan->shape.cls == PITH_CLASS_DECODE &&
           plan->shape.n_tokens * plan->geo.n_kv_heads <= pith_cpu_split_tasks(plan->cpu);
}

// Lane i of the step's (n, G) in the node's layer.
static const pith_lane *lane_of(const pith_node *node, uint32_t i) {
    const pith_geometry *geo = &node->plan->geo;
    const pith_segment *segment = &node->plan->step->segments[i / geo->n_kv_heads];
    return &segment->lanes[pith_lane_index(geo, node->layer, i % geo->n_kv_heads)];
}

static pith_partial split_partial(const pith_cpu *cpu, uint32_t lane_task, uint32_t part) {
    const uint32_t g = cpu->geo.n_heads / cpu->geo.n_kv_heads, d = cpu->geo.head_dim;
    size_t floats = pith_cpu_partial_floats(g, d);
    float *at = (float *)(void *)cpu->split_memory + ((size_t)lane_task * cpu->max_parts + part) * floats;
    return (pith_partial){.acc = at, .m = at + (size_t)g * d, .l = at + (size_t)g * d + g};
}

// What a thread fetches while it attends: attention computes for longer than it reads, so the memory has time for the
// first rows of the two products behind it.
typedef struct soon {
    const pith_node *product; // the next one whose rows are not being fetched yet
    uint32_t n_left;          // products
    pith_stream stream;
} soon;

static void refill(soon *s, int ith, int nth) {
    if (s->stream.bytes >= SOON_LEAST || !s->product || s->n_left == 0) return;
    s->stream = first_bytes(s->product, ith, nth, SOON_BYTES);
    s->product = s->product->then, s->n_left--;
}

// Tasks are the lanes of the step, or the parts of each where those are split.
static void attend_decode(struct ggml_tensor *dst, int ith, int nth, pith_node *node) {
    const struct pith_plan *plan = node->plan;
    const pith_geometry *geo = &plan->geo;
    pith_cpu *cpu = plan->cpu;
    pith_cpu_scratch *s = &cpu->scratch[ith];
    const uint32_t d = geo->head_dim, g = geo->n_heads / geo->n_kv_heads,
                   n_lanes = plan->shape.n_tokens * geo->n_kv_heads;
    const float *q = dst->src[1]->data;
    const bool split = is_split(plan);
    int64_t n_tasks = n_lanes;
    for (uint32_t i = 0; split && i < n_lanes; i++) n_tasks += parts_of(lane_of(node, i)->n_rows) - 1;

    soon ahead = {.product = node->then, .n_left = 2};
    int64_t task = 0, end = 0, index = 0; // index: tasks in front of the lane at hand
    for (uint32_t i = 0; i < n_lanes; i++) {
        const pith_lane *lane = lane_of(node, i);
        const uint32_t n_parts = parts_of(lane->n_rows), t = i / geo->n_kv_heads, h = i % geo->n_kv_heads;
        const int64_t next = index + (split ? n_parts : 1);
        bool loaded = false;
        for (;; task++) {
            if (task == end && !claim_range(node, nth, n_tasks, 1, 1, &task, &end)) return;
            if (task >= next) break;
            refill(&ahead, ith, nth);
            if (!loaded) {
                load_queries(geo, q, h, t, t + 1, s->q);
                for (uint32_t a = 0; a < g; a++) s->n_seen[a] = lane->n_rows;
                loaded = true;
            }
            if (split) {
                const uint32_t part = (uint32_t)(task - index);
                pith_attend_part(cpu->kernels, &cpu->pages, lane, part, s->q, d, g, s->n_seen,
                                 split_partial(cpu, i, part), s->work, &ahead.stream);
            } else {
                attend_parts(cpu, lane, n_parts, g, d, s, &ahead.stream);
                pith_attend_finish(g, d, s->sum, (float *)dst->data + ((size_t)t * geo->n_heads + h * g) * d, d);
            }
        }
        index = next;
    }
}

// A task is a KV head and a block of tokens, whose query rows share one pass over the pages.
static void attend_prefill(struct ggml_tensor *dst, int ith, pith_node *node) {
    const struct pith_plan *plan = node->plan;
    const pith_geometry *geo = &plan->geo;
    pith_cpu *cpu = plan->cpu;
    pith_cpu_scratch *s = &cpu->scratch[ith];
    const uint32_t d = geo->head_dim, g = geo->n_heads / geo->n_kv_heads, n = plan->shape.n_tokens;
    const uint32_t block = pith_cpu_prefill_block(g), n_blocks = (n + block - 1) / block;
    const float *q = dst->src[1]->data;

    for (uint32_t task; (task = claim(node)) < n_blocks * geo->n_kv_heads;) {
        // Late blocks see the most rows: the long tasks go first.
        const uint32_t h = task % geo->n_kv_heads, b = n_blocks - 1 - task / geo->n_kv_heads;
        const uint32_t t0 = b * block, t1 = t0 + block < n ? t0 + block : n;
        const pith_lane *lane = &plan->step->segments[0].lanes[pith_lane_index(geo, node->layer, h)];
        load_queries(geo, q, h, t0, t1, s->q);
        for (uint32_t t = t0; t < t1; t++)
            for (uint32_t a = 0; a < g; a++) s->n_seen[(t - t0) * g + a] = lane->n_rows - n + t + 1;
        attend_parts(cpu, lane, parts_of(lane->n_rows - n + t1), (t1 - t0) * g, d, s, NULL);
        for (uint32_t t = t0; t < t1; t++) {
            pith_partial rows = {s->sum.acc + (size_t)(t - t0) * g * d, s->sum.m + (t - t0) * g,
                                 s->sum.l + (t - t0) * g};
            pith_attend_finish(g, d, rows, (float *)dst->data + ((size_t)t * geo->n_heads + h * g) * d, d);
        }
    }
}

// Sources: the append node (for the order), q (n, H*d). dst: (n, H*d).
void pith_node_attend(struct ggml_tensor *dst, int ith, int nth, void *userdata) {
    pith_node *node = userdata;
    if (node->plan->shape.cls == PITH_CLASS_DECODE) attend_decode(dst, ith, nth, node);
    else attend_prefill(dst, ith, node);
}

// In place on the attend node's result, where its lanes were split. A task is one (sequence, KV head).
void pith_node_merge(struct ggml_tensor *dst, int ith, int nth, void *userdata) {
    (void)nth;
    pith_node *node = userdata;
    const struct pith_plan *plan = node->plan;
    if (!is_split(plan)) return;
    const pith_geometry *geo = &plan->geo;
    const pith_cpu *cpu = plan->cpu;
    const uint32_t d = geo->head_dim, g = geo->n_heads / geo->n_kv_heads;

    for (uint32_t task; (task = claim(node)) < plan->shape.n_tokens * geo->n_kv_heads;) {
        const uint32_t t = task / geo->n_kv_heads, h = task % geo->n_kv_heads;
        const pith_lane *lane = lane_of(node, task);
        pith_partial sum = split_partial(cpu, task, 0);
        for (uint32_t part = 1; part < parts_of(lane->n_rows); part++)
            pith_attend_merge(cpu->kernels, g, d, sum, split_partial(cpu, task, part));
        pith_attend_finish(g, d, sum, (float *)dst->data + ((size_t)t * geo->n_heads + h * g) * d, d);
    }
    (void)ith;
}
