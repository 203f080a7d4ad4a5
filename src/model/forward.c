#include "model/forward.h"

pith_status pith_forward_record(const pith_model *model, pith_backend *backend, const pith_geometry *geo,
                                const pith_shape *shape, pith_plan **out, pith_error *err) {
    const pith_config *c = pith_model_config(model);
    const pith_weights *w = pith_model_weights(model);
    const pith_ops *op = backend->ops;
    const uint32_t d = c->head_dim;

    pith_plan *plan;
    pith_status status = op->plan_begin(backend, geo, shape, &plan, err);
    if (status != PITH_OK) return *out = NULL, status;

    pith_value *x = op->embed(plan, w->embed); // (n, D), the residual stream
    for (uint32_t l = 0; l < c->n_layers; l++) {
        const pith_layer_weights *layer = &w->layers[l];

        // attention
        pith_value *h = op->rms_norm(plan, x, layer->attn_norm, c->rms_eps); // (n, D)
        pith_value *q = op->product(plan, layer->wq, h, layer->bq);          // (n, H*d)
        pith_value *k = op->product(plan, layer->wk, h, layer->bk);          // (n, G*d)
        pith_value *v = op->product(plan, layer->wv, h, layer->bv);          // (n, G*d)
        if (layer->q_norm) q = op->head_norm(plan, q, d, layer->q_norm, c->rms_eps);
        if (layer->k_norm) k = op->head_norm(plan, k, d, layer->k_norm, c->rms_eps);
        q = op->rope(plan, q, d, &c->rope);
        k = op->rope(plan, k, d, &c->rope);
        pith_value *a = op->attend(plan, l, q, k, v); // (n, H*d)
        // Rows whose logits nobody wants end in the last layer, once their keys and values are written.
        if (l + 1 == c->n_layers) {
            if (shape->n_out == 0) break;
            a = op->pick_out(plan, a);
            x = op->pick_out(plan, x);
        }
        x = op->add(plan, x, op->product(plan, layer->wo, a, layer->bo));

        // feed-forward
        h = op->rms_norm(plan, x, layer->ffn_norm, c->rms_eps);
        pith_value *gate = op->product(plan, layer->gate, h, layer->bgate); // (n, F)
        pith_value *up = op->product(plan, layer->up, h, layer->bup);       // (n, F)
        x = op->add(plan, x, op->product(plan, layer->down, op->swiglu(plan, gate, up), layer->bdown));
    }
    if (shape->n_out > 0) op->logits(plan, w->head, op->rms_norm(plan, x, w->norm, c->rms_eps));

    status = op->plan_end(plan, err);
    *out = status == PITH_OK ? plan : NULL;
    return status;
}
