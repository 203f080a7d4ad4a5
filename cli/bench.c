// pith bench: how fast a model generates under each policy, and in how much memory.
#include <errno.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "args.h"
#include "bandwidth.h"
#include "base/clock.h"
#include "base/machine.h"
#include "bench_report.h"
#include "interrupt.h"
#include "meter.h"
#include "outfile.h"
#include "policies.h"
#include "sampled.h"
#include "text.h"
#include "verbs.h"

enum { MOST_BATCHES = 16, MOST_LENGTHS = 16, STEPS_AT_ROWS = 128 };

static struct options {
    const char *model, *shape, *type, *device, *kv, *policies, *batches, *lengths, *rows, *stagger, *json, *csv, *svg;
    uint32_t prompt, threads, sample_steps;
    uint64_t budget, bandwidth, seed;
    float temperature;
} opt = {.device = "cpu",
         .kv = "auto",
         .batches = "1,8,16,32",
         .lengths = "4096,8192,16384,32768",
         .stagger = "off",
         .prompt = 128};

static arg args[] = {
    {.kind = ARG_GROUP, .help = "Model (one of the first two)"},
    {ARG_TEXT, "--model", "-m", "FILE", &opt.model, 0, 0, "GGUF file", false},
    {ARG_TEXT, "--shape", NULL, "NAME", &opt.shape, 0, 0,
     "random weights of a known model's shape, no file (list below)", false},
    {ARG_TEXT, "--type", NULL, "TYPE", &opt.type, 0, 0,
     "of a shape's weights: bf16, f16, f32, q8_0, q4_0, q5_0, q4_k, q6_k, q4_k_m (bf16)", false},
    {.kind = ARG_GROUP, .help = "What is measured: every combination"},
    {ARG_TEXT, "--policy", NULL, "SPEC;SPEC", &opt.policies, 0, 0,
     "policies (full;rpc:p=1024;rpc:p=4096; with --rows full)", false},
    {ARG_TEXT, "--batch", NULL, "N,N", &opt.batches, 0, 0, "sequences at once (1,8,16,32)", false},
    {ARG_TEXT, "--lengths", NULL, "N,N", &opt.lengths, 0, 0, "tokens that each generates (4096,8192,16384,32768)",
     false},
    {ARG_TEXT, "--rows", NULL, "N,N", &opt.rows, 0, 0,
     "not whole generations: steps at so many cached rows of each sequence", false},
    {ARG_COUNT, "--prompt", NULL, "N", &opt.prompt, 1, 1 << 20, "random tokens in front of them (128)", false},
    {ARG_TEXT, "--stagger", NULL, "on|off", &opt.stagger, 0, 0,
     "on: also with starts spread over a period, so that compressions do not coincide (off)", false},
    {ARG_COUNT, "--sample-steps", NULL, "N", &opt.sample_steps, 1, 1 << 16,
     "extrapolate from N steps at a few lengths of the cache instead of running every step; with --rows: how many "
     "(128)",
     false},
    {ARG_REAL, "--temperature", NULL, "T", &opt.temperature, 0, 100, "0: greedy (0)", false},
    {ARG_SEED, "--seed", NULL, "N", &opt.seed, 0, 0, "of weights, prompts and draws (0)", false},
    {.kind = ARG_GROUP, .help = "Running"},
    {ARG_TEXT, "--device", NULL, "NAME", &opt.device, 0, 0, "cpu, cuda or cuda:N (cpu)", false},
    {ARG_COUNT, "--threads", NULL, "N", &opt.threads, 1, 128, "most threads of a step (all CPUs)", false},
    {ARG_TEXT, "--kv", NULL, "TYPE", &opt.kv, 0, 0, "type of the cache: f16, f32 (CPU), bf16 (GPU) or auto (auto)",
     false},
    {ARG_BYTES, "--kv-budget", NULL, "BYTES", &opt.budget, 0, 0, "most memory of the cache, such as 2G (what is there)",
     false},
    {ARG_BYTES, "--bandwidth", NULL, "BYTES", &opt.bandwidth, 0, 0,
     "a second that can be read, such as 4000G (measured)", false},
    {.kind = ARG_GROUP, .help = "Results, beside the table on stdout"},
    {ARG_TEXT, "--json", NULL, "FILE", &opt.json, 0, 0, "settings and every number", false},
    {ARG_TEXT, "--csv", NULL, "FILE", &opt.csv, 0, 0, "every number, a line for each row of the table", false},
    {ARG_TEXT, "--svg", NULL, "FILE", &opt.svg, 0, 0, "throughput and peak memory against the length", false},
};
enum { N_ARGS = sizeof args / sizeof *args };

static void list_shapes(char *out, size_t capacity) {
    size_t at = 0;
    for (size_t i = 0; pith_model_shape_at(i) && at < capacity; i++)
        at += (size_t)snprintf(out + at, capacity - at, "%s%s", i ? ", " : "", pith_model_shape_at(i)->name);
}

void bench_help(void) {
    puts("usage: pith bench --model FILE | --shape NAME [options]\n\n"
         "Generates to a forced length and prints tokens per second over the whole generation, peak memory, the bytes\n"
         "that a step reads, the time from token to token and what compressions add to it. Defaults in parentheses.");
    args_help(args, N_ARGS);
    char shapes[512];
    list_shapes(shapes, sizeof shapes);
    printf("\nShapes: %s\n", shapes);
}

// ------------------------------------------------------------------------------------------------- a run

typedef struct bench {
    policies policies;
    uint32_t batch[MOST_BATCHES], length[MOST_LENGTHS]; // as given; ascending. With --rows a length is a number of rows
    size_t n_batches, n_lengths, n_phases;

    pith_model *model;
    pith_model_info info;
    pith_engine_params engine;                        // what every run's has in common
    char no_model[400];                               // why there is none: memory; "" when there is one
    uint64_t peak_bytes[MOST_POLICIES][MOST_LENGTHS]; // of cache, for one sequence
    uint64_t lane_bytes;                              // of a page in every lane
    uint32_t page_rows;
    double bandwidth; // bytes per second, 0: not known

    bench_row *rows; // as bench_grid has them
    char title[512];
    json_t *settings;
    outfile json, csv, svg;

    meter meter;
    char label[160];                 // what is measured now
    double started;                  // when, on the clock of base/clock.h
    uint64_t n_steps, n_steps_total; // over all runs
    int failure;                     // exit code of what ended the measurements
    double tokens, since;            // generated in the current run; its beginning
    pith_error err;
} bench;

static bench_row *row_of(bench *b, size_t batch, size_t phase, size_t length, size_t policy) {
    return &b->rows[((batch * b->n_phases + phase) * b->n_lengths + length) * b->policies.n + policy];
}

// --------------------------------------------------------------------------------------------- what is asked for

static int read_numbers(const char *name, const char *list, uint32_t most, uint32_t *out, size_t capacity, size_t *n) {
    for (const char *at = list;; at++) {
        char *end = (char *)(uintptr_t)at;
        const unsigned long x = *at >= '0' && *at <= '9' ? strtoul(at, &end, 10) : 0;
        if (x < 1 || x > most || (*end && *end != ',') || *n == capacity) // x is 0 where none begins
            return complain(EXIT_USAGE, "%s: expected at most %zu whole numbers from 1 to %u with commas, found \"%s\"",
                            name, capacity, most, list);
        out[(*n)++] = (uint32_t)x;
        at = end;
        if (!*at) return EXIT_OK;
    }
}

static int ascending(const void *a, const void *b) {
    const uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

static int make_rows(bench *b) {
    const size_t n = b->n_batches * b->n_phases * b->n_lengths * b->policies.n;
    if (!(b->rows = malloc(n * sizeof *b->rows))) return no_memory();
    for (size_t i = 0; i < b->n_batches; i++)
        for (size_t s = 0; s < b->n_phases; s++)
            for (size_t l = 0; l < b->n_lengths; l++)
                for (size_t p = 0; p < b->policies.n; p++) {
                    bench_row *row = row_of(b, i, s, l, p);
                    *row =
                        bench_row_make(b->policies.spec[p], b->policies.canonical[p], b->batch[i], b->length[l], s > 0);
                    row->extrapolated = opt.sample_steps > 0 && !opt.rows;
                }
    return EXIT_OK;
}

static int check_options(bench *b) {
    if (!opt.model == !opt.shape)
        return complain(EXIT_USAGE, "expected --model FILE or --shape NAME (pith help bench)");
    if (opt.model && opt.type) return complain(EXIT_USAGE, "--type goes with --shape: a file has its own types");
    if (strcmp(opt.stagger, "on") && strcmp(opt.stagger, "off"))
        return complain(EXIT_USAGE, "--stagger: expected on or off, found \"%s\"", opt.stagger);
    b->n_phases = strcmp(opt.stagger, "on") ? 1 : 2;
    if (opt.sample_steps > 0 && b->n_phases > 1)
        return complain(EXIT_USAGE, "--sample-steps goes with --stagger off: it measures no compression");
    if (opt.rows && b->n_phases > 1)
        return complain(EXIT_USAGE, "--rows goes with --stagger off: there is nothing to spread");
    if (opt.rows && opt.sample_steps == 0) opt.sample_steps = STEPS_AT_ROWS;
    if (!opt.policies) opt.policies = opt.rows ? "full" : "full;rpc:p=1024;rpc:p=4096";
    int code = policies_read(&b->policies, opt.policies);
    if (code == EXIT_OK)
        code = read_numbers("--batch", opt.batches, MEASURE_MOST_BATCH, b->batch, MOST_BATCHES, &b->n_batches);
    if (code == EXIT_OK)
        code = read_numbers(opt.rows ? "--rows" : "--lengths", opt.rows ? opt.rows : opt.lengths, 1 << 24, b->length,
                            MOST_LENGTHS, &b->n_lengths);
    if (code != EXIT_OK) return code;
    qsort(b->length, b->n_lengths, sizeof *b->length, ascending);
    b->engine = (pith_engine_params){.device = opt.device, .n_threads = opt.threads};
    if ((code = args_kv_type(opt.kv, &b->engine.kv_type)) != EXIT_OK) return code;
    if (opt.shape && !pith_model_shape_find(opt.shape)) {
        char shapes[512];
        list_shapes(shapes, sizeof shapes);
        return complain(EXIT_USAGE, "--shape: expected one of %s, found \"%s\"", shapes, opt.shape);
    }
    return make_rows(b);
}

static int open_files(bench *b) {
    int code = outfile_open(&b->json, opt.json);
    if (code == EXIT_OK) code = outfile_open(&b->csv, opt.csv);
    return code == EXIT_OK ? outfile_open(&b->svg, opt.svg) : code;
}

// ------------------------------------------------------------------------------------------------- the model

// What does not fit is a result. Anything else that goes wrong is not.
static int no_room(bench *b) {
    if (b->err.status != PITH_E_MEMORY) return failed(&b->err);
    snprintf(b->no_model, sizeof b->no_model, "%s", b->err.msg);
    return EXIT_OK;
}

static bool on_cpu(void) { return !strcmp(opt.device, "cpu"); }

static uint64_t longest_context(const bench *b) {
    const uint32_t last = b->length[b->n_lengths - 1];
    if (!opt.rows) return measure_context(opt.prompt, last);
    uint32_t batch = 0;
    for (size_t i = 0; i < b->n_batches; i++)
        if (b->batch[i] > batch) batch = b->batch[i];
    return measure_filled_context(last, opt.sample_steps, batch);
}

static int open_model(bench *b) {
    if (on_cpu() && opt.bandwidth == 0) { // before the model: it may leave no room for the buffer
        uint32_t n = opt.threads;
        if (n == 0) n = (uint32_t)sysconf(_SC_NPROCESSORS_ONLN);
        b->bandwidth = bandwidth_measure(n);
        bandwidth_release();
    }
    const pith_status status =
        opt.model ? pith_model_load(opt.model, NULL, &b->model, &b->err)
                  : pith_model_from_shape(pith_model_shape_find(opt.shape), opt.type ? opt.type : "bf16", opt.seed,
                                          opt.device, NULL, &b->model, &b->err);
    if (status != PITH_OK) return no_room(b);
    pith_model_describe(b->model, &b->info);
    const uint32_t last = b->length[b->n_lengths - 1];
    const uint64_t longest = longest_context(b);
    if (longest > b->info.n_ctx && opt.rows)
        return complain(EXIT_USAGE, "--rows %u needs %llu positions, the model has %u", last,
                        (unsigned long long)longest, b->info.n_ctx);
    if (longest > b->info.n_ctx)
        return complain(EXIT_USAGE, "--prompt %u and --lengths %u need %llu positions, the model has %u", opt.prompt,
                        last, (unsigned long long)longest, b->info.n_ctx);
    return EXIT_OK;
}

static json_t *settings_of(const bench *b, const pith_engine_info *e) {
    char *name = text_clean(b->info.name, strlen(b->info.name));
    static const char *const kv[] = {[PITH_KV_F16] = "f16", [PITH_KV_F32] = "f32", [PITH_KV_BF16] = "bf16"};
    json_t *j =
        json_pack("{s:s, s:s, s:s, s:I, s:I, s:I, s:s, s:s, s:I, s:s, s:I, s:f, s:f, s:I, s:b, s:b, s:s}", "model",
                  name ? name : "", "type", opt.shape ? opt.type ? opt.type : "bf16" : "file", "architecture",
                  b->info.architecture, "parameters", (json_int_t)b->info.n_parameters, "weight_bytes",
                  (json_int_t)b->info.weight_bytes, "weight_step_bytes", (json_int_t)b->info.step_bytes, "device",
                  e->device, "isa", e->isa, "threads", (json_int_t)e->n_threads, "kv", kv[e->kv_type], "prompt",
                  (json_int_t)opt.prompt, "temperature", (double)opt.temperature, "read_bytes_per_second", b->bandwidth,
                  "sample_steps", (json_int_t)opt.sample_steps, "stagger", !strcmp(opt.stagger, "on"), "rows",
                  opt.rows != NULL, "version", PITH_VERSION);
    free(name);
    return j;
}

static void set_title(bench *b, const pith_engine_info *e) {
    size_t n =
        (size_t)snprintf(b->title, sizeof b->title, "%s%s%s, ", b->info.name, opt.shape ? " (random weights) in " : "",
                         opt.shape ? opt.type ? opt.type : "bf16" : "");
    if (e->device_bytes_total > 0) n += (size_t)snprintf(b->title + n, sizeof b->title - n, "%s", e->device);
    else
        n += (size_t)snprintf(b->title + n, sizeof b->title - n, "%u thread%s of a CPU (%s)", e->n_threads,
                              e->n_threads == 1 ? "" : "s", e->isa);
    if (opt.rows) n += (size_t)snprintf(b->title + n, sizeof b->title - n, ", %u steps", opt.sample_steps);
    else n += (size_t)snprintf(b->title + n, sizeof b->title - n, ", prompt of %u tokens", opt.prompt);
    if (b->bandwidth > 0) snprintf(b->title + n, sizeof b->title - n, ", reads %.1f GB/s", b->bandwidth / 1e9);
}

// A small engine tells what a device is, what it reads in a second, and how much cache each length will need.
static int ask_engine(bench *b) {
    if (*b->no_model) {
        snprintf(b->title, sizeof b->title, "%s", opt.shape ? opt.shape : opt.model);
        b->settings = json_pack("{s:s}", "model", b->title);
        return b->settings ? EXIT_OK : no_memory();
    }
    pith_engine_params params = b->engine;
    params.max_sequences = 1, params.n_ctx = (uint32_t)longest_context(b), params.kv_budget_bytes = 64 << 20;
    pith_engine *engine;
    if (pith_engine_new(b->model, &params, &engine, &b->err) != PITH_OK) {
        const int code = no_room(b);
        return code == EXIT_OK ? ask_engine(b) : code;
    }
    pith_engine_info e;
    pith_engine_describe(engine, &e);
    if (e.read_bytes_per_second > 0) b->bandwidth = e.read_bytes_per_second;
    if (opt.bandwidth > 0) b->bandwidth = (double)opt.bandwidth;
    b->lane_bytes = (uint64_t)b->info.n_layers * b->info.n_kv_heads * e.page_bytes;
    b->page_rows = e.page_rows;
    pith_status status = PITH_OK;
    for (size_t p = 0; p < b->policies.n; p++)
        for (size_t l = 0; l < b->n_lengths && status == PITH_OK; l++)
            status = pith_peak_bytes(engine, b->policies.canonical[p], opt.rows ? b->length[l] : opt.prompt,
                                     (opt.rows ? opt.sample_steps : b->length[l]) + 1, &b->peak_bytes[p][l], &b->err);
    pith_engine_free(engine);
    if (status != PITH_OK) return failed(&b->err);
    set_title(b, &e);
    b->settings = settings_of(b, &e);
    if (*e.note) fprintf(stderr, "pith: %s\n", e.note);
    return b->settings ? EXIT_OK : no_memory();
}

// ---------------------------------------------------------------------------------------------------- progress

static bool on_step(void *ctx, uint32_t n_tokens) {
    bench *b = ctx;
    const double now = pith_seconds();
    b->tokens += n_tokens, b->n_steps += n_tokens > 0;
    meter_state state = {.done = b->n_steps, .total = b->n_steps_total, .label = b->label, .unit = "tokens/s"};
    if (now > b->since) state.per_second = b->tokens / (now - b->since);
    if (b->n_steps > 0)
        state.seconds_left = (now - b->started) / (double)b->n_steps * (double)(b->n_steps_total - b->n_steps);
    meter_show(&b->meter, &state);
    return !interrupted;
}

// --------------------------------------------------------------------------------------------------- measuring

// Steps between the starts of two sequences: a period of the policy (of the slowest one, for a policy without), shared
// by the batch; but starts take no more than half of the shortest generation.
static uint32_t spacing_of(const bench *b, size_t policy, uint32_t batch) {
    uint32_t own = 0, longest = 0;
    for (size_t p = 0; p < b->policies.n; p++) {
        const char *option = strstr(b->policies.canonical[p], ":p=");
        const uint32_t period = option ? (uint32_t)strtoul(option + 3, NULL, 10) : 0;
        if (p == policy) own = period;
        if (period > longest) longest = period;
    }
    const uint32_t period = own ? own : longest, most = b->length[0] / 2 / (batch - 1);
    const uint32_t spacing = period > 0 && period / batch < most ? period / batch : most;
    return spacing > 0 ? spacing : 1;
}

static void note_no_memory(bench_row *row, const char *why) {
    row->outcome = BENCH_NO_MEMORY;
    snprintf(row->why, sizeof row->why, "%s", why);
}

// Does the cache fit? Asked here where memory is not taken before it is used, so that nothing else would answer.
static bool fits(bench_row *row, uint64_t bytes) {
    uint64_t there = on_cpu() ? pith_available_bytes() : UINT64_MAX;
    if (opt.budget > 0 && opt.budget < there) there = opt.budget;
    row->value[BENCH_NEEDED] = (double)bytes;
    if (bytes <= there) return true;
    char needs[BENCH_SIZE], has[BENCH_SIZE], why[120];
    bench_size((double)bytes, needs);
    bench_size((double)there, has);
    snprintf(why, sizeof why, "the cache needs %s, %s are there", needs, has);
    note_no_memory(row, why);
    return false;
}

static int fill_rows(bench *b, const measurement *m, size_t batch, size_t phase, size_t policy, size_t length) {
    for (size_t l = 0; l <= length; l++) {
        bench_row *row = row_of(b, batch, phase, l, policy);
        if (b->length[l] <= m->ahead) {
            row->outcome = BENCH_TOO_SHORT;
            continue;
        }
        const uint32_t n = b->length[l] - m->ahead;
        if (n > m->n) break; // interrupted
        if (!bench_row_fill(row, m, n, (double)b->info.step_bytes, b->bandwidth)) return no_memory();
    }
    return EXIT_OK;
}

static measure_job job_of(bench *b, size_t batch, size_t phase, size_t length, size_t policy) {
    const uint32_t n_seqs = b->batch[batch];
    measure_job job = {.model = b->model,
                       .engine = b->engine,
                       .policy = b->policies.canonical[policy],
                       .batch = n_seqs,
                       .prompt = opt.rows ? b->length[length] : opt.prompt,
                       .n_steps = opt.rows ? opt.sample_steps : b->length[length],
                       .spacing = phase > 0 ? spacing_of(b, policy, n_seqs) : 0,
                       .filled = opt.rows != NULL,
                       .temperature = opt.temperature,
                       .seed = opt.seed,
                       .go_on = on_step,
                       .ctx = b};
    // Those that are filled get what their contexts take: some tokens more than the steps that are measured.
    const bench_row *row = row_of(b, batch, phase, length, policy);
    job.engine.kv_budget_bytes = job.filled ? UINT64_MAX : (uint64_t)row->value[BENCH_NEEDED];
    return job;
}

// *m has no steps where something did not fit, which the row then says.
static int measure_row(bench *b, size_t batch, size_t phase, size_t length, size_t policy, measurement *m) {
    *m = (measurement){0};
    bench_row *row = row_of(b, batch, phase, length, policy);
    if (!fits(row, (uint64_t)row->value[BENCH_NEEDED])) return EXIT_OK;
    const measure_job job = job_of(b, batch, phase, length, policy);
    const pith_status status =
        row->extrapolated ? sampled_run(&job, opt.sample_steps, m, &b->err) : measure_run(&job, m, &b->err);
    if (status == PITH_E_MEMORY) note_no_memory(row, b->err.msg);
    return status == PITH_OK || status == PITH_E_MEMORY ? EXIT_OK : failed(&b->err);
}

// One generation serves all lengths: what is said of a shorter one is what had happened by then. Where the longest does
// not fit, the next one is tried.
static int run_generations(bench *b, size_t batch, size_t phase, size_t policy) {
    for (size_t l = b->n_lengths; l-- > 0;) {
        measurement m;
        int code = measure_row(b, batch, phase, l, policy, &m);
        const bool none = row_of(b, batch, phase, l, policy)->outcome == BENCH_NO_MEMORY;
        if (code == EXIT_OK && !none) code = fill_rows(b, &m, batch, phase, policy, l);
        measure_free(&m);
        if (code != EXIT_OK || !none) return code;
    }
    return EXIT_OK;
}

static int run_at_rows(bench *b, size_t batch, size_t policy) {
    for (size_t l = 0; l < b->n_lengths && !interrupted; l++) {
        measurement m;
        bench_row *row = row_of(b, batch, 0, l, policy);
        int code = measure_row(b, batch, 0, l, policy, &m);
        if (code == EXIT_OK && m.n > 0 && m.n == opt.sample_steps &&
            !bench_row_fill(row, &m, m.n, (double)b->info.step_bytes, b->bandwidth))
            code = no_memory();
        measure_free(&m);
        if (code != EXIT_OK) return code;
    }
    return EXIT_OK;
}

static int run_one(bench *b, size_t batch, size_t phase, size_t policy) {
    const uint32_t n_seqs = b->batch[batch];
    for (size_t l = 0; l < b->n_lengths; l++) {
        uint64_t bytes = n_seqs * b->peak_bytes[policy][l];
        // Sequences that start from one prompt copy its last page, unless it is full; the first one owns it already.
        if (!opt.rows && opt.prompt % b->page_rows != 0) bytes += b->lane_bytes;
        row_of(b, batch, phase, l, policy)->value[BENCH_NEEDED] = (double)bytes;
    }
    return opt.rows ? run_at_rows(b, batch, policy) : run_generations(b, batch, phase, policy);
}

static void note_speedups(bench *b, size_t batch, size_t phase, size_t length) {
    double full = NAN;
    for (size_t p = 0; p < b->policies.n; p++)
        if (isnan(full) && !strcmp(b->policies.canonical[p], "full"))
            full = row_of(b, batch, phase, length, p)->value[BENCH_RATE];
    for (size_t p = 0; p < b->policies.n; p++) {
        bench_row *row = row_of(b, batch, phase, length, p);
        row->value[BENCH_SPEEDUP] = row->value[BENCH_RATE] / full;
    }
}

static int measure_all(bench *b) {
    const uint32_t longest = b->length[b->n_lengths - 1];
    const uint64_t n_runs = b->n_batches * b->n_phases * b->policies.n;
    const uint64_t n_points = opt.rows ? b->n_lengths : 5; // of sampled.c
    b->n_steps_total = n_runs * (opt.sample_steps > 0 ? n_points * opt.sample_steps : longest);
    b->started = pith_seconds();
    meter_begin(&b->meter, false);
    int code = EXIT_OK;
    uint64_t done = 0; // runs
    for (size_t i = 0; i < b->n_batches; i++)
        for (size_t s = 0; s < b->n_phases; s++)
            for (size_t p = 0; p < b->policies.n; p++, done++) {
                if (code != EXIT_OK || interrupted) continue;
                for (size_t l = 0; *b->no_model && l < b->n_lengths; l++)
                    note_no_memory(row_of(b, i, s, l, p), b->no_model);
                if (s > 0 && b->batch[i] == 1) // nothing to spread
                    for (size_t l = 0; l < b->n_lengths; l++)
                        snprintf(row_of(b, i, s, l, p)->why, sizeof b->rows->why,
                                 "one sequence has no other to wait for");
                else if (!*b->no_model) {
                    snprintf(b->label, sizeof b->label, "%s, batch %u%s", b->policies.spec[p], b->batch[i],
                             s ? ", staggered" : "");
                    b->tokens = 0, b->since = pith_seconds();
                    code = run_one(b, i, s, p);
                }
                b->n_steps = (done + 1) * (b->n_steps_total / n_runs); // shorter runs are as good as whole ones
            }
    meter_end(&b->meter);
    for (size_t i = 0; i < b->n_batches; i++)
        for (size_t s = 0; s < b->n_phases; s++)
            for (size_t l = 0; l < b->n_lengths; l++) note_speedups(b, i, s, l);
    b->failure = code;
    return EXIT_OK; // what was measured before is shown all the same
}

// --------------------------------------------------------------------------------------------------- reporting

static int report(bench *b) {
    const bench_grid grid = {.rows = b->rows,
                             .n_batches = b->n_batches,
                             .n_phases = b->n_phases,
                             .n_lengths = b->n_lengths,
                             .n_policies = b->policies.n,
                             .at_rows = opt.rows != NULL,
                             .title = b->title,
                             .settings = b->settings};
    if (!bench_report_table(stdout, &grid)) return complain(EXIT_FAILED, "standard output: %s", strerror(errno));
    int code = outfile_keep(&b->json, !b->json.file || bench_report_json(b->json.file, &grid));
    if (code == EXIT_OK) code = outfile_keep(&b->csv, !b->csv.file || bench_report_csv(b->csv.file, &grid));
    if (code == EXIT_OK) code = outfile_keep(&b->svg, !b->svg.file || bench_report_svg(b->svg.file, &grid));
    if (code == EXIT_OK) code = b->failure;
    if (code == EXIT_OK && interrupted) code = complain(EXIT_INTERRUPTED, "interrupted: rows that say so were not run");
    return code;
}

static int close_bench(bench *b, int code) {
    outfile_drop(&b->json);
    outfile_drop(&b->csv);
    outfile_drop(&b->svg);
    json_decref(b->settings);
    pith_model_free(b->model);
    free(b->rows);
    policies_free(&b->policies);
    return code;
}

int bench_main(int argc, char **argv) {
    int code = args_parse(args, N_ARGS, 2, argc, argv);
    if (code != EXIT_OK) return code;
    signal(SIGPIPE, SIG_IGN); // a reader that goes away, or a file that may not grow, is an error of the write
    signal(SIGXFSZ, SIG_IGN);
    interrupt_catch_ends();

    static bench b;
    static int (*const steps[])(bench *) = {check_options, open_files, open_model, ask_engine, measure_all, report};
    for (size_t i = 0; i < sizeof steps / sizeof *steps && code == EXIT_OK; i++) code = steps[i](&b);
    return close_bench(&b, code);
}
