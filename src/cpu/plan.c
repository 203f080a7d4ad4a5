// Recording and replay: a plan is a ggml graph with custom nodes.
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "cpu/cpu.h"

enum {
    // Upper bounds for sizing; checked by count, not by hope: a plan that needs more fails to record.
    TENSORS_PER_LAYER = 80,
    NODES_PER_LAYER = 24, // custom nodes
    FIXED = 64,
};

static struct ggml_tensor *T(pith_value *v) { return (struct ggml_tensor *)(void *)v; }
static pith_value *V(struct ggml_tensor *t) { return (pith_value *)(void *)t; }

// ------------------------------------------------------------------------------------------------- begin, end

void pith_cpu_plan_free(pith_plan *p);

static size_t n_units(const pith_plan *p) { // floats
    return p->shape.cls == PITH_CLASS_DECODE ? (size_t)p->shape.n_tokens * p->geo.head_dim : 0;
}

static pith_status plan_begin(pith_backend *backend, const pith_geometry *geo, const pith_shape *shape, pith_plan **out,
                              pith_error *err) {
    pith_cpu *cpu = (pith_cpu *)backend;
    pith_plan *p = *out = pith_new(cpu->alloc, 1, sizeof *p);
    if (!p) return pith_fail(err, PITH_E_MEMORY, "no memory for a plan");
    const size_t n_tensors = (size_t)geo->n_layers * TENSORS_PER_LAYER + FIXED;
    p->cpu = cpu, p->geo = *geo, p->shape = *shape;
    p->cap_nodes = geo->n_layers * NODES_PER_LAYER + FIXED;
    p->nodes = pith_new(cpu->alloc, p->cap_nodes, sizeof *p->nodes);
    p->inputs = pith_new(cpu->alloc, (size_t)shape->n_tokens * 2 + shape->n_out + 1, sizeof *p->inputs);
    p->units = pith_new(cpu->alloc, n_units(p), sizeof *p->units);
    p->ctx_bytes = n_tensors * ggml_tensor_overhead() + ggml_graph_overhead_custom(n_tensors, false);
    p->ctx_memory = pith_new(cpu->alloc, p->ctx_bytes, 1);
    if (p->ctx_memory) p->ctx = ggml_init((struct ggml_init_params){p->ctx_bytes, p->ctx_memory, true});
    if (!p->nodes || !p->inputs || !p->units || !p->ctx) {
        pith_cpu_plan_free(p);
        *out = NULL;
        return pith_fail(err, PITH_E_MEMORY, "no memory for a plan of %u tokens", shape->n_tokens);
    }
    p->graph = ggml_new_graph_custom(p->ctx, n_tensors, false);
    p->ids = ggml_new_tensor_1d(p->ctx, GGML_TYPE_I32, shape->n_tokens);
    p->pos = ggml_new_tensor_1d(p->ctx, GGML_TYPE_I32, shape->n_tokens);
    p->out = ggml_new_tensor_1d(p->ctx, GGML_TYPE_I32, shape->n_out ? shape->n_out : 1);
    p->ids->data = p->inputs;
    p->pos->data = p->inputs + shape->n_tokens;
    p->out->data = p->inputs + 2 * (size_t)shape->n_tokens;
    return PITH_OK;
}

// Something that recording met. The first one counts.
__attribute__((format(printf, 3, 4))) static void *fail(pith_plan *p, pith_status status, const char *fmt, ...) {
    if (!p->failed) {
        char line[160];
        va_list args;
        va_start(args, fmt);
        vsnprintf(line, sizeof line, fmt, args);
        va_end(args);
        pith_fail(&p->error, status, "%s", line);
        p->failed = true;
    }
    return NULL;
}

// ggml aborts when a context is full; a layer of ours needs far less than this.
static bool has_room(pith_plan *p) {
    if (p->failed) return false;
    if (ggml_used_mem(p->ctx) + 16 * ggml_tensor_overhead() > p->ctx_bytes)
        return fail(p, PITH_E_STATE, "the plan's graph is full"), false;
    return true;
}

static pith_node *new_node(pith_plan *p) {
    if (p->n_nodes == p->cap_nodes) return fail(p, PITH_E_STATE, "the plan has no room for a node");
    pith_node *node = &p->nodes[p->n_nodes++];
    node->plan = p;
    return node;
}

static struct ggml_tensor *weight_tensor(pith_plan *p, const pith_weight *w) {
    struct ggml_tensor *t = ggml_new_tensor_4d(p->ctx, (enum ggml_type)w->type, w->ne[0], w->ne[1], w->ne[2], w->ne[3]);
    t->data = (void *)(uintptr_t)w->data; // only read
    return t;
}

static pith_status plan_end(pith_plan *p, pith_error *err) {
    pith_cpu *cpu = p->cpu;
    if (p->failed) {
        if (err) *err = p->error;
        pith_status status = p->error.status;
        pith_cpu_plan_free(p);
        return status;
    }
    if (!ggml_gallocr_alloc_graph(cpu->values, p->graph)) {
        cpu->generation++; // a failed growth has freed what older plans point into
        pith_cpu_plan_free(p);
        return pith_fail(err, PITH_E_MEMORY, "no memory for the values of a step");
    }
    size_t bytes = ggml_gallocr_get_buffer_size(cpu->values, 0);
    if (bytes != cpu->values_bytes) cpu->values_bytes = bytes, cpu->generation++;
    p->generation = cpu->generation;

    // More threads never need less work space.
    p->work_bytes = ggml_graph_plan(p->graph, (int)cpu->threads.max, NULL).work_size;
    const size_t packs = p->pack_bytes * cpu->threads.max + 64;
    if (packs > p->work_bytes) p->work_bytes = packs;
    if (p->work_bytes > cpu->work_bytes) {
        uint8_t *work = pith_new(cpu->alloc, p->work_bytes, 1);
        if (!work) {
            size_t need = p->work_bytes;
            pith_cpu_plan_free(p);
            return pith_fail(err, PITH_E_MEMORY, "no memory for %zu bytes of work space", need);
        }
        pith_delete(cpu->alloc, cpu->work, cpu->work_bytes, 1);
        cpu->work = work, cpu->work_bytes = p->work_bytes;
    }
    return PITH_OK;
}

void pith_cpu_plan_free(pith_plan *p) {
    if (!p) return;
    const pith_allocator *a = p->cpu->alloc;
    if (p->ctx) ggml_free(p->ctx);
    pith_delete(a, p->ctx_memory, p->ctx_bytes, 1);
    pith_delete(a, p->inputs, (size_t)p->shape.n_tokens * 2 + p->shape.n_out + 1, sizeof *p->inputs);
    pith_delete(a, p->units, n_units(p), sizeof *p->units);
    pith_delete(a, p->nodes, p->cap_nodes, sizeof *p->nodes);
    pith_delete(a, p, 1, sizeof *p);
}

// --------------------------------------------------------------------------------------------------- recording

static pith_value *embed(pith_plan *p, const pith_weight *table) {
    if (!has_room(p)) return NULL;
    if (!table->data)
        return fail(p, PITH_E_UNSUPPORTED,
                    "the model's weights are left to a device's engine, this one runs on the CPU");
    return V(ggml_get_rows(p->ctx, weight_tensor(p, table), p->ids));
}

static pith_value *rms_norm(pith_plan *p, pith_value *x, const pith_weight *w, float eps) {
    if (!has_room(p)) return NULL;
    return V(ggml_mul(p->ctx, ggml_rms_norm(p->ctx, T(x), eps), weight_tensor(p, w)));
}

// What a product's input is packed from, by a node to be made or by the product's: x itself, or what x is made from,
// where packing can make it on the way. A norm and an activation are then no nodes of the graph, since nothing else
// asks for them.
static pith_node *new_pack(pith_plan *p, struct ggml_tensor *x, const pith_product *product,
                           struct ggml_tensor *from[2]) {
    pith_node *pack = new_node(p);
    if (!pack) return NULL;
    pack->product = product, pack->n = (uint32_t)x->ne[1];
    pack->packed_bytes = product->packed_bytes(product, x->ne[0]);
    from[0] = x, from[1] = NULL;
    if (x->op == GGML_OP_MUL && x->src[0]->op == GGML_OP_RMS_NORM && x->src[1]->type == GGML_TYPE_F32) {
        from[0] = x->src[0]->src[0];
        pack->norm = x->src[1]->data;
        memcpy(&pack->eps, x->src[0]->op_params, sizeof pack->eps);
    } else if (x->op == GGML_OP_GLU) { // swiglu is the one that a plan records
        from[0] = x->src[0], from[1] = x->src[1];
    }
    return pack;
}

// A new node for products of x. Its results are as large as those that join it will make them.
static bool begin_product(pith_plan *p, struct ggml_tensor *x, const pith_product *product, bool to_step) {
    struct ggml_tensor *from[2];
    pith_node *pack = new_pack(p, x, product, from), *node = pack ? new_node(p) : NULL;
    if (!node) return false;
    const int64_t bytes = (int64_t)pith_cpu_input_bytes(pack, x->ne[0]);
    if (pack->n == 1) {
        node->pack = pack;
        if ((size_t)bytes > p->pack_bytes) p->pack_bytes = (size_t)bytes;
    } else {
        from[0] = ggml_custom_4d(p->ctx, GGML_TYPE_I8, bytes, 1, 1, 1, from, from[1] ? 2 : 1, pith_node_pack,
                                 GGML_N_TASKS_MAX, pack);
        from[1] = NULL;
    }
    node->n = pack->n, node->packed_bytes = pack->packed_bytes;
    node->to_step = to_step;
    for (int i = 0; i < 2; i++)
        if (p->unlinked[i]) p->unlinked[i]->then = node;
    p->unlinked[0] = node, p->unlinked[1] = NULL;
    p->product = ggml_custom_4d(p->ctx, GGML_TYPE_F32, 1, 1, 1, 1, from, from[1] ? 2 : 1, pith_node_product,
                                GGML_N_TASKS_MAX, node);
    p->product_of = x, p->product_node = node, p->pack_by = product;
    return true;
}

// Decode rows: (n, K) -> (n, M) by own products; to_step: into the step's logits.
static struct ggml_tensor *own_product(pith_plan *p, const pith_weight *w, struct ggml_tensor *x,
                                       const pith_weight *bias, bool to_step) {
    const pith_matrix matrix = pith_cpu_matrix(p->cpu, w);
    if (!matrix.product) return fail(p, PITH_E_UNSUPPORTED, "%s: no product for tensor type %d", w->name, w->type);
    const bool joins = p->product_of == x && pith_product_same_pack(p->pack_by, matrix.product) && !to_step &&
                       p->product_node->n_joint < MOST_JOINT;
    if (!joins && !begin_product(p, x, matrix.product, to_step)) return NULL;
    pith_node *node = p->product_node;
    struct ggml_tensor *all = p->product;
    const size_t at = node->n_joint > 0 ? (size_t)all->ne[0] : 0;
    node->joint[node->n_joint++] = (pith_joint){matrix, bias ? bias->data : NULL, node->m, at};
    node->m += (matrix.m + PITH_PRODUCT_ROW_STEP - 1) / PITH_PRODUCT_ROW_STEP * PITH_PRODUCT_ROW_STEP;
    if (to_step) return all;
    // Nothing has been allocated yet, so the node's results may still grow.
    all->ne[0] = (int64_t)at + matrix.m * x->ne[1];
    for (int i = 1; i < GGML_MAX_DIMS; i++) all->nb[i] = (size_t)all->ne[0] * sizeof(float);
    return ggml_view_2d(p->ctx, all, matrix.m, x->ne[1], (size_t)matrix.m * sizeof(float), at * sizeof(float));
}

static pith_value *product(pith_plan *p, const pith_weight *w, pith_value *x, const pith_weight *bias) {
    if (!has_room(p)) return NULL;
    if (p->shape.cls == PITH_CLASS_DECODE) return V(own_product(p, w, T(x), bias, false));
    struct ggml_tensor *y = ggml_mul_mat(p->ctx, weight_tensor(p, w), T(x));
    return V(bias ? ggml_add(p->ctx, y, weight_tensor(p, bias)) : y);
}

static void logits(pith_plan *p, const pith_weight *w, pith_value *x) {
    if (!has_room(p)) return;
    struct ggml_tensor *y = own_product(p, w, T(x), NULL, true);
    if (y) ggml_build_forward_expand(p->graph, y);
}

static pith_value *head_norm(pith_plan *p, pith_value *x, uint32_t d, const pith_weight *w, float eps) {
    if (!has_room(p)) return NULL;
    struct ggml_tensor *t = T(x);
    struct ggml_tensor *heads = ggml_reshape_3d(p->ctx, t, d, t->ne[0] / d, t->ne[1]);
    heads = ggml_mul(p->ctx, ggml_rms_norm(p->ctx, heads, eps), weight_tensor(p, w));
    return V(ggml_reshape_2d(p->ctx, heads, t->ne[0], t->ne[1]));
}

// (n, h, d), whose first n_rot elements of each head are rotated.
static struct ggml_tensor *rotated(pith_plan *p, struct ggml_tensor *heads, const pith_rope *r) {
    return ggml_rope_ext(p->ctx, heads, p->pos, r->factors ? weight_tensor(p, r->factors) : NULL, (int)r->n_rot,
                         r->neox ? GGML_ROPE_TYPE_NEOX : GGML_ROPE_TYPE_NORMAL, (int)r->n_ctx_orig, r->base,
                         r->freq_scale, r->ext_factor, r->attn_factor, r->beta_fast, r->beta_slow);
}

// The angles of a decode step: ggml rotates unit vectors, which leaves a cosine where each pair's first element is and
// a sine where the second is.
static void make_angles(pith_plan *p, const pith_rope *r) {
    if (p->rope == r) return;
    const uint32_t n = p->shape.n_tokens, n_rot = r->n_rot;
    for (uint32_t i = 0; i < n * n_rot; i++) p->units[i] = r->neox ? i % n_rot < n_rot / 2 : i % 2 == 0;
    struct ggml_tensor *units = ggml_new_tensor_3d(p->ctx, GGML_TYPE_F32, n_rot, 1, n);
    units->data = p->units;
    p->angles = rotated(p, units, r);
    p->rope = r;
}

static pith_value *rope(pith_plan *p, pith_value *x, uint32_t d, const pith_rope *r) {
    if (!has_room(p)) return NULL;
    if (p->shape.cls == PITH_CLASS_DECODE) make_angles(p, r);
    struct ggml_tensor *t = T(x);
    struct ggml_tensor *heads = ggml_reshape_3d(p->ctx, t, d, t->ne[0] / d, t->ne[1]);
    return V(ggml_reshape_2d(p->ctx, rotated(p, heads, r), t->ne[0], t->ne[1]));
}

// A product of decode rows adds its rows to the residual stream itself.
static pith_value *add(pith_plan *p, pith_value *a, pith_value *b) {
    if (!has_room(p)) return NULL;
    const bool of_product = p->product && T(b)->view_src == p->product && p->product_node->n_joint == 1;
    if (!of_product || p->product->src[SRC_RESIDUAL]) return V(ggml_add(p->ctx, T(a), T(b)));
    p->product->src[SRC_RESIDUAL] = T(a);
    p->product_of = NULL; // nothing joins it any more
    return b;
}

static pith_value *swiglu(pith_plan *p, pith_value *gate, pith_value *up) {
    return has_room(p) ? V(ggml_swiglu_split(p->ctx, T(gate), T(up))) : NULL;
}

static pith_value *pick_out(pith_plan *p, pith_value *x) {
    if (!has_room(p)) return NULL;
    if (p->shape.n_out == p->shape.n_tokens) return x;
    return V(ggml_get_rows(p->ctx, T(x), p->out));
}

// What `t`, recorded as heads that were rotated and normed, was made from: a decode step's attention does both itself,
// so neither becomes a node of the graph.
static struct ggml_tensor *unmade(struct ggml_tensor *t, const float **norm, float *eps) {
    if (t->op == GGML_OP_RESHAPE && t->src[0]->op == GGML_OP_ROPE) t = t->src[0]->src[0]->src[0];
    if (t->op != GGML_OP_RESHAPE || t->src[0]->op != GGML_OP_MUL || t->src[0]->src[1]->type != GGML_TYPE_F32) return t;
    const struct ggml_tensor *product = t->src[0], *normed = product->src[0];
    *norm = product->src[1]->data;
    memcpy(eps, normed->op_params, sizeof *eps);
    return normed->src[0]->src[0];
}

static struct ggml_tensor *attend_decode(pith_plan *p, pith_node *node, struct ggml_tensor *q, struct ggml_tensor *k,
                                         struct ggml_tensor *v) {
    struct ggml_tensor *from[4] = {unmade(q, &node->q_norm, &node->eps), unmade(k, &node->k_norm, &node->eps), v,
                                   p->angles};
    if (p->rope) node->n_rot = p->rope->n_rot, node->neox = p->rope->neox;
    p->unlinked[1] = node;
    return ggml_custom_4d(p->ctx, GGML_TYPE_F32, q->ne[0], q->ne[1], 1, 1, from, p->angles ? 4 : 3, pith_node_decode,
                          GGML_N_TASKS_MAX, node);
}

static struct ggml_tensor *attend_prefill(pith_plan *p, pith_node *node, struct ggml_tensor *q, struct ggml_tensor *k,
                                          struct ggml_tensor *v) {
    pith_node *append = new_node(p);
    if (!append) return NULL;
    append->layer = node->layer;
    struct ggml_tensor *rows[] = {q, k, v};
    struct ggml_tensor *written =
        ggml_custom_4d(p->ctx, GGML_TYPE_F32, 1, 1, 1, 1, rows, 3, pith_node_append, GGML_N_TASKS_MAX, append);
    struct ggml_tensor *in[] = {written, q}; // `written` is there for the order
    return ggml_custom_4d(p->ctx, GGML_TYPE_F32, q->ne[0], q->ne[1], 1, 1, in, 2, pith_node_prefill, GGML_N_TASKS_MAX,
                          node);
}

static pith_value *attend(pith_plan *p, uint32_t layer, pith_value *q, pith_value *k, pith_value *v) {
    if (!has_room(p)) return NULL;
    pith_node *node = new_node(p);
    if (!node) return NULL;
    node->layer = layer;
    struct ggml_tensor *out = p->shape.cls == PITH_CLASS_DECODE ? attend_decode(p, node, T(q), T(k), T(v))
                                                                : attend_prefill(p, node, T(q), T(k), T(v));
    if (out) ggml_build_forward_expand(p->graph, out); // also when nothing reads it: the rows must be written
    return V(out);
}

// ------------------------------------------------------------------------------------------------------ replay

static bool plan_is_stale(const pith_plan *p) { return p->generation != p->cpu->generation; }

static void replay(pith_plan *p, const pith_step *step) {
    pith_cpu *cpu = p->cpu;
    const size_t n = p->shape.n_tokens;
    memcpy(p->ids->data, step->ids, n * sizeof(int32_t));
    memcpy(p->pos->data, step->pos, n * sizeof(int32_t));
    if (p->shape.cls == PITH_CLASS_PREFILL) *(int32_t *)p->out->data = (int32_t)n - 1;
    p->step = step;
    for (uint32_t i = 0; i < p->n_nodes; i++) atomic_store_explicit(&p->nodes[i].next, 0, memory_order_relaxed);
    pith_cpu_compute(cpu, p->graph, p->shape.cls == PITH_CLASS_DECODE);
    p->step = NULL;
}

void pith_cpu_table_plan(pith_ops *ops) {
    ops->plan_begin = plan_begin;
    ops->plan_end = plan_end;
    ops->plan_free = pith_cpu_plan_free;
    ops->plan_is_stale = plan_is_stale;
    ops->embed = embed;
    ops->rms_norm = rms_norm;
    ops->product = product;
    ops->head_norm = head_norm;
    ops->rope = rope;
    ops->add = add;
    ops->swiglu = swiglu;
    ops->pick_out = pick_out;
    ops->logits = logits;
    ops->attend = attend;
    ops->replay = replay;
}
