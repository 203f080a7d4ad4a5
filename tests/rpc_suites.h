// The cases in which RPC's kept sets are compared with an oracle's: all settings, on data that leaves nothing to
// rounding and on data that does. Helper of test_rpc_oracle.c and cuda/test_rpc_device.c.
#ifndef RPC_SUITES_H
#define RPC_SUITES_H

#include "rpc_cases.h"
#include "rpc_rig.h"

typedef enum rpc_suite_id {
    RPC_BY_HAND,
    RPC_EXACT,
    RPC_EXACT_COMPAT,
    RPC_EVERY_SETTING,
    RPC_RANDOM,
    RPC_GRID_COMPAT
} rpc_suite_id;

typedef struct rpc_suite {
    const char *name;
    rig_case cases[48];
    uint32_t n;
} rpc_suite;

rpc_suite rpc_suite_of(rpc_suite_id);
bool rpc_suite_is_exact(rpc_suite_id); // nothing is left to rounding: kept sets are the same on every backend

// Plays the case on the side and adds it to those that the oracle is asked about.
void rpc_suite_play(rpc_cases *, const rig_case *, const rig_side *);

#endif
