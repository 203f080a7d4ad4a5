// The policies, one file each. A new one is declared here and listed in registry.c; nothing else knows its name.
#ifndef PITH_POLICY_REGISTRY_H
#define PITH_POLICY_REGISTRY_H

#include "policy/policy.h"

extern const pith_policy pith_policy_full;   // full.c
extern const pith_policy pith_policy_rpc;    // rpc.c
extern const pith_policy pith_policy_window; // window.c
extern const pith_policy pith_policy_random; // random.c

#endif
