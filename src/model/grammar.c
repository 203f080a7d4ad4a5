#include "model/matcher.h"
#include "model/model.h"
#include "model/schema.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

struct pith_grammar {
    const pith_model *model;
    pith_matcher *matcher;
};

static pith_status fail_matcher(pith_matcher_result result, pith_error *err) {
    switch (result) {
    case PITH_MATCHER_OK: return PITH_OK;
    case PITH_MATCHER_REFUSED: break;
    case PITH_MATCHER_AMBIGUOUS:
        return pith_fail(err, PITH_E_UNSUPPORTED, "grammar: its alternatives cannot be told apart soon enough");
    case PITH_MATCHER_NO_MEMORY: return pith_fail(err, PITH_E_MEMORY, "no memory for a grammar");
    }
    return pith_fail(err, PITH_E_UNSUPPORTED, "grammar: a pattern repeats what may be empty");
}

static pith_status open_matcher(pith_grammar *g, const char *schema, size_t bytes, pith_error *err) {
    static const char any_object[] = "{\"type\":\"object\"}";
    char *text = NULL, line[300];
    pith_schema_result read = schema ? pith_schema_grammar(schema, bytes, &text, line, sizeof line)
                                     : pith_schema_grammar(any_object, sizeof any_object - 1, &text, line, sizeof line);
    if (read == PITH_SCHEMA_REFUSED) return pith_fail(err, PITH_E_FORMAT, "schema: %s", line);
    if (read == PITH_SCHEMA_NO_MEMORY) return pith_fail(err, PITH_E_MEMORY, "no memory for a grammar");
    pith_status status = fail_matcher(pith_matcher_new(text, &g->matcher), err);
    free(text);
    return status;
}

static pith_grammar *new_grammar(const pith_model *model) {
    pith_grammar *g = pith_new(pith_model_allocator(model), 1, sizeof *g);
    if (g) g->model = model;
    return g;
}

pith_status pith_grammar_new(const pith_model *model, const char *schema, size_t bytes, pith_grammar **out,
                             pith_error *err) {
    *out = NULL;
    if (!pith_model_vocab(model))
        return pith_fail(err, PITH_E_UNSUPPORTED, "grammar: a model that was made from a shape has no vocabulary");
    pith_grammar *g = new_grammar(model);
    if (!g) return pith_fail(err, PITH_E_MEMORY, "no memory for a grammar");
    pith_status status = open_matcher(g, schema, bytes, err);
    if (status == PITH_OK) *out = g;
    else pith_grammar_free(g);
    return status;
}

pith_status pith_grammar_clone(const pith_grammar *g, pith_grammar **out, pith_error *err) {
    *out = NULL;
    pith_grammar *copy = new_grammar(g->model);
    if (copy && pith_matcher_clone(g->matcher, &copy->matcher) == PITH_MATCHER_OK) return *out = copy, PITH_OK;
    pith_grammar_free(copy);
    return pith_fail(err, PITH_E_MEMORY, "no memory for a grammar");
}

void pith_grammar_free(pith_grammar *g) {
    if (!g) return;
    pith_matcher_free(g->matcher);
    pith_delete(pith_model_allocator(g->model), g, 1, sizeof *g);
}

// ------------------------------------------------------------------------------------------------ tokens

// Texts of tokens, one after the other. A control token has none: its name in an answer would be something else.
typedef struct texts {
    const pith_vocab *vocab;
    pith_token first;
    char *room; // of C's malloc, grown as needed
    size_t capacity;
} texts;

static const char *text_at(void *ctx, size_t i, size_t *bytes) {
    texts *t = ctx;
    const pith_token token = t->first + (pith_token)i;
    *bytes = pith_vocab_text(t->vocab, token, false, t->room, t->capacity);
    if (*bytes > t->capacity) {
        char *more = realloc(t->room, *bytes);
        if (more) t->room = more, t->capacity = *bytes;
        *bytes = more ? pith_vocab_text(t->vocab, token, false, t->room, t->capacity) : 0;
    }
    return t->room;
}

bool pith_grammar_allows(const pith_grammar *g, pith_token token) {
    const pith_vocab *vocab = pith_model_vocab(g->model);
    if (pith_vocab_ends(vocab, token)) return pith_matcher_may_end(g->matcher);
    texts t = {.vocab = vocab, .first = token};
    bool allowed = false;
    if (pith_matcher_check(g->matcher, 1, text_at, &t, &allowed) != PITH_MATCHER_OK) allowed = false;
    free(t.room);
    return allowed;
}

pith_status pith_grammar_mask(const pith_grammar *g, float *logits, uint32_t *n_left, pith_error *err) {
    const pith_vocab *vocab = pith_model_vocab(g->model);
    const pith_allocator *alloc = pith_model_allocator(g->model);
    const uint32_t n = pith_vocab_size(vocab);
    *n_left = 0;
    bool *allowed = pith_new(alloc, n, sizeof *allowed);
    if (!allowed) return pith_fail(err, PITH_E_MEMORY, "no memory for a grammar");
    texts t = {.vocab = vocab};
    pith_status status = fail_matcher(pith_matcher_check(g->matcher, n, text_at, &t, allowed), err);
    const bool may_end = pith_matcher_may_end(g->matcher);
    for (uint32_t i = 0; status == PITH_OK && i < n; i++) {
        if (pith_vocab_ends(vocab, (pith_token)i) ? may_end : allowed[i]) ++*n_left;
        else logits[i] = -INFINITY;
    }
    free(t.room);
    pith_delete(alloc, allowed, n, sizeof *allowed);
    return status;
}

pith_status pith_grammar_accept(pith_grammar *g, pith_token token, pith_error *err) {
    if (!pith_grammar_allows(g, token))
        return pith_fail(err, PITH_E_ARG, "grammar: token %d may not follow here", token);
    texts t = {.vocab = pith_model_vocab(g->model)};
    if (pith_vocab_ends(t.vocab, token)) return PITH_OK;
    t.first = token;
    size_t bytes;
    const char *text = text_at(&t, 0, &bytes);
    pith_status status = fail_matcher(pith_matcher_take(g->matcher, text, bytes), err);
    free(t.room);
    return status;
}

bool pith_grammar_done(const pith_grammar *g) { return pith_matcher_must_end(g->matcher); }
