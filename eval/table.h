// The tables, for people and for programs.
#ifndef PITH_EVAL_TABLE_H
#define PITH_EVAL_TABLE_H

#include <stdio.h>

#include "eval/summary.h"

// What was run. Borrowed.
typedef struct eval_about {
    const char *title;      // one line: task, model, settings
    const json_t *settings; // as in run.json
} eval_about;

// The columns, in one order everywhere. A cell is text, "-" for what there is not.
enum { EVAL_COLUMNS = 10, EVAL_CELL = 40 };
typedef struct eval_column {
    const char *name;
    void (*cell)(const eval_row *row, char out[EVAL_CELL]); // leaves `out` alone where there is nothing
} eval_column;
extern const eval_column eval_columns[EVAL_COLUMNS];
void eval_table_cell(const eval_column *column, const eval_row *row, char out[EVAL_CELL]);

// False: cannot write.
bool eval_table_print(FILE *out, const eval_summary *s, const eval_about *about);

// The same numbers as one Markdown table, whose first column is the group.
bool eval_table_markdown(FILE *out, const eval_summary *s, const eval_about *about);

// The same numbers as one JSON object, null for what there is not. New reference; NULL: no memory.
json_t *eval_table_json(const eval_summary *s, const eval_about *about);

#endif
