#include "policy/registry.h"

const pith_policy *const pith_policies[] = {
    &pith_policy_full,
    &pith_policy_rpc,
    &pith_policy_window,
    &pith_policy_random,
    NULL,
};
