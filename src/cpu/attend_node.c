// The nodes that touch the cache: attention over a step's lanes, and in prefill the append in front of it.
//
// In a decode step attention is one node. Queries and keys come as their products left them; whoever takes the rows at
// the end of a lane makes the new key, norm and rotation included, and appends it first, since nobody else reads it. A
// lane whose parts went to several threads is put together by the one that ends last, in the order of the parts.
#include <math.h>
#include <string.h>

#include "cpu/claim.h"

enum {
    SOON_BYTES = 512 << 10, // of each of the two products after attention: a fraction of the L2
    SOON_LEAST = 4096,      // less is not worth a place in attention's loop
};

// Lane i of the step's (n, G) in the node's layer.
static const pith_lane *lane_of(const pith_node *node, uint32_t i) {
    const pith_geometry *geo = &node->plan->geo;
    const pith_segment *segment = &node->plan->step->segments[i / geo->n_kv_heads];
    return &segment->lanes[pith_lane_index(geo, node->layer, i % geo->n_kv_heads)];
}

static uint32_t parts_of(uint32_t n_rows) { return (n_rows + PITH_PART_ROWS - 1) / PITH_PART_ROWS; }

// Reads parts [0, n_parts) of the lane in ascending order into `sum`. Its first keys have been asked for; next_k: those
// of what the thread reads then, or NULL.
static void attend_parts(const pith_cpu *cpu, const pith_lane *lane, uint32_t n_parts, uint32_t n_q, uint32_t d,
                         const pith_cpu_scratch *s, const void *next_k, pith_stream *soon) {
    for (uint32_t part = 0; part < n_parts; part++) {
        const void *then = part + 1 < n_parts ? pith_attend_keys(&cpu->pages, lane, part + 1) : next_k;
        pith_attend_part(cpu->kernels, &cpu->pages, lane, part, s->q, d, n_q, s->n_seen, part ? s->part : s->sum,
                         s->work, then, soon);
        if (part) pith_attend_merge(cpu->kernels, n_q, d, s->sum, s->part);
    }
}

static void scale(float *q, size_t n, uint32_t d) {
    const float by = 1.0f / sqrtf((float)d);
    for (size_t i = 0; i < n; i++) q[i] *= by;
}

static float *window_queries(const pith_step *step, const pith_segment *seg, uint32_t layer, uint32_t token, size_t n) {
    return seg->window->q + ((size_t)layer * seg->window->cap + (size_t)step->slot[token]) * n; // (H*d)
}

// ------------------------------------------------------------------------------------------------------ decode

// A decode step's attention: the node, and where its sources lie.
typedef struct decoding {
    pith_node *node;
    const float *q, *k, *v; // (n, H*d), (n, G*d), (n, G*d), not rotated
    const float *angles;    // (n, n_rot): cosines and sines where the pair's elements are; NULL: no rotation
    float *out;             // (n, H*d)
} decoding;

// Elements i and j of a head, whose cosine and sine stand at i and j: to both sides of the pair.
static inline void rotate_pair(float *x, const float *angles, uint32_t i, uint32_t j) {
    const float a = x[i], b = x[j], cosine = angles[i], sine = angles[j];
    x[i] = a * cosine - b * sine;
    x[j] = a * sine + b * cosine;
}

// n heads as products made them into `out` (n, d): norm, then rotation by the token's angles.
static void make_heads(const decoding *c, const float *from, uint32_t n, const float *norm, uint32_t token,
                       float *out) {
    const pith_node *node = c->node;
    const uint32_t d = node->plan->geo.head_dim, n_rot = node->n_rot, half = n_rot / 2;
    const float *angles = c->angles ? c->angles + (size_t)token * n_rot : NULL;
    for (uint32_t h = 0; h < n; h++, from += d, out += d) {
        if (norm) pith_cpu_norm(from, norm, node->eps, d, out);
        else memcpy(out, from, d * sizeof *out);
        if (!angles) continue;
        if (node->neox)
            for (uint32_t i = 0; i < half; i++) rotate_pair(out, angles, i, i + half);
        else
            for (uint32_t i = 0; i < n_rot; i += 2) rotate_pair(out, angles, i, i + 1);
    }
}

// The g query heads of KV head h, not scaled.
static void make_queries(const decoding *c, uint32_t token, uint32_t h, float *out) {
    const pith_geometry *geo = &c->node->plan->geo;
    const uint32_t g = geo->n_heads / geo->n_kv_heads;
    make_heads(c, c->q + ((size_t)token * geo->n_heads + (size_t)h * g) * geo->head_dim, g, c->node->q_norm, token,
               out);
}

// The token's row of KV head h, and its queries of this head for the window that observes them.
static void append(const decoding *c, const pith_lane *lane, uint32_t token, uint32_t h) {
    const struct pith_plan *plan = c->node->plan;
    const pith_geometry *geo = &plan->geo;
    const pith_step *step = plan->step;
    const uint32_t d = geo->head_dim, g = geo->n_heads / geo->n_kv_heads;
    const size_t at = ((size_t)token * geo->n_kv_heads + h) * d;
    float k[PITH_MAX_HEAD_DIM];
    make_heads(c, c->k + at, 1, c->node->k_norm, token, k);
    pith_append_row(plan->cpu->kernels, &plan->cpu->pages, lane, lane->n_rows - 1, k, c->v + at, step->pos[token]);
    if (step->slot[token] < 0) return;
    float *window = window_queries(step, &step->segments[token], c->node->layer, token, (size_t)geo->n_heads * d);
    make_queries(c, token, h, window + (size_t)h * g * d);
}

// With few (sequence, KV head) pairs the parts of a lane go to different threads.
static bool is_split(const struct pith_plan *plan) {
    return plan->shape.n_tokens * plan->geo.n_kv_heads <= pith_cpu_split_tasks(plan->cpu);
}

static pith_partial split_partial(const pith_cpu *cpu, uint32_t lane_task, uint32_t part) {
    const uint32_t g = cpu->geo.n_heads / cpu->geo.n_kv_heads, d = cpu->geo.head_dim;
    size_t floats = pith_cpu_partial_floats(g, d);
    float *at = (float *)(void *)cpu->split_memory + ((size_t)lane_task * cpu->max_parts + part) * floats;
    return (pith_partial){.acc = at, .m = at + (size_t)g * d, .l = at + (size_t)g * d + g};
}

// One part of the step's lane i has been read; the thread that read the last one puts them together into `out` (g, d).
static void merge_when_read(pith_cpu *cpu, uint32_t i, uint32_t n_parts, float *out) {
    const uint32_t g = cpu->geo.n_heads / cpu->geo.n_kv_heads, d = cpu->geo.head_dim;
    // Release: the part's numbers are there for whoever counts last. Acquire: that one sees all of them.
    if (atomic_fetch_add_explicit(&cpu->split_read[i], 1, memory_order_acq_rel) + 1 < n_parts) return;
    atomic_store_explicit(&cpu->split_read[i], 0, memory_order_relaxed); // for the next layer, behind a barrier
    const pith_partial sum = split_partial(cpu, i, 0);
    for (uint32_t part = 1; part < n_parts; part++)
        pith_attend_merge(cpu->kernels, g, d, sum, split_partial(cpu, i, part));
    pith_attend_finish(g, d, sum, out, d);
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
    s->stream = pith_cpu_first_bytes(s->product, ith, nth, SOON_BYTES);
    s->product = s->product->then, s->n_left--;
}

// The tasks of a step: its lanes, or the parts of each where those are split. While there are enough for all, a thread
// claims its next range before the last task of the one at hand, so that whatever it does next, its first keys are on
// their way.
typedef struct tasks {
    pith_node *node;
    bool split;
    int nth;
    int64_t n;
    int64_t at, end;     // of the range at hand
    int64_t then, limit; // the range behind it; equal: not claimed
} tasks;

// Where task `task` begins to read.
static const void *keys_of(const tasks *t, int64_t task) {
    uint32_t lane = t->split ? 0 : (uint32_t)task, part = t->split ? (uint32_t)task : 0;
    for (uint32_t n; t->split && part >= (n = parts_of(lane_of(t->node, lane)->n_rows)); lane++) part -= n;
    return pith_attend_keys(&t->node->plan->cpu->pages, lane_of(t->node, lane), part);
}

static bool claim_next(tasks *t) { return claim_range(t->node, t->nth, t->n, 1, 1, &t->then, &t->limit); }

// The keys behind the task at hand, or NULL: there are none for this thread, or too few are left. Who claims one of the
// last tasks before it has time for it makes the others wait.
static const void *next_keys(tasks *t) {
    if (t->at + 1 < t->end) return keys_of(t, t->at + 1);
    const int64_t left = t->n - atomic_load_explicit(&t->node->next, memory_order_relaxed);
    return left >= 2 * t->nth && claim_next(t) ? keys_of(t, t->then) : NULL;
}

// A task is at hand: after the last of a range the next one's first.
static bool have_task(tasks *t) {
    if (t->at < t->end) return true;
    if (t->then == t->limit) {
        if (!claim_next(t)) return false;
        pith_attend_fetch(&t->node->plan->cpu->pages, keys_of(t, t->then));
    }
    t->at = t->then, t->end = t->then = t->limit;
    return true;
}

static void attend_decode(const decoding *c, int ith, int nth) {
    pith_node *node = c->node;
    const struct pith_plan *plan = node->plan;
    const pith_geometry *geo = &plan->geo;
    pith_cpu *cpu = plan->cpu;
    pith_cpu_scratch *s = &cpu->scratch[ith];
    const uint32_t d = geo->head_dim, g = geo->n_heads / geo->n_kv_heads,
                   n_lanes = plan->shape.n_tokens * geo->n_kv_heads;
    const bool split = is_split(plan);
    tasks todo = {.node = node, .split = split, .nth = nth, .n = n_lanes};
    for (uint32_t i = 0; split && i < n_lanes; i++) todo.n += parts_of(lane_of(node, i)->n_rows) - 1;

    soon ahead = {.product = node->then, .n_left = 2};
    int64_t index = 0; // tasks in front of the lane at hand
    for (uint32_t i = 0; i < n_lanes; i++) {
        const pith_lane *lane = lane_of(node, i);
        const uint32_t n_parts = parts_of(lane->n_rows), t = i / geo->n_kv_heads, h = i % geo->n_kv_heads;
        const int64_t next = index + (split ? n_parts : 1);
        float *out = c->out + ((size_t)t * geo->n_heads + h * g) * d;
        bool loaded = false;
        for (;; todo.at++) {
            if (!have_task(&todo)) return;
            if (todo.at >= next) break;
            refill(&ahead, ith, nth);
            if (!loaded) {
                make_queries(c, t, h, s->q);
                scale(s->q, (size_t)g * d, d);
                for (uint32_t a = 0; a < g; a++) s->n_seen[a] = lane->n_rows;
                loaded = true;
            }
            if (todo.at + 1 == next) append(c, lane, t, h);
            const void *next_k = next_keys(&todo);
            if (split) {
                const uint32_t part = (uint32_t)(todo.at - index);
                pith_attend_part(cpu->kernels, &cpu->pages, lane, part, s->q, d, g, s->n_seen,
                                 split_partial(cpu, i, part), s->work, next_k, &ahead.stream);
                merge_when_read(cpu, i, n_parts, out);
            } else {
                attend_parts(cpu, lane, n_parts, g, d, s, next_k, &ahead.stream);
                pith_attend_finish(g, d, s->sum, out, d);
            }
        }
        index = next;
    }
}

// dst: (n, H*d). Sources: q, k, v, angles.
void pith_node_decode(struct ggml_tensor *dst, int ith, int nth, void *userdata) {
    const decoding c = {.node = userdata,
                        .q = dst->src[0]->data,
                        .k = dst->src[1]->data,
                        .v = dst->src[2]->data,
                        .angles = dst->src[3] ? dst->src[3]->data : NULL,
                        .out = dst->data};
    attend_decode(&c, ith, nth);
}

// ----------------------------------------------------------------------------------------------------- prefill

// Sources: q (n, H*d), k (n, G*d), v (n, G*d). A task is one token.
void pith_node_append(struct ggml_tensor *dst, int ith, int nth, void *userdata) {
    (void)ith, (void)nth;
    pith_node *node = userdata;
    const pith_step *step = node->plan->step;
    const pith_geometry *geo = &node->plan->geo;
    const pith_cpu *cpu = node->plan->cpu;
    const pith_segment *seg = &step->segments[0];
    const uint32_t d = geo->head_dim;
    const size_t q_floats = (size_t)geo->n_heads * d;
    const float *q = dst->src[0]->data, *k = dst->src[1]->data, *v = dst->src[2]->data;

    for (uint32_t t; (t = claim(node)) < node->plan->shape.n_tokens;) {
        for (uint32_t h = 0; h < geo->n_kv_heads; h++) {
            const pith_lane *lane = &seg->lanes[pith_lane_index(geo, node->layer, h)];
            const uint32_t row = lane->n_rows - seg->n_tokens + (t - seg->first);
            const size_t at = ((size_t)t * geo->n_kv_heads + h) * d;
            pith_append_row(cpu->kernels, &cpu->pages, lane, row, k + at, v + at, step->pos[t]);
        }
        if (step->slot[t] >= 0)
            memcpy(window_queries(step, seg, node->layer, t, q_floats), q + t * q_floats, q_floats * sizeof(float));
    }
}

// Copies the g query heads of KV head h for tokens [t0, t1) into `out`, scaled.
static void load_queries(const pith_geometry *geo, const float *q, uint32_t h, uint32_t t0, uint32_t t1, float *out) {
    const uint32_t d = geo->head_dim, g = geo->n_heads / geo->n_kv_heads;
    const size_t n = (size_t)g * d;
    for (uint32_t t = t0; t < t1; t++, out += n) {
        memcpy(out, q + ((size_t)t * geo->n_heads + (size_t)h * g) * d, n * sizeof *out);
        scale(out, n, d);
    }
}

// Sources: the append node (for the order), q (n, H*d). dst: (n, H*d). A task is a KV head and a block of tokens, whose
// query rows share one pass over the pages.
void pith_node_prefill(struct ggml_tensor *dst, int ith, int nth, void *userdata) {
    (void)nth;
    pith_node *node = userdata;
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
        pith_attend_fetch(&cpu->pages, pith_attend_keys(&cpu->pages, lane, 0));
        attend_parts(cpu, lane, parts_of(lane->n_rows - n + t1), (t1 - t0) * g, d, s, NULL, NULL);
        for (uint32_t t = t0; t < t1; t++) {
            pith_partial rows = {s->sum.acc + (size_t)(t - t0) * g * d, s->sum.m + (t - t0) * g,
                                 s->sum.l + (t - t0) * g};
            pith_attend_finish(g, d, rows, (float *)dst->data + ((size_t)t * geo->n_heads + h * g) * d, d);
        }
    }
}
