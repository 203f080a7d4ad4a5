// Policy specs. Whatever the bytes, a spec is refused with one line and nothing written, or accepted such that its
// canonical text means the same and the policy keeps what policy.h promises.
#include <stdlib.h>
#include <string.h>

#include "policy/policy.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool holds) {
    if (!holds) abort();
}

static void check_refusal(const pith_spec *spec, const pith_error *err) {
    pith_spec untouched;
    memset(&untouched, 0x5a, sizeof untouched);
    require(!memcmp(spec, &untouched, sizeof untouched));
    require(err->status == PITH_E_ARG && err->msg[0]);
    require(!strpbrk(err->msg, "\n\r"));
    for (const char *c = err->msg; *c; c++) require(*c >= ' ' && *c <= '~'); // safe to show on a terminal
}

static void check_canonical(const pith_spec *spec) {
    pith_spec again;
    require(strlen(spec->text) < PITH_SPEC_MAX);
    require(pith_spec_parse(spec->text, &again, NULL) == PITH_OK);
    require(again.policy == spec->policy && !strcmp(again.text, spec->text));
    require(!memcmp(&again.params, &spec->params, sizeof spec->params));
}

// The worst case of a turn from the state on lies between what is there and the full cache, and grows with the turn.
static void check_worst_case(const pith_spec *spec, const pith_policy_state *state, uint32_t n_rows) {
    uint32_t last = n_rows, last_candidates = 0;
    for (uint32_t max_new = 0; max_new < (1u << 21); max_new = max_new * 3 + 1) {
        const uint32_t peak = spec->policy->peak_rows(&spec->params, state, n_rows, 5, max_new);
        const uint32_t candidates = spec->policy->max_candidates(&spec->params, state, max_new);
        require(peak >= last && peak >= n_rows + 5 && peak <= n_rows + 5 + max_new);
        require(candidates >= last_candidates && candidates <= peak);
        last = peak;
        last_candidates = candidates;
    }
}

static void check_steps(const pith_spec *spec) {
    const pith_policy *p = spec->policy;
    pith_policy_state state = {0};
    const uint32_t cap = p->window(&spec->params);
    require(cap <= 4096 && p->max_queries(&spec->params) <= 4096);
    for (uint32_t i = 0; i < 5; i++) {
        const int32_t slot = p->observe_prompt(&spec->params, &state, i, 5);
        require(slot >= -1 && slot < (int32_t)cap);
    }
    uint32_t n_events = 0;
    for (uint32_t m = 0; m < 300; m++) {
        if (m % 64 == 0) check_worst_case(spec, &state, m + 5);
        const int32_t slot = p->observe(&spec->params, &state);
        require(slot >= -1 && slot < (int32_t)cap);
        p->advance(&spec->params, &state);
        if (!p->due(&spec->params, &state)) continue;
        n_events++;
        p->settle(&spec->params, &state);
        require(!p->due(&spec->params, &state));
    }
    // an event was foretold exactly when one came
    const pith_policy_state fresh = {0};
    require((p->max_candidates(&spec->params, &fresh, 300) > 0) == (n_events > 0));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    char *text = malloc(size + 1); // of exactly this size, so that a byte too far is seen
    if (!text) return 0;
    if (size) memcpy(text, data, size);
    text[size] = 0;

    pith_spec spec;
    pith_error err = {0};
    memset(&spec, 0x5a, sizeof spec);
    if (pith_spec_parse(text, &spec, &err)) {
        check_refusal(&spec, &err);
    } else {
        check_canonical(&spec);
        check_steps(&spec);
    }
    free(text);
    return 0;
}
