#include "server/guide.h"

#include <math.h>
#include <string.h>

#include "base/rng.h"
#include "server/piece.h"

// The key of second draws: any other than the first's, which is the request's seed.
static const uint64_t SECOND = 0x6772616d6d6172;

bool guide_watches(const choice *c) { return c->grammar && (!speech_thinks(&c->speech) || c->speech.n_held > 0); }

static void drop(void *ctx, speech_part part, const char *text, size_t bytes) {
    (void)ctx, (void)part, (void)text, (void)bytes;
}

// The marks of a thought are text wherever they may stand; other control tokens have none.
static void read_piece(const guide *g, pith_token token, piece *p) {
    piece_read(p, g->model, token, token == g->think);
}

static bool is_newlines(const guide *g, pith_token token) {
    piece p;
    read_piece(g, token, &p);
    size_t n = 0;
    while (n < p.n && p.bytes[n] == '\n') n++;
    const bool all = p.n > 0 && n == p.n;
    piece_free(&p);
    return all;
}

// Would the token end the thought and begin the answer as well? Nobody has looked at that beginning.
static bool runs_on(const guide *g, const choice *c, pith_token token) {
    piece p;
    read_piece(g, token, &p);
    speech trial = c->speech;
    speech_add(&trial, p.bytes, p.n, drop, NULL);
    piece_free(&p);
    return !speech_thinks(&trial) && trial.state != SPEECH_CLOSED;
}

static bool fits(const guide *g, const choice *c, pith_token token) {
    if (c->speech.state == SPEECH_START && token == g->think) return true;
    if (c->speech.state == SPEECH_CLOSED && is_newlines(g, token)) return true;
    return pith_grammar_allows(c->grammar, token);
}

guide_verdict guide_choose(const guide *g, const choice *c, const float *logits, const pith_sampling *how,
                           uint64_t index, pith_token *token) {
    if (speech_thinks(&c->speech)) return runs_on(g, c, *token) ? GUIDE_CLOSES : GUIDE_FITS;
    if (fits(g, c, *token)) return GUIDE_FITS;
    if (logits != g->logits) memcpy(g->logits, logits, g->n_vocab * sizeof *logits);
    uint32_t n_left;
    if (pith_grammar_mask(c->grammar, g->logits, &n_left, NULL) != PITH_OK) return GUIDE_STUCK;
    *token = draw_token(g->logits, g->n_vocab, how, pith_uniform(how->seed ^ SECOND, how->stream, index), g->ranked);
    return g->logits[*token] > -INFINITY ? GUIDE_FITS : GUIDE_STUCK;
}

bool guide_hear(const guide *g, choice *c, speech_state before, pith_token token) {
    switch (before) {
    case SPEECH_START:
        if (token == g->think) return true;
        break;
    case SPEECH_CLOSED:
        if (is_newlines(g, token)) return true;
        break;
    case SPEECH_OPENED:
    case SPEECH_THINKING: return speech_thinks(&c->speech) || c->speech.state == SPEECH_CLOSED;
    case SPEECH_ANSWER:
    case SPEECH_STOPPED: break;
    }
    return pith_grammar_accept(c->grammar, token, NULL) == PITH_OK;
}
