// A small cache and a stand-in for the engine, in which a policy drives a backend's event operations token by token
// over generated queries and keys. Helper of test_rpc_oracle.c and cuda/test_rpc_device.c.
//
// Kinds of data:
//   EXACT    keys are codes of +-512 and queries are so large that a query's softmax weight is spread evenly over the
//            2^j candidates that match it best, and 0 elsewhere. All sums are exact, most scores tie, and the kept sets
//            follow by rule, in f32 as in bf16.
//   RANDOM   multiples of 1/256 in [-2, 2)
//   GRID     multiples of 1/8 in [-2, 2): products are exact before anything is rounded to bf16
//   BY_HAND  key of generated token i is the i-th unit vector; the query of token 5, 6, 9, 10 asks for 1, 3, 5, 8
//
// f16 has all of these numbers: a cache of that type, and queries that become it, lose nothing.
#ifndef RPC_RIG_H
#define RPC_RIG_H

#include <stdio.h>

#include "policy/policy.h"

enum { RIG_LAYERS = 2, RIG_TURNS = 5, RIG_MOST_LANES = 16, RIG_MOST_TOKENS = 640 }; // lanes of a layer

typedef enum rig_kind { EXACT, RANDOM, GRID, BY_HAND } rig_kind;

typedef struct rig_case {
    const char *spec;
    rig_kind kind;
    uint32_t n_heads, n_kv_heads, head_dim, elt_bytes;
    uint32_t turns[RIG_TURNS][2]; // tokens of prompt and generated; up to a prompt of none
    uint64_t seed;
} rig_case;

// Do the kept sets stay what they are where keys and queries are rounded to bf16?
bool rig_fits_bf16(const rig_case *);

// What a side makes room for.
typedef struct rig_room {
    pith_geometry geo;
    uint32_t n_pages; // of the pool: lane i has the ids from i * n_pages / n_lanes on, in this order
    uint32_t n_candidates, n_queries, window_cap;
} rig_room;

// Whose operations run: one at a time, from open to close.
typedef struct rig_side {
    uint32_t n_layers; // that an event handles at once
    pith_backend *(*open)(const rig_room *);
    // The rig's pages are in the host's memory and as the side lays them out.
    void (*write_row)(const pith_pages *, const pith_lane *, uint32_t row, const float *key, int32_t pos);
    // Before the policy selects: has the side what is in the event's group? NULL: it works on the rig's own memory.
    void (*enter)(pith_event *);
    // Moves the surviving rows down, in the rig's pages.
    void (*compact)(const pith_event *);
    void (*close)(void);
} rig_side;

extern const rig_side rig_cpu; // the CPU's operations, on one thread

// Plays the case from its first token to its last. Each compression adds its lines to `trace`, in the form of
// `pith run --trace` with `seq` as the sequence. `data`, unless NULL, gets the queries (RIG_LAYERS, N, H, d) and the
// keys (RIG_LAYERS, N, G, d) of all N tokens as floats; *n_q and *n_k are their numbers.
void rig_play(const rig_case *, const rig_side *, uint32_t seq, FILE *trace, FILE *data, size_t *n_q, size_t *n_k);

#endif
