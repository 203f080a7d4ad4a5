// Drawing on the server's side: for requests that change logits before the draw (penalties, bias), where the engine's
// own drawing cannot be asked, and for log-probabilities. Order and ties as in the engine: temperature, top-k, top-p,
// min-p; of equal tokens the lower id is the likelier one.
#ifndef PITH_SERVER_DRAW_H
#define PITH_SERVER_DRAW_H

#include "pith.h"

typedef struct draw_ranked {
    float w;
    uint32_t id;
} draw_ranked;

// logits: (n), read only. uniform in [0, 1). scratch: (n).
pith_token draw_token(const float *logits, uint32_t n, const pith_sampling *how, double uniform, draw_ranked *scratch);

// The k likeliest of n, best first, with their logits in w; returns how many: the smaller of k and n.
uint32_t draw_tops(const float *logits, uint32_t n, uint32_t k, draw_ranked *out);

// log of the sum of exp(logits): a token's log-probability is its logit less this.
double draw_log_total(const float *logits, uint32_t n);

#endif
