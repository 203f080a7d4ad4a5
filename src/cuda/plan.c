// Recording.
#include "cuda/plan.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "base/status.h"

enum { VALUES_PER_LAYER = 24, LAUNCHES_PER_LAYER = 16, FIXED = 16 };

// ------------------------------------------------------------------------------------------------- begin, end

static void plan_free(pith_plan *p) {
    if (!p) return;
    const pith_allocator *a = p->cuda->alloc;
    pith_cuda_forget(p);
    pith_delete(a, p->values, p->cap_values, sizeof *p->values);
    pith_delete(a, p->launches, p->cap_launches, sizeof *p->launches);
    pith_delete(a, p, 1, sizeof *p);
}

// Products of many rows have an algorithm for each number of rows: only some numbers, and rows that nobody reads.
static uint32_t padded(const pith_shape *shape) {
    const uint32_t n = shape->n_tokens;
    if (shape->cls == PITH_CLASS_DECODE || n <= PITH_CUDA_PRODUCT_MAX_TOKENS) return n;
    if (n <= 256) return (n + 63) / 64 * 64;
    uint32_t size = 512;
    while (size < n) size *= 2;
    return size;
}

static pith_status plan_begin(pith_backend *backend, const pith_geometry *geo, const pith_shape *shape, pith_plan **out,
                              pith_error *err) {
    pith_cuda *cuda = pith_cuda_enter(backend);
    pith_plan *p = *out = pith_new(cuda->alloc, 1, sizeof *p);
    if (!p) return pith_fail(err, PITH_E_MEMORY, "no memory for a plan");
    p->cuda = cuda, p->shape = *shape;
    p->n_padded = padded(shape);
    p->cap_values = geo->n_layers * VALUES_PER_LAYER + FIXED;
    p->cap_launches = geo->n_layers * LAUNCHES_PER_LAYER + FIXED;
    p->values = pith_new(cuda->alloc, p->cap_values, sizeof *p->values);
    p->launches = pith_new(cuda->alloc, p->cap_launches, sizeof *p->launches);
    if (p->values && p->launches) return PITH_OK;
    plan_free(p);
    *out = NULL;
    return pith_fail(err, PITH_E_MEMORY, "no memory for a plan of %u tokens", shape->n_tokens);
}

// Something that recording met. The first one counts.
__attribute__((format(printf, 3, 4))) static void *fail(pith_plan *p, pith_status status, const char *fmt, ...) {
    if (p->failed) return NULL;
    char line[160];
    va_list args;
    va_start(args, fmt);
    vsnprintf(line, sizeof line, fmt, args);
    va_end(args);
    pith_fail(&p->error, status, "%s", line);
    p->failed = true;
    return NULL;
}

static pith_value *new_value(pith_plan *p, pith_value_kind kind, uint32_t width, uint32_t n) {
    if (p->failed) return NULL;
    if (p->n_values == p->cap_values) return fail(p, PITH_E_STATE, "the plan has no room for a value");
    pith_value *v = &p->values[p->n_values++];
    *v = (pith_value){.kind = kind, .width = width, .n = n, .whole = v};
    return v;
}

static pith_launch *new_launch(pith_plan *p, pith_launch_kind kind) {
    if (p->failed) return NULL;
    if (p->n_launches == p->cap_launches) return fail(p, PITH_E_STATE, "the plan has no room for a launch");
    pith_launch *l = &p->launches[p->n_launches++];
    *l = (pith_launch){.kind = kind};
    return l;
}

static pith_status plan_end(pith_plan *p, pith_error *err) {
    pith_status status = PITH_OK;
    if (p->failed) {
        if (err) *err = p->error;
        status = p->error.status;
    } else {
        status = pith_cuda_prepare(p, err);
    }
    pith_cuda_free_staging(p->cuda);
    if (status != PITH_OK) plan_free(p);
    return status;
}

static bool plan_is_stale(const pith_plan *p) { return p->generation != p->cuda->generation; }

// --------------------------------------------------------------------------------------------- what is only noted

static pith_value *embed(pith_plan *p, const pith_weight *table) {
    if (p->failed) return NULL;
    p->table = table, p->d_model = (uint32_t)table->ne[0];
    p->rows = pith_cuda_load_embedding(p->cuda, table, &p->error);
    if (!p->rows) return p->failed = true, NULL;
    return new_value(p, VALUE_RESIDUAL, p->d_model, p->shape.n_tokens);
}

static pith_value *note(pith_plan *p, pith_value_kind kind, pith_value *in, const pith_weight *w, uint32_t width) {
    pith_value *v = in ? new_value(p, kind, width, in->n) : NULL;
    if (v) v->in = in, v->w = w, v->row0 = in->row0;
    return v;
}

static pith_value *rms_norm(pith_plan *p, pith_value *x, const pith_weight *w, float eps) {
    pith_value *v = note(p, VALUE_NORM, x, w, x ? x->width : 0);
    if (v) v->eps = eps;
    return v;
}

static pith_value *product(pith_plan *p, const pith_weight *w, pith_value *x, const pith_weight *bias) {
    pith_value *v = note(p, VALUE_PRODUCT, x, w, (uint32_t)w->ne[1]);
    if (v) v->bias = bias;
    return v;
}

static pith_value *head_norm(pith_plan *p, pith_value *x, uint32_t d, const pith_weight *w, float eps) {
    (void)d;
    pith_value *v = note(p, VALUE_HEAD_NORM, x, w, x ? x->width : 0);
    if (v) v->eps = eps;
    return v;
}

static pith_value *rope(pith_plan *p, pith_value *x, uint32_t d, const pith_rope *r) {
    (void)d;
    pith_value *v = note(p, VALUE_ROPE, x, NULL, x ? x->width : 0);
    if (v) v->rope = p->rope = r;
    return v;
}

static pith_value *swiglu(pith_plan *p, pith_value *gate, pith_value *up) {
    pith_value *v = note(p, VALUE_SWIGLU, gate, NULL, gate ? gate->width : 0);
    if (v) v->in2 = up;
    return v;
}

// The last token's rows, without a copy.
static pith_value *pick_out(pith_plan *p, pith_value *x) {
    if (!x || p->shape.n_out == x->n) return x;
    pith_value *v = new_value(p, x->kind, x->width, p->shape.n_out);
    if (v) v->row0 = x->row0 + x->n - p->shape.n_out, v->whole = x;
    return v;
}

// ------------------------------------------------------------------------------------------------- what is computed

static const float *vector(pith_plan *p, const pith_weight *w) {
    if (!w || p->failed) return NULL;
    const float *data = pith_cuda_load_vector(p->cuda, w, &p->error);
    if (!data) p->failed = true;
    return data;
}

static const pith_device_weight *matrix(pith_plan *p, const pith_weight *w, const pith_weight *pair, bool halves) {
    if (p->failed) return NULL;
    const pith_device_weight *d = pith_cuda_load_matrix(p->cuda, w, pair, halves, &p->error);
    if (!d) p->failed = true;
    return d;
}

static void make_norm(pith_plan *p, pith_value *v) {
    pith_launch *l = v->made ? NULL : new_launch(p, LAUNCH_NORM);
    if (!l) return;
    l->in = v->in, l->out = v;
    l->norm = vector(p, v->w), l->eps = v->eps;
    l->n_parts = p->pending, p->pending = 0;
    v->made = true;
}

static bool all_f16(const pith_value *const *products, uint32_t n) {
    for (uint32_t i = 0; i < n; i++)
        if (products[i]->w->type != PITH_TENSOR_F16) return false;
    return true;
}

static void make_swiglu(pith_plan *, pith_value *);

// x of a product, in memory, in the type that its readers want: `halves` when all of them have F16 weights.
static void make_input(pith_plan *p, pith_value *x, bool halves) {
    if (p->failed) return;
    x->whole->halves = halves;
    if (x->kind == VALUE_NORM) make_norm(p, x);
    else if (x->kind == VALUE_SWIGLU) make_swiglu(p, x);
    else if (x->kind != VALUE_ATTENTION) fail(p, PITH_E_STATE, "the plan multiplies what is not in memory");
}

// Products of one x into columns of a place, as few launches as the matrices have types: they begin at the launch that
// is returned, NULL when something failed.
static pith_launch *launch_products(pith_plan *p, const pith_value *const *products, const uint32_t *columns,
                                    uint32_t n, bool halves, pith_place y, uint32_t y_stride) {
    pith_launch *first = NULL, *l = NULL;
    for (uint32_t i = 0; i < n; i++) {
        const pith_device_weight *w = matrix(p, products[i]->w, NULL, halves);
        if (!w) return NULL;
        if (!l || l->w[0]->type != w->type) l = new_launch(p, LAUNCH_PRODUCT);
        if (!l) return NULL;
        if (!first) first = l;
        l->in = products[i]->in;
        l->to = PITH_CUDA_OUT_F32, l->y = y, l->y_stride = y_stride;
        l->w[l->n_matrices] = w, l->bias[l->n_matrices] = vector(p, products[i]->bias);
        l->y_column[l->n_matrices++] = columns[i];
    }
    return first;
}

// The result in parts, where it is not a product of many rows.
static void cut(pith_plan *p, pith_launch *l) {
    l->n_parts = 1;
    if (!pith_cuda_is_many(p, l->in)) {
        pith_cuda_product of = {.type = l->w[0]->type, .out = PITH_CUDA_OUT_PARTS, .k = l->w[0]->k};
        for (of.n_matrices = 0; of.n_matrices < l->n_matrices; of.n_matrices++)
            of.matrix[of.n_matrices].m = l->w[of.n_matrices]->m;
        l->to = PITH_CUDA_OUT_PARTS, l->n_parts = pith_cuda_product_parts(&of);
    }
    if (l->n_parts > p->most_parts) p->most_parts = l->n_parts;
}

static void widen(pith_plan *p, uint32_t columns) {
    if (p->d_wide < columns) p->d_wide = columns;
}

// silu(gate) * up: inside the launch that multiplies both, where the weights allow.
static void make_swiglu(pith_plan *p, pith_value *v) {
    if (v->made || p->failed) return;
    v->made = true;
    const pith_value *products[2] = {v->in, v->in2};
    const bool halves = all_f16(products, 2), biased = v->in->bias || v->in2->bias;
    make_input(p, v->in->in, halves);
    p->d_ff = v->width;
    const bool pair = !biased && pith_cuda_pairs(v->in->w, v->in2->w);
    const pith_device_weight *gate = matrix(p, v->in->w, pair ? v->in2->w : NULL, halves);
    const pith_device_weight *up = pair ? NULL : matrix(p, v->in2->w, NULL, halves);
    if (p->failed) return;

    const bool one_launch = !pith_cuda_is_many(p, v) && v->whole->halves == halves &&
                            (pair || (gate->type == up->type && !pith_quant_layout_of(gate->type).block));
    const uint32_t f = v->width;
    if (one_launch || pair) {
        pith_launch *l = new_launch(p, LAUNCH_PRODUCT);
        if (!l) return;
        l->in = v->in->in, l->out = v;
        l->w[0] = gate, l->w[1] = up, l->n_matrices = pair ? 1 : 2;
        l->bias[0] = vector(p, v->in->bias), l->bias[1] = vector(p, v->in2->bias);
        l->to = one_launch ? PITH_CUDA_OUT_SWIGLU : PITH_CUDA_OUT_F32;
        l->y = one_launch ? PLACE_SWIGLU : PLACE_WIDE;
        l->y_stride = one_launch ? f : (f + PITH_SLAB / 2 - 1) / (PITH_SLAB / 2) * PITH_SLAB;
        if (one_launch) return;
        widen(p, l->y_stride);
    } else {
        const uint32_t columns[2] = {0, f};
        widen(p, 2 * f);
        launch_products(p, products, columns, 2, halves, PLACE_WIDE, 2 * f);
    }
    pith_launch *l = new_launch(p, LAUNCH_SWIGLU);
    if (!l) return;
    l->out = v, l->pair = pair, l->up = pair ? PITH_SLAB / 2 : f;
    l->y_stride = pair ? (f + PITH_SLAB / 2 - 1) / (PITH_SLAB / 2) * PITH_SLAB : 2 * f;
}

// a is a residual, b a product: y += x W^T in a's memory; of few rows the norm behind it adds them.
static pith_value *add(pith_plan *p, pith_value *a, pith_value *b) {
    if (!a || !b || p->failed) return NULL;
    if (a->kind != VALUE_RESIDUAL || b->kind != VALUE_PRODUCT || a->n != b->n)
        return fail(p, PITH_E_STATE, "the plan adds what is no product to what is no residual");
    const pith_value *products[1] = {b};
    const bool halves = all_f16(products, 1);
    make_input(p, b->in, halves); // and with it the norm that adds what is pending
    if (p->pending) return fail(p, PITH_E_STATE, "the plan adds to a residual twice without a norm between");
    const pith_device_weight *w = matrix(p, b->w, NULL, halves);
    pith_launch *l = new_launch(p, LAUNCH_PRODUCT);
    if (!l) return NULL;
    l->in = b->in;
    l->w[0] = w, l->bias[0] = vector(p, b->bias), l->n_matrices = 1;
    l->to = PITH_CUDA_OUT_ADD, l->y = PLACE_X, l->y_stride = p->d_model;
    if (!w) return NULL;
    cut(p, l);
    if (l->to == PITH_CUDA_OUT_PARTS) l->y = PLACE_PARTS, p->pending = l->n_parts;
    return a;
}

static void logits(pith_plan *p, const pith_weight *w, pith_value *x) {
    if (!x || p->failed) return;
    const bool halves = w->type == PITH_TENSOR_F16;
    make_input(p, x, halves);
    const pith_device_weight *head = matrix(p, w, NULL, halves);
    pith_launch *l = new_launch(p, LAUNCH_PRODUCT);
    if (!l) return;
    l->in = x;
    l->w[0] = head, l->n_matrices = 1;
    l->to = PITH_CUDA_OUT_F32, l->to_logits = true, l->y_stride = (uint32_t)w->ne[1];
}

// What is between a product and attention: strips rotation and head norm, notes what they want.
static const pith_value *product_of(pith_plan *p, const pith_value *v, const pith_rope **r, const float **norm,
                                    float *eps) {
    if (v->kind == VALUE_ROPE) *r = v->rope, v = v->in;
    if (v->kind == VALUE_HEAD_NORM) *norm = vector(p, v->w), *eps = v->eps, v = v->in;
    if (v->kind != VALUE_PRODUCT) fail(p, PITH_E_STATE, "the plan attends to what is no product");
    return v;
}

static pith_value *attend(pith_plan *p, uint32_t layer, pith_value *q, pith_value *k, pith_value *v) {
    if (!q || !k || !v || p->failed) return NULL;
    const pith_rope *q_rope = NULL, *k_rope = NULL, *v_rope = NULL;
    const float *q_norm = NULL, *k_norm = NULL, *v_norm = NULL;
    float q_eps = 0, k_eps = 0, v_eps = 0;
    const pith_value *products[3] = {product_of(p, q, &q_rope, &q_norm, &q_eps),
                                     product_of(p, k, &k_rope, &k_norm, &k_eps),
                                     product_of(p, v, &v_rope, &v_norm, &v_eps)};
    if (p->failed) return NULL;
    if (q_rope != k_rope || v_rope || v_norm || (q_norm && k_norm && q_eps != k_eps))
        return fail(p, PITH_E_STATE, "the plan rotates or norms keys otherwise than queries");
    if (q_rope && q_rope->factors) p->factors = vector(p, q_rope->factors);

    const bool halves = all_f16(products, 3);
    make_input(p, products[0]->in, halves);
    const uint32_t columns[3] = {0, q->width, q->width + k->width};
    pith_launch *l = launch_products(p, products, columns, 3, halves, PLACE_QKV, q->width + k->width + v->width);
    uint32_t parts[3] = {1, 1, 1}, n_cut = 0;
    for (; l && n_cut < 3; l++) {
        cut(p, l);
        for (uint32_t j = 0; j < l->n_matrices; j++) parts[n_cut++] = l->n_parts;
    }
    pith_launch *append = new_launch(p, LAUNCH_APPEND), *read = new_launch(p, LAUNCH_ATTEND);
    pith_value *out = new_value(p, VALUE_ATTENTION, q->width, q->n);
    if (!append || !read || !out) return NULL;
    memcpy(append->qkv_parts, parts, sizeof parts);
    append->layer = read->layer = layer;
    append->rope = q_rope, append->q_norm = q_norm, append->k_norm = k_norm;
    append->norm_eps = q_norm ? q_eps : k_eps;
    read->out = out;
    return out;
}

void pith_cuda_table_plan(pith_ops *ops) {
    ops->plan_begin = plan_begin;
    ops->plan_end = plan_end;
    ops->plan_free = plan_free;
    ops->plan_is_stale = plan_is_stale;
    ops->plan_warm = pith_cuda_warm;
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
    ops->replay = pith_cuda_replay;
}
