// Strict readers for the values of policy options. Each accepts the whole value or refuses it with PITH_E_ARG and one
// line in the form "policy 'rpc': p=abc: expected ...". On failure *out is unchanged.
#ifndef PITH_POLICY_OPTION_H
#define PITH_POLICY_OPTION_H

#include "base/status.h"

// Decimal digits only: no sign, no exponent, no other base. lo <= *out <= hi.
pith_status pith_option_u32(const char *policy, const char *key, const char *value, uint32_t lo, uint32_t hi,
                            uint32_t *out, pith_error *err);

// A number with up to six decimals, in millionths, so that it is exact and prints as it was written: "2.5" is 2500000.
// lo and hi are whole.
#define PITH_OPTION_MICRO 1000000u
pith_status pith_option_micro(const char *policy, const char *key, const char *value, uint32_t lo, uint32_t hi,
                              uint64_t *out, pith_error *err);
#define PITH_OPTION_MICRO_TEXT 32u // bytes for any value, terminator included
void pith_option_micro_print(uint64_t micro, char out[PITH_OPTION_MICRO_TEXT]); // "4", "2.5": the shortest form

// One of `names` (NULL-terminated); *out is its index.
pith_status pith_option_choice(const char *policy, const char *key, const char *value, const char *const *names,
                               uint32_t *out, pith_error *err);

// The answer to a key that the policy does not have; `keys` names those it has, "" when it has none.
pith_status pith_option_unknown(const char *policy, const char *key, const char *keys, pith_error *err);

#endif
