// Decoding beside a process that takes one CPU's time: what remains, with all threads and with one.
#include <stdio.h>

#include "bench.h"

enum { NO_RIVAL = -1 };

static const struct compete_row {
    const char *what;
    int nice; // of the rival
} rows[] = {
    {"none", NO_RIVAL}, // what the losses are measured against: first
    {"a busy loop", 0},
    {"a busy loop at nice 10", 10},
};
enum { N_ROWS = sizeof rows / sizeof *rows };

// Longer than the other rows' 128 tokens: the engine has to notice first, and that counts.
static const workload ours_work = {1, 0, 256, 1}, peer_work = {1, 0, 128, 1};

static struct {
    double peer[MAX_ROUNDS], all[MAX_ROUNDS], one[MAX_ROUNDS], ratio[MAX_ROUNDS];
    double peer_left[MAX_ROUNDS]; // of the peer's rate without a rival
} results[N_ROWS];
static uint32_t n_rounds;

bool compete_has(const char *list) { return listed("compete", list); }

bool compete_round(const bench *b, const char *list, uint32_t round) {
    if (!compete_has(list)) return true;
    for (int i = 0; i < N_ROWS; i++) {
        double *peer = &results[i].peer[round], *all = &results[i].all[round], *one = &results[i].one[round];
        int rival = 0;
        if (rows[i].nice != NO_RIVAL && !rival_start(rows[i].nice, &rival)) return false;
        const bool ok = peer_rate(b, &peer_work, peer) && ours_rate(b, b->n_threads, &ours_work, all) &&
                        ours_rate(b, 1, &ours_work, one);
        if (rival) rival_stop(rival);
        if (!ok) return false;
        results[i].ratio[round] = *all / *one;
        results[i].peer_left[round] = *peer / results[0].peer[round];
        fprintf(stderr, "round %u, competitor: %s: llama.cpp %.1f tokens/s, Pith %.1f, one thread %.1f, ratio %.2f\n",
                round + 1, rows[i].what, *peer, *all, *one, *all / *one);
    }
    n_rounds = round + 1;
    return true;
}

static void print_rate(const bench *b, FILE *out, const double *rates, const workload *w) {
    const double rate = median(rates, n_rounds);
    fprintf(out, " | %.1f tok/s, %.1f GB/s", rate, 1e-9 * rate * step_bytes(b, w));
}

void compete_print(const bench *b, FILE *out, bool *complete) {
    *complete = n_rounds > 0;
    fprintf(out,
            "A step reads %.0f MB.\n\n"
            "| competitor | llama.cpp, %u threads | Pith, at most %u threads | Pith, 1 thread | ratio of Pith's two "
            "(all rounds) | must reach |\n| --- | --- | --- | --- | --- | --- |\n",
            1e-6 * step_bytes(b, &ours_work), b->n_threads, b->n_threads);
    for (int i = 0; i < N_ROWS && n_rounds > 0; i++) {
        fprintf(out, "| %s", rows[i].what);
        print_rate(b, out, results[i].peer, &peer_work);
        if (i > 0) fprintf(out, ", loses %.0f %%", 100 - 100 * median(results[i].peer_left, n_rounds));
        print_rate(b, out, results[i].all, &ours_work);
        print_rate(b, out, results[i].one, &ours_work);
        fprintf(out, " | **%.2f** (%.2f to %.2f) | %s |\n", median(results[i].ratio, n_rounds),
                smallest(results[i].ratio, n_rounds), largest(results[i].ratio, n_rounds), i > 0 ? "≥ 0.85" : "");
    }
}
