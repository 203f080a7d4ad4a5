// A policy decides when a sequence compresses and which rows survive. It never moves memory and knows no device: it
// reads its own small state and calls the operation table.
//
// A spec string names a policy and its options, the same everywhere: "full", "rpc", "rpc:p=4096,c=4,pool=avg7".
#ifndef PITH_POLICY_H
#define PITH_POLICY_H

#include "ops/ops.h"

#define PITH_SPEC_MAX 160u // bytes of a canonical spec, terminator included

typedef struct pith_policy pith_policy;

// Parameters and state are small plain values: copied when a sequence forks, dropped when it ends, nothing to free.
typedef struct pith_params {
    _Alignas(8) uint8_t bytes[64];
} pith_params;
typedef struct pith_policy_state {
    _Alignas(8) uint8_t bytes[64];
} pith_policy_state;

typedef struct pith_spec {
    const pith_policy *policy;
    pith_params params;
    char text[PITH_SPEC_MAX]; // canonical: every option in the policy's order, defaults filled in
} pith_spec;

// A group of layers of one sequence at the moment it compresses. The policy has the backend fill `scores`, the
// survivors included.
typedef struct pith_event {
    pith_backend *backend;
    pith_group group;
    const pith_span *protect; // prompts of all turns, ascending
    uint32_t n_protect;
    uint64_t draw;      // a random number of the sequence's own, from its sampling seed and stream
    uint32_t *keep;     // scratch: room for (n_layers, G, max_candidates)
    pith_scores scores; // out: without candidates when nothing goes
} pith_event;

struct pith_policy {
    const char *name;
    const char *summary; // one line for help

    // Parsing: defaults first, then each key=value in the order given, then the check of what they mean together, which
    // may also fill in a default that depends on another option. `set` answers PITH_E_ARG with a line that names key,
    // value and what was expected; unknown keys too.
    void (*defaults)(pith_params *);
    pith_status (*set)(pith_params *, const char *key, const char *value, pith_error *);
    pith_status (*check)(pith_params *, pith_error *);
    void (*print)(const pith_params *, char *out, size_t capacity); // canonical options without the name, may be ""

    // Slots of the query window that it needs, 0 for none.
    uint32_t (*window)(const pith_params *);

    // Which slot takes the query of a token, -1 for none. observe_prompt: token i of the n of this turn's prompt.
    // observe: the next generated token. Called once per token, before the step that appends it.
    int32_t (*observe_prompt)(const pith_params *, pith_policy_state *, uint32_t i, uint32_t n);
    int32_t (*observe)(const pith_params *, pith_policy_state *);

    // A generated token has entered the cache.
    void (*advance)(const pith_params *, pith_policy_state *);

    // Is a compression due? Asked after advance; select is then called for every group of layers in turn, and settle
    // once.
    bool (*due)(const pith_params *, const pith_policy_state *);
    void (*select)(const pith_params *, const pith_policy_state *, pith_event *);
    void (*settle)(const pith_params *, pith_policy_state *);

    // Worst cases from a state on, for a turn of n_prompt more prompt tokens and up to max_new generated ones, when the
    // lanes hold n_rows now: the most rows a lane ever has, and the most candidates an event ever sees (0: no event).
    uint32_t (*peak_rows)(const pith_params *, const pith_policy_state *, uint32_t n_rows, uint32_t n_prompt,
                          uint32_t max_new);
    uint32_t (*max_candidates)(const pith_params *, const pith_policy_state *, uint32_t max_new);
    // Window queries that select uses at most (repetitions count), for scratch.
    uint32_t (*max_queries)(const pith_params *);
};

// Every policy there is, in the order of help; NULL-terminated. The only place that knows their names.
extern const pith_policy *const pith_policies[];

// Parses `text` (NULL: "full"). PITH_E_ARG with one line for an unknown policy (naming the known ones), an unknown,
// repeated or malformed option, a value out of range. A zeroed pith_policy_state is the state of a new sequence.
pith_status pith_spec_parse(const char *text, pith_spec *out, pith_error *err);

#endif
