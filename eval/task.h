// The problems of a task, read and checked as a whole before anything is generated.
//
// A task file has one JSON object a line; empty lines are skipped:
//   prompt  text of the user's message                                 required
//   answer  what is right: a string or an integer                      required
//   system  text of a system message in front
//   id      a string or an integer, unique; else the problem's number over all files, from 0
//   band    a string: tables are made for each band too, unless another field is to group the problems
// Other fields are kept and written with every sample.
#ifndef PITH_EVAL_TASK_H
#define PITH_EVAL_TASK_H

#include <jansson.h>

#include "eval/data.h"

typedef struct eval_problem {
    char *id, *answer;                  // owned
    const char *prompt, *system, *band; // of `fields`; the last two may be NULL
    json_t *fields;                     // the whole line, owned
    uint32_t file, line;                // index into the files; from 1
} eval_problem;

typedef struct eval_task {
    const eval_files *files; // borrowed
    eval_problem *problems;  // (n), in the order of files and lines: the index is the problem's number
    size_t n, capacity;
    json_t *by_id;   // id -> number
    uint64_t digest; // FNV-1a of all bytes of all files, which tells changed problems from the same ones
} eval_task;

// PITH_E_FORMAT names file, line and what was expected. `files` is borrowed.
pith_status eval_task_load(const eval_files *files, eval_task *out, pith_error *err);
void eval_task_free(eval_task *);

// A field of the problem's line that is a text; NULL: it is not there, or something else. Borrowed.
const char *eval_problem_text(const eval_problem *, const char *field);

// The number of the problem with that id, -1: none.
int64_t eval_task_find(const eval_task *, const char *id);

#endif
