// Where a task's problems lie: which files, and in which order.
//
// A task is a name (pebble, aime24, aime25) or a file of one's own. Names are looked up in a data folder:
//   pebble          every *.jsonl of FOLDER/pebble (or of FOLDER itself), in the order of their names
//   aime24, aime25  FOLDER/aime24.jsonl, FOLDER/aime25.jsonl; they are not shipped with Pith
#ifndef PITH_EVAL_DATA_H
#define PITH_EVAL_DATA_H

#include <stddef.h>

#include "pith.h"

typedef struct eval_files {
    char name[64]; // the task's: "pebble", or the file's name without its ending
    char **paths;  // (n), owned
    size_t n;
} eval_files;

// `data`: the file or folder to take in place of the data folder; NULL: the first that exists of $PITH_DATA, the
// installed ../share/pith/eval beside the program, and this source tree's eval. PITH_E_ARG for an unknown task.
pith_status eval_files_find(const char *task, const char *data, eval_files *out, pith_error *err);
void eval_files_free(eval_files *);

#endif
