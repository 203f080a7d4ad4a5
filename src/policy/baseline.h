// What the baselines have in common: everything but which rows survive. Blind to queries and keys, they keep as many
// rows as RPC does with the same p, r and c, or as many as a budget says.
//
// Options: p, r as in rpc, and either c (a ratio, as in rpc) or budget (B: so many generated rows are left by every
// compression, the last r included). Defaults: r=32; p=1024 and c=4 as in rpc; with a budget p=128, since the rows
// between two compressions come on top of it, and 128 is the usual interval of methods with a fixed budget (R-KV,
// SnapKV while decoding, TriAttention).
#ifndef PITH_POLICY_BASELINE_H
#define PITH_POLICY_BASELINE_H

#include "policy/policy.h"

typedef struct pith_baseline {
    uint64_t ratio;  // c in millionths, 0 with a budget
    uint32_t budget; // B, 0 with a ratio
    uint32_t period; // P
    uint32_t recent; // R
    uint32_t seed;   // of policies that draw, else 0
} pith_baseline;

pith_baseline pith_baseline_params(const pith_params *);
void pith_baseline_store(pith_params *, const pith_baseline *);

// For the functions of pith_policy that need the policy's name. `keys` are all keys that it has.
pith_status pith_baseline_set(const char *policy, const char *keys, pith_params *, const char *key, const char *value,
                              pith_error *);
pith_status pith_baseline_check(const char *policy, pith_params *, pith_error *);

// Finds the candidates, says in scores.n_keep how many survive, and returns the number of compressions done before this one.
uint64_t pith_baseline_begin(const pith_params *, const pith_policy_state *, pith_event *);

// Entries of pith_policy as they are.
void pith_baseline_defaults(pith_params *);
void pith_baseline_print(const pith_params *, char *out, size_t capacity);
uint32_t pith_baseline_window(const pith_params *);
int32_t pith_baseline_observe_prompt(const pith_params *, pith_policy_state *, uint32_t i, uint32_t n);
int32_t pith_baseline_observe(const pith_params *, pith_policy_state *);
void pith_baseline_advance(const pith_params *, pith_policy_state *);
bool pith_baseline_due(const pith_params *, const pith_policy_state *);
void pith_baseline_settle(const pith_params *, pith_policy_state *);
uint32_t pith_baseline_peak_rows(const pith_params *, const pith_policy_state *, uint32_t n_rows, uint32_t n_prompt,
                                 uint32_t max_new);
uint32_t pith_baseline_max_candidates(const pith_params *, const pith_policy_state *, uint32_t max_new);
uint32_t pith_baseline_max_queries(const pith_params *);

#endif
