// The bytes of one token, however long.
#ifndef PITH_SERVER_PIECE_H
#define PITH_SERVER_PIECE_H

#include "pith.h"

typedef struct piece {
    char brief[64];
    char *bytes; // (n), in brief or in memory of its own; NULL: no memory, and n is 0
    size_t n;
} piece;

// `special`: control tokens give their names, else nothing.
void piece_read(piece *p, const pith_model *model, pith_token token, bool special);
void piece_free(piece *p);

#endif
