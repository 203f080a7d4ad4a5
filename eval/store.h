// The folder of results: what was run, and a file of finished samples for each policy.
//
//   run.json                        the settings that make samples comparable; written once, by rename
//   <policy>.jsonl                  one line a sample, written whole as it ends
//   <policy>.shard-<i>-of-<n>.jsonl the same, of a run with --shard
//
// A run reads what all files of its policies hold and writes one of them, which it locks. A killed run leaves at most
// one line that is cut off at the end of a file: it is removed by the next run that writes there, and left out by
// others.
#ifndef PITH_EVAL_STORE_H
#define PITH_EVAL_STORE_H

#include "eval/results.h"

// Makes DIR when it is missing. Writes run.json, or compares: PITH_E_STATE names the first setting that differs.
// settings: a flat object of strings and numbers.
pith_status eval_store_settle(const char *dir, const json_t *settings, pith_error *err);

typedef struct eval_store {
    char *dir, *stem, *path; // owned; path: of the file that is written
    int fd;                  // -1: closed
    int64_t bytes;           // whole lines in it
} eval_store;

// Opens the file of a policy (canonical) for writing and locks it. n_shards 1: not sharded; shard counts from 0.
// PITH_E_STATE when another run writes it.
pith_status eval_store_open(eval_store *, const char *dir, const char *policy, uint32_t shard, uint32_t n_shards,
                            pith_error *err);

// Adds what the policy's files hold to `results`, and removes a line that is cut off at the end of our own.
pith_status eval_store_read(eval_store *, const eval_task *task, eval_results *results, pith_error *err);

// Appends one line. When that fails the file is as before (or has a line that is cut off).
pith_status eval_store_add(eval_store *, const json_t *line, pith_error *err);

pith_status eval_store_close(eval_store *, pith_error *err); // also of one that is not open

// The policy's file name without ending: characters that are safe in one, unique.
void eval_store_stem(const char *policy, char *out, size_t bytes);

#endif
