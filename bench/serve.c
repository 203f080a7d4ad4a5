// pith serve with eight streams: against the library alone, and against llama.cpp's server on the same file.
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/rng.h"
#include "bench.h"

enum { STREAMS = 8, PROMPT = 128, SHORT = 2048, LONG = 8192, WARM_UP = 64 };
enum { ASKER_PROMPT = 200, ASKERS = 9, BODY = 4096 };

typedef struct row row;
struct row {
    const char *table, *what, *against, *policy;
    uint32_t n_new;
    bool (*measure)(const bench *, const row *, double *against, double *ours, double *ratio);
    bool in_ms; // the rates are seconds
    const char *target;
};

// ------------------------------------------------------------------------------------------------- requests

// A prompt of n random tokens of its own, which no server has seen.
static void write_body(const bench *b, char body[BODY], uint32_t n_prompt, uint32_t n_new, const char *policy) {
    static uint64_t n_asked;
    const uint64_t seed = pith_mix64(n_asked++);
    int at = snprintf(body, BODY, "{\"prompt\":[");
    for (uint32_t i = 0; i < n_prompt; i++) // the upper half: no control tokens
        at += snprintf(body + at, BODY - (size_t)at, "%s%llu", i ? "," : "",
                       (unsigned long long)(b->served.n_vocab / 2 + pith_mix64(seed + i) % (b->served.n_vocab / 2)));
    snprintf(body + at, BODY - (size_t)at,
             "],\"max_tokens\":%u,\"ignore_eos\":true,\"stream\":true,\"stream_options\":{\"include_usage\":true},"
             "\"temperature\":0.6,\"top_p\":0.95,\"top_k\":0,\"min_p\":0,\"seed\":%llu,\"cache_prompt\":false,"
             "\"cache_policy\":\"%s\"}",
             n_new, (unsigned long long)(seed & 0xffffff), policy);
}

static bool ask(const bench *b, const host *h, stream *s, uint32_t n_prompt, uint32_t n_new, const char *policy) {
    char body[BODY];
    write_body(b, body, n_prompt, n_new, policy);
    return stream_open(s, h->port, body);
}

typedef struct rates {
    double decode; // of the streams, each from the moment when all have begun to its end, added up
    double whole;  // all tokens, from the first request to the last byte
} rates;

static bool eight_streams(const bench *b, const host *h, uint32_t n_new, const char *policy, rates *r) {
    stream s[STREAMS];
    const double start = pith_seconds();
    double end = start;
    bool ok = true;
    for (int i = 0; i < STREAMS; i++) ok = ask(b, h, &s[i], PROMPT, n_new, policy) && ok;
    ok = ok && streams_wait(s, STREAMS, 0, STREAMS, false);
    const double all = pith_seconds();
    uint32_t before[STREAMS];
    for (int i = 0; i < STREAMS && ok; i++) before[i] = stream_events(&s[i]);
    ok = ok && streams_wait(s, STREAMS, 0, STREAMS, true);
    *r = (rates){0};
    for (int i = 0; i < STREAMS && ok; i++) {
        if (s[i].n_tokens != n_new) ok = false, fprintf(stderr, "bench: %u tokens of %u\n", s[i].n_tokens, n_new);
        r->decode += (s[i].n_tokens - before[i]) / (s[i].ended - all);
        r->whole += s[i].n_tokens;
        if (s[i].ended > end) end = s[i].ended;
    }
    r->whole /= end - start;
    for (int i = 0; i < STREAMS; i++) stream_close(&s[i]);
    return ok;
}

// ------------------------------------------------------------------------------------------------- who answers

static bool open_host(const bench *b, host *h, const char *const *args) {
    rates warm;
    if (!host_start(h, args)) return false;
    if (eight_streams(b, h, WARM_UP, "full", &warm)) return true;
    return host_stop(h), false;
}

static bool open_ours(const bench *b, host *h) {
    char threads[16];
    snprintf(threads, sizeof threads, "%u", b->n_threads);
    return open_host(b, h,
                     (const char *const[]){b->program, "serve", "--model", b->served_path, "--threads", threads, NULL});
}

static bool open_peer(const bench *b, host *h, uint32_t n_new) {
    char program[4096], threads[16], n_ctx[16], slots[16];
    snprintf(program, sizeof program, "%s/llama-server", b->peer_dir);
    snprintf(threads, sizeof threads, "%u", b->n_threads);
    snprintf(slots, sizeof slots, "%d", STREAMS);
    snprintf(n_ctx, sizeof n_ctx, "%u", STREAMS * ((PROMPT + n_new + 256) / 256 * 256));
    return open_host(b, h,
                     (const char *const[]){program, "-m", b->served_path, "-t", threads, "-tb", threads, "-np", slots,
                                           "-c", n_ctx, "-fa", "on", "--cache-ram", "0", "--no-cache-prompt", "--no-ui",
                                           NULL});
}

// What `pith bench` measures: decoding alone, as many sequences, tokens and threads.
static bool library_rate(const bench *b, const row *r, double *rate) {
    static const char path[] = "build/bench/serve.json";
    char threads[16], batch[16], length[16], prompt[16];
    snprintf(threads, sizeof threads, "%u", b->n_threads);
    snprintf(batch, sizeof batch, "%d", STREAMS);
    snprintf(length, sizeof length, "%u", r->n_new);
    snprintf(prompt, sizeof prompt, "%d", PROMPT);
    const char *const args[] = {
        b->program,      "bench",     "--model",     b->served_path, "--threads", threads,    "--batch",
        batch,           "--lengths", length,        "--prompt",     prompt,      "--policy", r->policy,
        "--temperature", "0.6",       "--bandwidth", "1G",           "--json",    path,       NULL};
    if (!program_run(args)) return false;
    json_t *found = json_load_file(path, 0, NULL), *first = json_array_get(json_object_get(found, "rows"), 0);
    *rate = json_number_value(json_object_get(first, "tokens_per_second"));
    json_decref(found);
    return *rate > 0 || (fprintf(stderr, "bench: no rate in %s\n", path), false);
}

// ------------------------------------------------------------------------------------------------- rows

static bool against_library(const bench *b, const row *r, double *against, double *ours, double *ratio) {
    host h;
    rates got;
    if (!library_rate(b, r, against) || !open_ours(b, &h)) return false;
    const bool ok = eight_streams(b, &h, r->n_new, r->policy, &got);
    host_stop(&h);
    *ours = got.decode, *ratio = *ours / *against;
    return ok;
}

static bool against_peer(const bench *b, const row *r, double *against, double *ours, double *ratio) {
    host h;
    rates peers, got;
    if (!open_peer(b, &h, r->n_new)) return false;
    bool ok = eight_streams(b, &h, r->n_new, "full", &peers);
    host_stop(&h);
    if (!ok || !open_ours(b, &h)) return false;
    ok = eight_streams(b, &h, r->n_new, r->policy, &got);
    host_stop(&h);
    *against = peers.whole, *ours = got.whole, *ratio = *ours / *against;
    return ok;
}

// Median time to the first token of ASKERS requests, one after the other, beside n streams that run.
static bool first_token(const bench *b, const host *h, stream *all, uint32_t n, double *seconds) {
    double took[ASKERS];
    bool ok = true;
    for (int i = 0; i < ASKERS && ok; i++) {
        stream *s = &all[n];
        ok = ask(b, h, s, ASKER_PROMPT, 1, "full") && streams_wait(all, n + 1, n, n + 1, true);
        took[i] = s->begun - s->asked;
        stream_close(s);
    }
    *seconds = median(took, ASKERS);
    return ok;
}

// The time that a newcomer waits for its first token beside eight streams, less what it takes alone, in steps of the
// eight.
static bool newcomer(const bench *b, const row *r, double *against, double *ours, double *ratio) {
    host h;
    rates eight;
    stream all[STREAMS + 1];
    uint32_t n = 0;
    if (!open_ours(b, &h)) return false;
    bool ok = first_token(b, &h, all, 0, against) && eight_streams(b, &h, r->n_new, r->policy, &eight);
    for (; n < STREAMS && ok; n++) ok = ask(b, &h, &all[n], PROMPT, LONG, r->policy);
    ok = ok && streams_wait(all, n, 0, n, false) && first_token(b, &h, all, n, ours);
    for (uint32_t i = 0; i < n; i++) stream_close(&all[i]);
    host_stop(&h);
    *ratio = (*ours - *against) * eight.decode / STREAMS;
    return ok;
}

static const row rows[] = {
    {"serve", "8 streams, `full`", "`pith bench`", "full", SHORT, against_library, false, "≥ 0.9"},
    {"serve", "8 streams, `rpc:p=256`", "`pith bench`", "rpc:p=256", SHORT, against_library, false, "≥ 0.9"},
    {"serve", "first token of a prompt of 200 tokens beside them", "alone", "full", SHORT, newcomer, true,
     "≤ 3 steps more"},
    {"serve", "8 streams, `full`", "llama-server", "full", SHORT, against_peer, false, "≥ 1.0"},
    {"serve8k", "8 streams, `rpc:p=1024`", "llama-server", "rpc:p=1024", LONG, against_peer, false, "≥ 1.5"},
};
enum { N_ROWS = sizeof rows / sizeof *rows };

static struct {
    double against[MAX_ROUNDS], ours[MAX_ROUNDS], ratio[MAX_ROUNDS];
    uint32_t n;
} results[N_ROWS];

static bool measure(const bench *b, const char *table, const char *list, uint32_t round) {
    for (int i = 0; i < N_ROWS; i++) {
        double *against = &results[i].against[round], *ours = &results[i].ours[round],
               *ratio = &results[i].ratio[round];
        if (strcmp(rows[i].table, table) != 0 || !listed(table, list)) continue;
        if (!rows[i].measure(b, &rows[i], against, ours, ratio)) return false;
        results[i].n = round + 1;
        fprintf(stderr, "round %u, %s: %s %.4g, Pith's server %.4g, ratio %.2f\n", round + 1, rows[i].what,
                rows[i].against, *against, *ours, *ratio);
    }
    return true;
}

static void print_value(FILE *out, const row *r, double value) {
    fprintf(out, r->in_ms ? " %.1f ms |" : " %.0f tok/s |", r->in_ms ? 1e3 * value : value);
}

static void print(FILE *out, const char *table, bool *complete) {
    *complete = true;
    fputs("| what | tokens each | against | | `pith serve` | ratio (all rounds) | must reach |\n"
          "| --- | --- | --- | --- | --- | --- | --- |\n",
          out);
    for (int i = 0; i < N_ROWS; i++) {
        const row *r = &rows[i];
        const uint32_t n = results[i].n;
        if (strcmp(r->table, table) != 0) continue;
        if (n == 0) *complete = false;
        if (n == 0) continue;
        fprintf(out, "| %s | %u | %s |", r->what, r->n_new, r->against);
        print_value(out, r, median(results[i].against, n));
        print_value(out, r, median(results[i].ours, n));
        fprintf(out, " **%.2f**%s (%.2f to %.2f) | %s |\n", median(results[i].ratio, n), r->in_ms ? " steps more" : "",
                smallest(results[i].ratio, n), largest(results[i].ratio, n), r->target);
    }
}

bool serve_has(const char *list) { return listed("serve", list); }
bool serve_round(const bench *b, const char *list, uint32_t round) { return measure(b, "serve", list, round); }
void serve_print(const bench *b, FILE *out, bool *complete) { (void)b, print(out, "serve", complete); }

bool serve8k_has(const char *list) { return listed("serve8k", list); }
bool serve8k_round(const bench *b, const char *list, uint32_t round) { return measure(b, "serve8k", list, round); }
void serve8k_print(const bench *b, FILE *out, bool *complete) { (void)b, print(out, "serve8k", complete); }
