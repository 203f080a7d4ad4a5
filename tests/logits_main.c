// logits MODEL TOKENS PROMPT DEVICE OUT: runs the tokens of a text file through a model, the first PROMPT of them as a
// prompt, the others given one by one, and writes the logits behind each token from the prompt's last on:
// (tokens - PROMPT + 1, n_vocab) floats. For oracles that live in other programs (tests/oracle/transformers_logits.py).
#include <stdio.h>
#include <stdlib.h>

#include "pith.h"

enum { MOST_TOKENS = 1 << 16 };

typedef struct run {
    pith_model *model;
    pith_engine *engine;
    pith_sequence *seq;
    pith_token tokens[MOST_TOKENS];
    uint32_t n_tokens, n_prompt, n_vocab;
    FILE *out;
    pith_error err;
} run;

static bool read_tokens(run *r, const char *path) {
    FILE *f = fopen(path, "re");
    if (!f) return false;
    while (r->n_tokens < MOST_TOKENS && fscanf(f, "%d", &r->tokens[r->n_tokens]) == 1) r->n_tokens++;
    fclose(f);
    return r->n_prompt >= 1 && r->n_prompt <= r->n_tokens;
}

static bool begin(run *r, const char *model, const char *device) {
    pith_model_info info;
    pith_engine_params params;
    pith_sequence_params of_sequence;
    if (pith_model_load(model, NULL, &r->model, &r->err) != PITH_OK) return false;
    pith_model_describe(r->model, &info);
    r->n_vocab = info.n_vocab;
    pith_engine_params_init(&params);
    params.device = device;
    if (pith_engine_new(r->model, &params, &r->engine, &r->err) != PITH_OK) return false;
    pith_sequence_params_init(&of_sequence);
    of_sequence.max_new = r->n_tokens, of_sequence.ignore_end = true;
    return pith_sequence_new(r->engine, &of_sequence, &r->seq, &r->err) == PITH_OK &&
           pith_sequence_prompt(r->seq, r->tokens, r->n_prompt, &r->err) == PITH_OK;
}

static bool advance(run *r) {
    uint32_t n_active;
    return pith_engine_step(r->engine, &n_active, &r->err) == PITH_OK;
}

static bool in_prompt(const run *r) {
    pith_sequence_info info;
    pith_sequence_describe(r->seq, &info);
    return info.phase == PITH_PREFILL;
}

static bool write_logits(run *r) {
    return fwrite(pith_sequence_logits(r->seq), sizeof(float), r->n_vocab, r->out) == r->n_vocab;
}

static bool play(run *r) {
    while (in_prompt(r))
        if (!advance(r)) return false;
    bool ok = write_logits(r);
    for (uint32_t i = r->n_prompt; ok && i < r->n_tokens; i++)
        ok = pith_sequence_force(r->seq, r->tokens[i], &r->err) == PITH_OK && advance(r) && write_logits(r);
    return ok;
}

int main(int argc, char **argv) {
    static run r;
    if (argc != 6) return fprintf(stderr, "usage: logits MODEL TOKENS PROMPT DEVICE OUT\n"), 2;
    r.n_prompt = (uint32_t)strtoul(argv[3], NULL, 10);
    if (!read_tokens(&r, argv[2])) return fprintf(stderr, "%s: expected token ids, at least PROMPT\n", argv[2]), 1;
    r.out = fopen(argv[5], "wbe");
    bool ok = r.out && begin(&r, argv[1], argv[4]) && play(&r);
    if (r.out && fclose(r.out) != 0) ok = false;
    if (!ok) fprintf(stderr, "%s\n", r.err.msg[0] ? r.err.msg : argv[5]);
    pith_engine_free(r.engine);
    pith_model_free(r.model);
    return ok ? 0 : 1;
}
