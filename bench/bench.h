// What the files of the benchmark share: Pith and llama.cpp measured in turn on one model file.
//
// Calls that can fail return false after one line on stderr. Rates are tokens per second of all sequences together.
#ifndef PITH_BENCH_H
#define PITH_BENCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "bandwidth.h"
#include "pith.h"

enum { MAX_ROUNDS = 32 };

typedef struct bench {
    const char *model_path;  // a GGUF file, made when it is missing
    const char *peer_dir;    // has llama-bench, llama-batched-bench and llama-server
    const char *program;     // pith
    const char *served_path; // the model of servers
    const char *report;      // Markdown file whose tables are written, NULL: none
    const char *commit;      // of the tree that was measured
    uint32_t n_threads;      // of both
    uint32_t n_rounds;
    pith_model *model;
    pith_model_info info, served; // of model_path and served_path
    double bandwidth[MAX_ROUNDS]; // bytes per second that the machine reads, at the beginning of each round
} bench;

// n_seqs sequences whose caches have `depth` rows each generate n_new tokens. n_new 0: one prompt of `depth` tokens is
// read instead. Repeated, each time from a fresh cache; the rate is the mean.
typedef struct workload {
    uint32_t n_seqs, depth, n_new, repeats;
} workload;

// model.c: writes a Qwen2 of 0.5B parameters with seeded random weights in Q8_0, unless the file is there.
bool model_make(const char *path);

// peer.c and ours.c: the rate of one workload.
bool peer_rate(const bench *, const workload *, double *rate);
bool ours_rate(const bench *, uint32_t n_threads, const workload *, double *rate);
// For callers that step themselves: the model with an engine for sequences of up to n_ctx tokens, and a prompt of n
// pseudo-random tokens.
bool ours_open(const bench *, uint32_t n_threads, uint32_t n_seqs, uint32_t n_ctx, pith_engine **out);
bool ours_prompt(const bench *, pith_sequence *, uint32_t n);
bool ours_failed(const pith_error *); // one line; false, for `return`

// rival.c: a process that computes and never waits, to compete with. Dies with the benchmark.
bool rival_start(int nice, int *pid);
void rival_stop(int pid);

// host.c: programs with `args` (NULL behind the last one), whose output nobody sees. A host is one that serves HTTP on
// the loopback, at the port that it gets as --port; host_start returns when it says that it is healthy.
typedef struct host {
    int pid;
    uint16_t port;
} host;
bool host_start(host *h, const char *const *args);
void host_stop(host *h); // with SIGTERM, and waits for its end
bool program_run(const char *const *args);

// streams.c: one streamed completion. Times are of pith_seconds.
typedef struct stream {
    int fd;     // -1: ended
    char *text; // (n), terminated: everything received
    size_t n, capacity;
    double asked, begun, ended; // begun: the first event; 0: not yet
    uint32_t n_tokens;          // when it has ended
} stream;
bool http_connect(uint16_t port, int *fd); // says nothing when it fails
bool stream_open(stream *s, uint16_t port, const char *body);
// Receives what comes for all n streams until those in [from, to) have begun, or ended.
bool streams_wait(stream *all, uint32_t n, uint32_t from, uint32_t to, bool until_ended);
uint32_t stream_events(const stream *s); // received so far
void stream_close(stream *s);

// The tables: speed.c (against llama.cpp on an idle machine), compete.c (beside a rival), reason.c (a long generation
// with compression), serve.c (servers). `has`: is there something selected by `rows`, a list of names with commas?
// `round`: one round's measurements. `print`: the table as Markdown; says in *complete whether nothing of it is
// missing.
bool speed_has(const char *rows);
bool speed_round(const bench *, const char *rows, uint32_t round);
void speed_print(const bench *, FILE *out, bool *complete);
bool compete_has(const char *rows);
bool compete_round(const bench *, const char *rows, uint32_t round);
void compete_print(const bench *, FILE *out, bool *complete);
bool reason_has(const char *rows);
bool reason_round(const bench *, const char *rows, uint32_t round);
void reason_print(const bench *, FILE *out, bool *complete);
bool serve_has(const char *rows);
bool serve_round(const bench *, const char *rows, uint32_t round);
void serve_print(const bench *, FILE *out, bool *complete);
bool serve8k_has(const char *rows);
bool serve8k_round(const bench *, const char *rows, uint32_t round);
void serve8k_print(const bench *, FILE *out, bool *complete);

// numbers.c
bool listed(const char *name, const char *list); // one of the names in a list with commas?
double median(const double *x, uint32_t n);      // n <= MAX_ROUNDS
double smallest(const double *x, uint32_t n);
double largest(const double *x, uint32_t n);
// What a decode step reads: all weights; and of each row K and V, in f16, in all lanes.
double weight_bytes(const bench *);
double row_bytes(const bench *);
// What a decode step of a workload must read, its caches taken at the middle of the measured stretch. 0 for prefill,
// which is bound by arithmetic.
double step_bytes(const bench *, const workload *);

// report.c
void report_setting(const bench *, FILE *out); // machine, threads, rounds, bandwidth, commit
// Replaces what stands between "<!-- name: begin -->" and "<!-- name: end -->" in the file.
bool report_replace(const char *path, const char *name, const char *text);

#endif
