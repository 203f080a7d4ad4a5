// Cases for tests/oracle/rpc_oracle.py: collects queries, keys and our own trace, runs the oracle on them, and compares
// its lines with ours.
#ifndef RPC_CASES_H
#define RPC_CASES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

typedef struct rpc_case {
    const char *spec;
    uint32_t n_layers, n_heads, n_kv_heads, head_dim;
    const uint32_t (*turns)[2]; // (n_turns) tokens of prompt and generated that got rows; a prompt of 0 is no turn
    uint32_t n_turns;
    bool exact, exact_dots;     // see the oracle
    size_t n_q, n_k;            // floats
} rpc_case;

typedef struct rpc_cases {
    char dir[32];
    FILE *json;
    FILE *data;    // the caller writes each case's queries (n_layers, N, H, d) and keys (n_layers, N, G, d) here, ...
    FILE *trace;   // ... its events, in the form of `pith run --trace` with its number as the sequence, here, ...
    uint32_t n;    // the number of the case at hand
    size_t offset; // floats in `data` before it
} rpc_cases;

void rpc_cases_open(rpc_cases *);
void rpc_cases_add(rpc_cases *, const rpc_case *); // ... and then says what they are

// Runs the oracle, compares line by line, prints what was compared under the name `what`, and tidies up. The oracle
// cuts a case short where the error of f32 leaves a kept set open: more than `most_open` of these fail the test.
void rpc_cases_check(rpc_cases *, const char *what, uint32_t most_open);

#endif
