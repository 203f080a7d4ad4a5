// The engine's insides, shared by engine.c (life), sequence.c (turns) and step.c (the step).
#ifndef PITH_ENGINE_H
#define PITH_ENGINE_H

#include "cache/kv.h"
#include "cache/prefix.h"
#include "model/forward.h"
#include "policy/policy.h"

enum { PREFILL_PLANS = 8 }; // recorded prefill shapes that are kept; a chunk's full size is nearly always among them

struct pith_sequence {
    pith_engine *engine;
    pith_sequence_params params; // `policy` points to spec.text
    pith_spec spec;
    pith_policy_state state;
    pith_kv kv;
    pith_window window;
    pith_phase phase;

    pith_token *tokens; // (cap_tokens): the timeline; positions are indices
    uint32_t cap_tokens;
    uint32_t n_tokens;
    uint32_t n_cached;    // tokens whose rows were written (and perhaps evicted since)
    uint32_t n_generated; // in this turn
    uint32_t turn_limit;  // generated tokens at which this turn ends
    pith_span *prompts;   // (cap_prompts): the positions given as prompts, ascending
    uint32_t n_prompts, cap_prompts;
    pith_token forced;   // instead of the next draw, -1: none
    const float *logits; // (V) of the last cached token, in the backend's memory until the next step; NULL: none

    // While the first prompt is read: chunks that others have read are taken over, the rest is kept for others.
    bool shares;
    uint32_t share_limit;         // tokens that may be taken over
    uint32_t n_shared;            // that were
    pith_prefix_node *last_chunk; // held; NULL: the beginning

    bool overdue; // its compression is due, and comes before its next row
    uint32_t n_compressions;
    uint32_t rows_peak;
    uint64_t bytes_peak;
    double prefill_s, decode_s, compress_s;
};

typedef struct pith_prefill_plan {
    pith_plan *plan; // NULL: free entry
    pith_shape shape;
    uint64_t used; // step of the last use
} pith_prefill_plan;

struct pith_engine {
    const pith_model *model;
    const pith_allocator *alloc;
    pith_backend *backend;
    pith_geometry geo;
    pith_kv_type kv_type; // of the cache, never AUTO
    pith_page_pool pool;
    pith_prefix prefix;
    bool share_prefixes, spread_compressions;
    uint32_t n_threads, n_ctx, max_sequences, chunk;
    uint64_t n_steps;

    pith_sequence **sequences; // (max_sequences), the first n_sequences are alive, in order of joining
    uint32_t n_sequences;

    pith_plan **decode_plans; // (max_sequences): entry b - 1 takes b tokens; NULL until b sequences are alive
    pith_prefill_plan prefill_plans[PREFILL_PLANS];
    float *decode_logits;  // (max_sequences, V), the backend's memory
    float *prefill_logits; // (V), likewise

    // A step's inputs. (max(max_sequences, chunk)) each.
    int32_t *ids, *pos, *slot;
    pith_segment *segments;   // (max_sequences)
    pith_sequence **decoding; // (max_sequences)

    // A step's draws. (max_sequences) each.
    const float **draw_rows;
    pith_draw *draws;
    int32_t *drawn;

    // A compression's scratch, grown at admission.
    uint32_t *keep; // (event layers, G, keep_cap)
    uint32_t keep_cap;
    int32_t *kept; // (kept_cap): positions for the event callback
    uint32_t kept_cap;

    pith_event_fn on_compress;
    void *on_compress_ctx;
};

// Make sure that the plan for n rows is recorded. plans.c
pith_status pith_engine_decode_plan(pith_engine *, uint32_t n, pith_error *);
pith_status pith_engine_prefill_plan(pith_engine *, uint32_t n, pith_plan **out, pith_error *); // out may be NULL

void pith_engine_compress(pith_engine *, pith_sequence *); // a compression that is due. step.c

// Rows in front of this one never move: the first turn's prompt. sequence.c
uint32_t pith_sequence_stable(const pith_sequence *);
uint32_t pith_sequence_prompt_below(const pith_sequence *, uint32_t pos); // prompt tokens in front of a position

#endif
