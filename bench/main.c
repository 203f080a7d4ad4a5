// The benchmark: Pith and llama.cpp in turn, round after round, on the same file. See docs/bench.md.
#include <stdlib.h>
#include <string.h>

#include "bench.h"

static const char usage[] =
    "usage: pith_bench --model FILE --peer FOLDER [options]\n\n"
    "Measures Pith and llama.cpp in turn and prints tables of medians. A number never makes it fail.\n\n"
    "  --model FILE    a GGUF model, made with random weights when it is missing\n"
    "  --peer FOLDER   has llama-bench, llama-batched-bench and llama-server\n"
    "  --program FILE  pith, for the rows serve and serve8k\n"
    "  --served FILE   the model of these rows\n"
    "  --rows LIST     of decode, depth, prefill, batch, compete, long, serve, serve8k, with commas (the first five)\n"
    "  --rounds N      1 to 32 (3)\n"
    "  --threads N     of both, 1 to 128 (2)\n"
    "  --report FILE   Markdown file whose tables are replaced, those that are complete\n"
    "  --commit NAME   what the report calls the tree that was measured (unknown)\n";

static const struct table {
    const char *name; // of its place in the report
    bool (*has)(const char *rows);
    bool (*round)(const bench *, const char *rows, uint32_t round);
    void (*print)(const bench *, FILE *out, bool *complete);
} tables[] = {
    {"speed", speed_has, speed_round, speed_print},         {"compete", compete_has, compete_round, compete_print},
    {"long", reason_has, reason_round, reason_print},       {"serve", serve_has, serve_round, serve_print},
    {"serve8k", serve8k_has, serve8k_round, serve8k_print},
};
enum { N_TABLES = sizeof tables / sizeof *tables };

static bool bad_usage(const char *what, const char *found) {
    fprintf(stderr, "bench: %s \"%s\" (--help lists the options)\n", what, found);
    return false;
}

static bool parse_count(const char *text, uint32_t most, uint32_t *out) {
    char *end;
    const unsigned long n = strtoul(text, &end, 10);
    if (*text < '0' || *text > '9' || *end || n < 1 || n > most) return false;
    *out = (uint32_t)n;
    return true;
}

static bool check_rows(const char *rows) {
    static const char known[] = "decode,depth,prefill,batch,compete,long,serve,serve8k";
    for (const char *at = rows;; at++) {
        char name[16];
        const size_t n = strcspn(at, ",");
        snprintf(name, sizeof name, "%.*s", (int)(n < sizeof name ? n : sizeof name), at);
        if (n == 0 || n >= sizeof name || !listed(name, known)) return bad_usage("--rows: no such row", rows);
        at += n;
        if (!*at) return true;
    }
}

static bool parse(int argc, char **argv, bench *b, const char **rows) {
    for (int i = 1; i < argc; i += 2) {
        const char *name = argv[i], *value = i + 1 < argc ? argv[i + 1] : NULL;
        if (!value) return bad_usage("expected a value behind", name);
        if (!strcmp(name, "--model")) b->model_path = value;
        else if (!strcmp(name, "--peer")) b->peer_dir = value;
        else if (!strcmp(name, "--program")) b->program = value;
        else if (!strcmp(name, "--served")) b->served_path = value;
        else if (!strcmp(name, "--report")) b->report = value;
        else if (!strcmp(name, "--commit")) b->commit = value;
        else if (!strcmp(name, "--rows")) *rows = value;
        else if (!strcmp(name, "--rounds")) {
            if (!parse_count(value, MAX_ROUNDS, &b->n_rounds)) return bad_usage("--rounds: expected 1 to 32:", value);
        } else if (!strcmp(name, "--threads")) {
            if (!parse_count(value, 128, &b->n_threads)) return bad_usage("--threads: expected 1 to 128:", value);
        } else return bad_usage("no such option:", name);
    }
    if (!b->model_path) return bad_usage("missing:", "--model");
    if (!b->peer_dir) return bad_usage("missing:", "--peer");
    const bool serves = serve_has(*rows) || serve8k_has(*rows);
    if (serves && !b->program) return bad_usage("missing:", "--program");
    if (serves && !b->served_path) return bad_usage("missing:", "--served");
    return check_rows(*rows);
}

static bool measure(bench *b, const char *rows) {
    for (uint32_t round = 0; round < b->n_rounds; round++) {
        b->bandwidth[round] = bandwidth_measure(b->n_threads);
        if (b->bandwidth[round] <= 0) {
            fprintf(stderr, "bench: the bandwidth of the memory cannot be measured\n");
            return false;
        }
        fprintf(stderr, "round %u: the machine reads %.1f GB/s\n", round + 1, 1e-9 * b->bandwidth[round]);
        for (int i = 0; i < N_TABLES; i++)
            if (!tables[i].round(b, rows, round)) return false;
    }
    return true;
}

static bool describe_served(bench *b) {
    pith_model *model;
    pith_error err;
    if (pith_model_load(b->served_path, NULL, &model, &err) != PITH_OK) return ours_failed(&err);
    pith_model_describe(model, &b->served);
    pith_model_free(model);
    return true;
}

// Prints the table, and writes it into the report when nothing of it is missing.
static bool publish(const bench *b, const struct table *table) {
    char *text = NULL;
    size_t bytes = 0;
    FILE *out = open_memstream(&text, &bytes);
    if (!out) return false;
    bool complete;
    table->print(b, out, &complete);
    fputc('\n', out);
    report_setting(b, out);
    bool ok = fclose(out) == 0;
    if (ok) printf("\n%s", text);
    if (ok && complete && b->report) ok = report_replace(b->report, table->name, text);
    free(text);
    return ok;
}

int main(int argc, char **argv) {
    bench b = {.n_threads = 2, .n_rounds = 3, .commit = "unknown"};
    const char *rows = "decode,depth,prefill,batch,compete";
    if (argc == 2 && !strcmp(argv[1], "--help")) return fputs(usage, stdout), 0;
    if (!parse(argc, argv, &b, &rows)) return 2;
    if (!model_make(b.model_path)) return 1;
    pith_error err;
    if (pith_model_load(b.model_path, NULL, &b.model, &err) != PITH_OK) return ours_failed(&err), 1;
    pith_model_describe(b.model, &b.info);
    if (b.served_path && !describe_served(&b)) return 1;

    bool ok = measure(&b, rows);
    for (int i = 0; ok && i < N_TABLES; i++)
        if (tables[i].has(rows)) ok = publish(&b, &tables[i]);
    pith_model_free(b.model);
    return ok ? 0 : 1;
}
