#include "reference.h"

#include "base/half.h"
#include "ggml.h"
#include "t.h"

void reference_open(reference *r, const pith_model *model, uint32_t capacity, reference_rounding rounding) {
    const pith_config *c = pith_model_config(model);
    assert_true(c->rope.ext_factor == 0 && c->rope.attn_factor == 1); // no YaRN here
    const size_t cells = (size_t)c->n_layers * capacity, q_dim = (size_t)c->n_heads * c->head_dim,
                 kv_dim = (size_t)c->n_kv_heads * c->head_dim;
    *r = (reference){.config = c, .weights = pith_model_weights(model), .rounding = rounding, .capacity = capacity};
    r->matrices = t_new(((size_t)c->n_layers * 16 + 8) * sizeof *r->matrices);
    r->q = t_new(cells * q_dim * sizeof(double));
    r->k = t_new(cells * kv_dim * sizeof(double));
    r->v = t_new(cells * kv_dim * sizeof(double));
    r->hidden = t_new(cells * c->n_kv_heads * sizeof(bool));
    r->logits = t_new(c->n_vocab * sizeof(double));
    const size_t step = 3 * (size_t)c->d_model + q_dim + 2 * (size_t)c->d_ff + capacity; // what one works with
    r->work = t_new((step + c->d_model + q_dim + c->d_ff) * sizeof(double));
    r->blocks = r->work + step;
}

void reference_close(reference *r) {
    for (uint32_t i = 0; i < r->n_matrices; i++) free(r->matrices[i].values);
    free(r->matrices);
    free(r->q), free(r->k), free(r->v), free(r->hidden), free(r->logits), free(r->work);
}

// ------------------------------------------------------------------------------------------------- arithmetic

static double rounded(reference_round to, double x) {
    if (to == REF_F16) return (double)pith_f16_to_f32(pith_f32_to_f16((float)x));
    return to == REF_BF16 ? (double)pith_bf16_round((float)x) : x;
}

static bool is_packed(int type) { // on a GPU
    return type == GGML_TYPE_Q8_0 || type == GGML_TYPE_Q4_0 || type == GGML_TYPE_Q4_K || type == GGML_TYPE_Q6_K;
}

static bool is_foreign(int type) { return type != GGML_TYPE_F16 && type != GGML_TYPE_BF16 && !is_packed(type); }

// y (n) = x (n) in blocks of 32: integers of at most 127 times one number. `n` is a multiple of 32.
static void round_blocks(const double *x, int64_t n, double *y) {
    for (int64_t from = 0; from < n; from += 32) {
        double largest = 0x1p-100;
        for (int64_t i = from; i < from + 32; i++) largest = fmax(largest, fabs(x[i]));
        const float scale = (float)largest * (1 / 127.f), inverse = 1 / scale;
        for (int64_t i = from; i < from + 32; i++) y[i] = (double)scale * nearbyint(x[i] * (double)inverse);
    }
}

static const float *values_of(reference *r, const pith_weight *w) {
    for (uint32_t i = 0; i < r->n_matrices; i++)
        if (r->matrices[i].of == w) return r->matrices[i].values;
    const int64_t n_rows = w->ne[1] * w->ne[2] * w->ne[3];
    const size_t n = (size_t)(w->ne[0] * n_rows);
    float *values = t_new(n * sizeof *values);
    for (int64_t row = 0; row < n_rows; row++) {
        const void *from = (const uint8_t *)w->data + (size_t)row * (w->bytes / (size_t)n_rows);
        if (w->type == GGML_TYPE_F32) memcpy(values + row * w->ne[0], from, (size_t)w->ne[0] * sizeof *values);
        else ggml_get_type_traits((enum ggml_type)w->type)->to_float(from, values + row * w->ne[0], w->ne[0]);
    }
    if (r->rounding.foreign && n_rows > 1 && is_foreign(w->type) && w != r->weights->embed)
        for (size_t i = 0; i < n; i++) values[i] = pith_bf16_round(values[i]);
    r->matrices[r->n_matrices++] = (reference_matrix){w, values};
    return values;
}

// y (M) = W (M, K) x (K) + bias (M)
static void product(reference *r, const pith_weight *w, const pith_weight *bias, const double *x, double *y) {
    const float *row = values_of(r, w), *b = bias ? values_of(r, bias) : NULL;
    if (r->rounding.blocks && is_packed(w->type)) round_blocks(x, w->ne[0], r->blocks), x = r->blocks;
    for (int64_t m = 0; m < w->ne[1]; m++, row += w->ne[0]) {
        double sum = b ? (double)b[m] : 0;
        for (int64_t i = 0; i < w->ne[0]; i++) sum += (double)row[i] * x[i];
        y[m] = sum;
    }
}

static void round_activations(const reference *r, double *x, uint32_t n) {
    for (uint32_t i = 0; i < n; i++) x[i] = rounded(r->rounding.activations, x[i]);
}

// y (n) = x (n) / sqrt(mean x^2 + eps) * w (n); y may be x
static void rms_norm(reference *r, const pith_weight *w, const double *x, uint32_t n, double eps, double *y) {
    const float *scale = values_of(r, w);
    double squares = 0;
    for (uint32_t i = 0; i < n; i++) squares += x[i] * x[i];
    const double root = sqrt(squares / n + eps);
    for (uint32_t i = 0; i < n; i++) y[i] = x[i] / root * (double)scale[i];
}

// Rotates pair i of a head by pos * base^(-2i/n_rot) (arXiv 2104.09864, equation 15), divided by the file's factor.
// Qwen pairs the halves of a head; the conversion of Llama models to GGUF makes the pairs adjacent.
static void rotate(reference *r, const pith_rope *rope, uint32_t pos, double *x) {
    const float *factors = rope->factors ? values_of(r, rope->factors) : NULL;
    for (uint32_t i = 0; i < rope->n_rot / 2; i++) {
        const double frequency = pow((double)rope->base, -2.0 * i / rope->n_rot) * (double)rope->freq_scale;
        const double angle = pos * frequency / (factors ? (double)factors[i] : 1);
        double *a = rope->neox ? &x[i] : &x[2 * i], *b = rope->neox ? &x[i + rope->n_rot / 2] : &x[2 * i + 1];
        const double turned = *a * cos(angle) - *b * sin(angle);
        *b = *a * sin(angle) + *b * cos(angle);
        *a = turned;
    }
}

// ------------------------------------------------------------------------------------------------------- step

// out (d) = softmax(q.k / sqrt(d)) V over the visible positions up to `pos`. scores: (pos + 1) of scratch
static void attend(const reference *r, uint32_t layer, uint32_t head, uint32_t pos, double *scores, double *out) {
    const uint32_t d = r->config->head_dim, lane = head / (r->config->n_heads / r->config->n_kv_heads);
    const bool *hidden = r->hidden + ((size_t)layer * r->config->n_kv_heads + lane) * r->capacity;
    const double *q = reference_query(r, layer, pos) + (size_t)head * d;
    double top = -INFINITY, total = 0;
    for (uint32_t p = 0; p <= pos; p++) {
        const double *k = reference_key(r, layer, p, lane);
        double dot = 0;
        for (uint32_t i = 0; i < d; i++) dot += q[i] * k[i];
        scores[p] = hidden[p] ? -INFINITY : dot / sqrt(d);
        if (scores[p] > top) top = scores[p];
    }
    for (uint32_t p = 0; p <= pos; p++) total += scores[p] = exp(scores[p] - top);
    for (uint32_t i = 0; i < d; i++) out[i] = 0;
    for (uint32_t p = 0; p <= pos; p++) {
        const double *v = reference_value(r, layer, p, lane);
        for (uint32_t i = 0; i < d; i++) out[i] += scores[p] / total * v[i];
    }
}

// Queries, keys and values of the token at `pos` from its normed hidden state h (D).
static void observe(reference *r, uint32_t layer, uint32_t pos, const double *h) {
    const pith_config *c = r->config;
    const pith_layer_weights *w = &r->weights->layers[layer];
    double *q = reference_query(r, layer, pos);
    double *k = reference_key(r, layer, pos, 0), *v = reference_value(r, layer, pos, 0);
    product(r, w->wq, w->bq, h, q);
    product(r, w->wk, w->bk, h, k);
    product(r, w->wv, w->bv, h, v);
    for (uint32_t head = 0; head < c->n_heads + c->n_kv_heads; head++) {
        const bool is_query = head < c->n_heads;
        double *x = is_query ? q + (size_t)head * c->head_dim : k + (size_t)(head - c->n_heads) * c->head_dim;
        const pith_weight *norm = is_query ? w->q_norm : w->k_norm;
        if (norm) rms_norm(r, norm, x, c->head_dim, (double)c->rms_eps, x);
        rotate(r, &c->rope, pos, x);
    }
    for (uint32_t i = 0; i < c->n_kv_heads * c->head_dim; i++) {
        k[i] = rounded(r->rounding.cache, k[i]);
        v[i] = rounded(r->rounding.cache, v[i]);
    }
    for (uint32_t i = 0; r->rounding.activations != REF_EXACT && i < c->n_heads * c->head_dim; i++)
        q[i] = rounded(r->rounding.cache, q[i]);
}

void reference_step(reference *r, pith_token token) {
    const pith_config *c = r->config;
    const pith_weights *w = r->weights;
    const uint32_t D = c->d_model, pos = r->n++;
    assert_true(r->n <= r->capacity && token >= 0 && (uint32_t)token < c->n_vocab);
    double *x = r->work, *h = x + D, *change = h + D, *a = change + D; // (D), (D), (D), (H, d)
    double *gate = a + (size_t)c->n_heads * c->head_dim, *up = gate + c->d_ff, *scores = up + c->d_ff;

    for (uint32_t i = 0; i < D; i++) x[i] = (double)values_of(r, w->embed)[(size_t)token * D + i];
    for (uint32_t l = 0; l < c->n_layers; l++) {
        const pith_layer_weights *layer = &w->layers[l];
        rms_norm(r, layer->attn_norm, x, D, (double)c->rms_eps, h);
        round_activations(r, h, D);
        observe(r, l, pos, h);
        for (uint32_t head = 0; head < c->n_heads; head++)
            attend(r, l, head, pos, scores, a + (size_t)head * c->head_dim);
        round_activations(r, a, c->n_heads * c->head_dim);
        product(r, layer->wo, layer->bo, a, change);
        for (uint32_t i = 0; i < D; i++) x[i] += change[i];

        rms_norm(r, layer->ffn_norm, x, D, (double)c->rms_eps, h);
        round_activations(r, h, D);
        product(r, layer->gate, layer->bgate, h, gate);
        product(r, layer->up, layer->bup, h, up);
        for (uint32_t i = 0; i < c->d_ff; i++) gate[i] *= up[i] / (1 + exp(-gate[i]));
        round_activations(r, gate, c->d_ff);
        product(r, layer->down, layer->bdown, gate, change);
        for (uint32_t i = 0; i < D; i++) x[i] += change[i];
    }
    rms_norm(r, w->norm, x, D, (double)c->rms_eps, h);
    round_activations(r, h, D);
    product(r, w->head, NULL, h, r->logits);
}

void reference_keep(reference *r, uint32_t layer, int32_t head, const int32_t *kept, uint32_t n) {
    const uint32_t n_lanes = r->config->n_kv_heads;
    for (uint32_t g = head < 0 ? 0 : (uint32_t)head; g < (head < 0 ? n_lanes : (uint32_t)head + 1); g++) {
        bool *hidden = r->hidden + ((size_t)layer * n_lanes + g) * r->capacity;
        uint32_t i = 0;
        for (uint32_t pos = 0; pos < r->n; pos++) {
            const bool is_kept = i < n && kept[i] == (int32_t)pos;
            assert_false(is_kept && hidden[pos]);
            hidden[pos] = !is_kept;
            i += is_kept;
        }
        assert_int_equal(i, n); // ascending, unique, none from the future
    }
}
