// Pith against llama.cpp on an idle machine.
#include <stdio.h>

#include "bench.h"

static const struct speed_row {
    const char *name;
    const char *what;
    workload work;
    const char *target; // of Pith's rate divided by llama.cpp's
} rows[] = {
    {"decode", "decode, empty cache", {1, 0, 128, 3}, "≥ 0.97"},
    {"depth", "decode at 8192 rows, full KV", {1, 8192, 64, 1}, "≥ 1.7, and ≥ 85 % of the bandwidth"},
    {"prefill", "prefill of 512 tokens", {1, 512, 0, 3}, "≥ 0.9"},
    {"batch", "8 sequences decoding at 2048 rows each", {8, 2048, 64, 1}, "≥ 1.4; goal 2.5"},
};
enum { N_ROWS = sizeof rows / sizeof *rows };

enum { TRIES = 3 };
#define STEADY 1.25 // bandwidths of two moments differ by less, as long as nothing has happened to the machine

static struct {
    double peer[MAX_ROUNDS], ours[MAX_ROUNDS], ratio[MAX_ROUNDS];
    double peer_bandwidth[MAX_ROUNDS], ours_bandwidth[MAX_ROUNDS]; // around the measurement
    uint32_t n;                                                    // rounds
} results[N_ROWS];

bool speed_has(const char *list) {
    for (int i = 0; i < N_ROWS; i++)
        if (listed(rows[i].name, list)) return true;
    return false;
}

// One row of one round. The bandwidth is measured before, between and after, since a virtual machine's CPUs move about
// on their host: two that have come to share a core read hardly more than one. A pair that saw such a change is
// repeated.
static bool measure_pair(const bench *b, int row, uint32_t round) {
    const workload *w = &rows[row].work;
    for (int left = TRIES - 1;; left--) {
        double bandwidth[3], peer, ours;
        bandwidth[0] = bandwidth_measure(b->n_threads);
        if (!peer_rate(b, w, &peer)) return false;
        bandwidth[1] = bandwidth_measure(b->n_threads);
        if (!ours_rate(b, b->n_threads, w, &ours)) return false;
        bandwidth[2] = bandwidth_measure(b->n_threads);
        results[row].peer[round] = peer, results[row].ours[round] = ours, results[row].ratio[round] = ours / peer;
        results[row].peer_bandwidth[round] = (bandwidth[0] + bandwidth[1]) / 2;
        results[row].ours_bandwidth[round] = (bandwidth[1] + bandwidth[2]) / 2;
        const double least = smallest(bandwidth, 3), most = largest(bandwidth, 3);
        const bool again = most > STEADY * least && left > 0;
        fprintf(stderr, "round %u, %s: llama.cpp %.1f tokens/s, Pith %.1f, ratio %.2f; bandwidth %.1f to %.1f GB/s%s\n",
                round + 1, rows[row].name, peer, ours, ours / peer, 1e-9 * least, 1e-9 * most, again ? ": again" : "");
        if (!again) return true;
    }
}

bool speed_round(const bench *b, const char *list, uint32_t round) {
    for (int i = 0; i < N_ROWS; i++) {
        if (!listed(rows[i].name, list)) continue;
        if (!measure_pair(b, i, round)) return false;
        results[i].n = round + 1;
    }
    return true;
}

// A cell: tokens/s, and for decode the memory traffic that this rate means.
static void print_rate(const bench *b, FILE *out, const workload *w, const double *rate, const double *bandwidth,
                       uint32_t n) {
    const double bytes = step_bytes(b, w);
    double traffic[MAX_ROUNDS], share[MAX_ROUNDS];
    for (uint32_t i = 0; i < n; i++) {
        traffic[i] = rate[i] / w->n_seqs * bytes;
        share[i] = traffic[i] / bandwidth[i];
    }
    fprintf(out, " %.1f tok/s", median(rate, n));
    if (bytes > 0) fprintf(out, ", %.1f GB/s, %.0f %%", 1e-9 * median(traffic, n), 100 * median(share, n));
    fputs(" |", out);
}

void speed_print(const bench *b, FILE *out, bool *complete) {
    *complete = true;
    fputs("| what | read per step | llama.cpp | Pith | ratio (all rounds) | must reach |\n"
          "| --- | --- | --- | --- | --- | --- |\n", out);
    for (int i = 0; i < N_ROWS; i++) {
        const uint32_t n = results[i].n;
        if (n == 0) {
            *complete = false;
            continue;
        }
        const double bytes = step_bytes(b, &rows[i].work);
        fprintf(out, "| %s |", rows[i].what);
        if (bytes > 0) fprintf(out, " %.0f MB |", 1e-6 * bytes);
        else fputs(" |", out);
        print_rate(b, out, &rows[i].work, results[i].peer, results[i].peer_bandwidth, n);
        print_rate(b, out, &rows[i].work, results[i].ours, results[i].ours_bandwidth, n);
        fprintf(out, " **%.2f** (%.2f to %.2f) | %s |\n", median(results[i].ratio, n), smallest(results[i].ratio, n),
                largest(results[i].ratio, n), rows[i].target);
    }
}
