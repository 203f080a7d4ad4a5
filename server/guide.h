// Keeps the content of an answer to its grammar, whatever the model would rather say. Thoughts are free, but they end
// with their mark: with an answer behind it that is worth something, not with the end of the generation.
//
// Most tokens fit: one is drawn as if there were no grammar, and only where it may not come are all logits masked and
// one is drawn again, with a number of its own. So tokens are as probable as drawing and dropping until one fits would
// make them.
#ifndef PITH_SERVER_GUIDE_H
#define PITH_SERVER_GUIDE_H

#include "server/draw.h"
#include "server/job.h"

typedef struct guide {
    const pith_model *model;
    uint32_t n_vocab;
    pith_token think;    // opens a thought, -1: none does as one token
    float *logits;       // (V): scratch, may be what is drawn from
    draw_ranked *ranked; // (V): scratch
} guide;

// Must the server draw the choice's next token itself? Not while a thought goes on that cannot end with it.
bool guide_watches(const choice *c);

typedef enum guide_verdict {
    GUIDE_FITS,
    GUIDE_CLOSES, // the thought would end in the wrong way: close it by force
    GUIDE_STUCK,  // there is no token that may come
} guide_verdict;

// `*token` was drawn from `logits` for place `index`; it may become another one. `how` as in draw_token.
guide_verdict guide_choose(const guide *g, const choice *c, const float *logits, const pith_sampling *how,
                           uint64_t index, pith_token *token);

// A token has come. `before`: where the speech was then; `c` is behind it. False: it does not fit, or cannot be
// followed.
bool guide_hear(const guide *g, choice *c, speech_state before, pith_token token);

#endif
