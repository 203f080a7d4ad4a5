// One self-contained page: the tables, and plots of accuracy, cache and length. No scripts, nothing fetched; colours
// for light and dark; well-formed as XML too.
#ifndef PITH_EVAL_PAGE_H
#define PITH_EVAL_PAGE_H

#include "eval/table.h"

// False: cannot write, or no memory.
bool eval_page_write(FILE *out, const eval_summary *s, const eval_about *about);

#endif
