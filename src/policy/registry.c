#include "policy/registry.h"

const pith_policy *const pith_policies[] = {
    &pith_policy_full,
    &pith_policy_rpc,
    NULL,
};
