#include "server/piece.h"

#include <stdlib.h>

void piece_read(piece *p, const pith_model *model, pith_token token, bool special) {
    p->bytes = p->brief;
    p->n = pith_token_text(model, token, special, p->brief, sizeof p->brief);
    if (p->n <= sizeof p->brief) return;
    p->bytes = malloc(p->n);
    if (p->bytes) p->n = pith_token_text(model, token, special, p->bytes, p->n);
    else p->n = 0;
}

void piece_free(piece *p) {
    if (p->bytes != p->brief) free(p->bytes);
}
