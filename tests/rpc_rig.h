// A small cache and a single-threaded stand-in for the engine, in which a policy drives the CPU's event operations
// token by token over generated queries and keys. Helper of test_rpc_oracle.c.
//
// Kinds of data:
//   EXACT    keys are codes of +-1 and queries are so large that a query's softmax weight is spread evenly over the 2^j
//            candidates that match it best, and 0 elsewhere. All sums are exact, most scores tie, and the kept sets
//            follow by rule, in f32 as in bf16.
//   RANDOM   multiples of 1/256 in [-2, 2)
//   GRID     multiples of 1/8 in [-2, 2): products are exact before anything is rounded to bf16
//   BY_HAND  key of generated token i is the i-th unit vector; the query of token 5, 6, 9, 10 asks for 1, 3, 5, 8
#ifndef RPC_RIG_H
#define RPC_RIG_H

#include <stdio.h>

#include "policy/policy.h"

enum { RIG_LAYERS = 2, RIG_TURNS = 5 };

typedef enum rig_kind { EXACT, RANDOM, GRID, BY_HAND } rig_kind;

typedef struct rig_case {
    const char *spec;
    rig_kind kind;
    uint32_t n_heads, n_kv_heads, head_dim, elt_bytes;
    uint32_t turns[RIG_TURNS][2]; // tokens of prompt and generated; up to a prompt of none
    uint64_t seed;
} rig_case;

// Plays the case from its first token to its last. Each compression adds its lines to `trace`, in the form of
// `pith run --trace` with `seq` as the sequence. `data` gets the queries (RIG_LAYERS, N, H, d) and the keys
// (RIG_LAYERS, N, G, d) of all N tokens as floats; *n_q and *n_k are their numbers.
void rig_play(const rig_case *c, uint32_t seq, FILE *trace, FILE *data, size_t *n_q, size_t *n_k);

#endif
