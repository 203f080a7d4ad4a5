// pith eval: what compression does to answers.
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "args.h"
#include "eval/answer.h"
#include "eval/fail.h"
#include "eval/page.h"
#include "eval/schedule.h"
#include "eval/store.h"
#include "interrupt.h"
#include "meter.h"
#include "outfile.h"
#include "policies.h"
#include "text.h"
#include "verbs.h"

enum { MOST_BATCH = 512 };

static struct options {
    const char *task, *model, *device, *kv, *policies, *data, *out, *shard, *by, *html;
    bool json, markdown;
    uint32_t samples, batch, max_new, limit, threads, context;
    float temperature, top_p;
    uint64_t seed, budget;
} opt = {.device = "cpu",
         .kv = "auto",
         .policies = "full;rpc",
         .by = "band",
         .samples = 1,
         .batch = 8,
         .max_new = 16384,
         .temperature = 0.6f,
         .top_p = 0.95f};

static arg args[] = {
    {.kind = ARG_GROUP, .help = "Model"},
    {ARG_TEXT, "--model", "-m", "FILE", &opt.model, 0, 0, "GGUF file with a chat template", false},
    {ARG_COUNT, "--context", NULL, "N", &opt.context, 16, 1 << 24,
     "most tokens of a prompt and its answer (the model's)", false},
    {ARG_TEXT, "--device", NULL, "NAME", &opt.device, 0, 0, "cpu, cuda or cuda:N (cpu)", false},
    {ARG_COUNT, "--threads", NULL, "N", &opt.threads, 1, 128, "most threads of a step (all CPUs)", false},
    {.kind = ARG_GROUP, .help = "What is compared"},
    {ARG_TEXT, "--policy", NULL, "SPEC;SPEC", &opt.policies, 0, 0,
     "policies; others are compared with the first (full;rpc)", false},
    {ARG_COUNT, "--samples", NULL, "N", &opt.samples, 1, 1 << 16, "answers to each problem (1)", false},
    {ARG_COUNT, "--limit", NULL, "N", &opt.limit, 1, UINT32_MAX, "the first N problems only", false},
    {ARG_TEXT, "--shard", NULL, "I/N", &opt.shard, 0, 0, "every N-th problem from the I-th on, I from 1", false},
    {ARG_TEXT, "--data", NULL, "PATH", &opt.data, 0, 0, "file or folder of the task's problems", false},
    {.kind = ARG_GROUP, .help = "Answers"},
    {ARG_COUNT, "--max-tokens", "-n", "N", &opt.max_new, 1, 1 << 24, "most tokens of an answer (16384)", false},
    {ARG_REAL, "--temperature", NULL, "T", &opt.temperature, 0, 100, "(0.6)", false},
    {ARG_REAL, "--top-p", NULL, "P", &opt.top_p, 1e-6, 1, "(0.95)", false},
    {ARG_SEED, "--seed", NULL, "N", &opt.seed, 0, 0, "same seed, same samples (0)", false},
    {.kind = ARG_GROUP, .help = "Running"},
    {ARG_COUNT, "--batch", NULL, "B", &opt.batch, 1, MOST_BATCH, "answers generated at once; changes none (8)", false},
    {ARG_TEXT, "--kv", NULL, "TYPE", &opt.kv, 0, 0, "type of the cache: f16, f32 (CPU), bf16 (GPU) or auto (auto)",
     false},
    {ARG_BYTES, "--kv-budget", NULL, "BYTES", &opt.budget, 0, 0, "most memory of the cache, such as 2G", false},
    {.kind = ARG_GROUP, .help = "Results"},
    {ARG_TEXT, "--out", "-o", "DIR", &opt.out, 0, 0, "folder of the samples; a run goes on where it stopped", false},
    {ARG_TEXT, "--by", NULL, "FIELD", &opt.by, 0, 0, "field of the problems that groups them, a table each (band)",
     false},
    {ARG_FLAG, "--markdown", NULL, NULL, &opt.markdown, 0, 0, "print one Markdown table instead", false},
    {ARG_FLAG, "--json", NULL, NULL, &opt.json, 0, 0, "print one JSON object instead of the table, no progress", false},
    {ARG_TEXT, "--html", NULL, "FILE", &opt.html, 0, 0, "write a page with tables and plots", false},
};
enum { N_ARGS = sizeof args / sizeof *args };

void eval_help(void) {
    puts("usage: pith eval TASK --model FILE --out DIR [options]\n\n"
         "TASK: pebble, aime24, aime25, or a file of JSON lines with prompt and answer. Samples are written to DIR\n"
         "as they end; the table follows on stdout when all are there. Defaults in parentheses.");
    args_help(args, N_ARGS);
}

// ------------------------------------------------------------------------------------------------- a run

typedef struct run {
    eval_files files;
    eval_task task;
    eval_part part;
    policies policies;
    eval_results results[MOST_POLICIES]; // (policies.n)
    eval_store stores[MOST_POLICIES];    // (policies.n)

    pith_model *model;
    pith_engine *engine;
    eval_prompt *prompts; // (task.n); empty for problems that this run is not about
    char (*names)[160];   // (task.n): where a problem stands
    json_t *settings;     // that make samples comparable

    meter meter;
    size_t policy;  // at work
    size_t n_total; // samples, over all policies
    outfile page;
    pith_error err;
} run;

// --------------------------------------------------------------------------------------------- what is asked for

static int read_policies(run *r) {
    const int code = policies_read(&r->policies, opt.policies);
    for (size_t i = 0; i < r->policies.n; i++)
        r->results[i].label = r->policies.spec[i], r->results[i].policy = r->policies.canonical[i];
    return code;
}

static int read_shard(eval_part *part) {
    part->shard = 0, part->n_shards = 1;
    if (!opt.shard) return EXIT_OK;
    unsigned i, n;
    int end = 0;
    if (opt.shard[0] < '0' || opt.shard[0] > '9' || sscanf(opt.shard, "%5u/%5u%n", &i, &n, &end) != 2 ||
        opt.shard[end] || i < 1 || i > n)
        return complain(EXIT_USAGE, "--shard: expected I/N with I from 1 to N, found \"%s\"", opt.shard);
    part->shard = i - 1, part->n_shards = n;
    return EXIT_OK;
}

static int check_options(run *r) {
    if (!opt.model) return complain(EXIT_USAGE, "expected --model FILE (pith help eval)");
    if (!opt.out) return complain(EXIT_USAGE, "expected --out DIR (pith help eval)");
    if (opt.json && opt.markdown) return complain(EXIT_USAGE, "expected --json or --markdown, found both");
    const int code = read_policies(r);
    return code == EXIT_OK ? read_shard(&r->part) : code;
}

// A task without bands is one group; a field that somebody asked for should be there.
static bool has_groups(const eval_task *task) {
    for (size_t i = 0; i < task->n; i++)
        if (eval_problem_text(&task->problems[i], opt.by)) return true;
    return strcmp(opt.by, "band") == 0;
}

static int load_task(run *r) {
    if (eval_files_find(opt.task, opt.data, &r->files, &r->err) != PITH_OK) return failed(&r->err);
    if (eval_task_load(&r->files, &r->task, &r->err) != PITH_OK) return failed(&r->err);
    if (!has_groups(&r->task))
        return complain(EXIT_FAILED, "--by: expected a field with text in a problem of %s, found no \"%s\"",
                        r->files.name, opt.by);
    r->part.limit = opt.limit && opt.limit < r->task.n ? opt.limit : (uint32_t)r->task.n;
    r->part.samples = opt.samples;
    r->n_total = r->policies.n * eval_part_problems(&r->part) * opt.samples;
    return EXIT_OK;
}

// A float as people write it: 0.6, not the double next to it.
static json_t *real(float x) {
    char digits[32];
    snprintf(digits, sizeof digits, "%.7g", (double)x);
    return json_real(strtod(digits, NULL));
}

// JSON's integers end where those of C have their sign.
static json_t *seed(uint64_t x) {
    char digits[32];
    snprintf(digits, sizeof digits, "%llu", (unsigned long long)x);
    return x <= INT64_MAX ? json_integer((json_int_t)x) : json_string(digits);
}

static int open_model(run *r) {
    if (pith_model_load(opt.model, NULL, &r->model, &r->err) != PITH_OK) return failed(&r->err);
    pith_model_info info;
    pith_model_describe(r->model, &info);
    if (!info.has_chat_template)
        return complain(EXIT_FAILED, "%s: expected a model with a chat template, which prompts are put into",
                        opt.model);
    pith_engine_params params;
    pith_engine_params_init(&params);
    params.n_threads = opt.threads, params.n_ctx = opt.context, params.kv_budget_bytes = opt.budget;
    params.device = opt.device;
    const int kv_code = args_kv_type(opt.kv, &params.kv_type);
    if (kv_code != EXIT_OK) return kv_code;
    params.max_sequences = opt.batch + 1; // one more reads the next prompt
    if (pith_engine_new(r->model, &params, &r->engine, &r->err) != PITH_OK) return failed(&r->err);

    pith_engine_info engine;
    pith_engine_describe(r->engine, &engine);
    if (*engine.note) fprintf(stderr, "pith: %s\n", engine.note);
    char digest[20], *name = text_clean(info.name, strlen(info.name));
    snprintf(digest, sizeof digest, "%016llx", (unsigned long long)r->task.digest);
    r->settings =
        json_pack("{s:s, s:s, s:I, s:s, s:I, s:I, s:o, s:o, s:o, s:I, s:I, s:s}", "task", r->files.name, "digest",
                  digest, "problems", (json_int_t)r->task.n, "model", name ? name : "", "parameters",
                  (json_int_t)info.n_parameters, "weight_bytes", (json_int_t)info.weight_bytes, "seed", seed(opt.seed),
                  "temperature", real(opt.temperature), "top_p", real(opt.top_p), "max_tokens", (json_int_t)opt.max_new,
                  "context", (json_int_t)engine.n_ctx, "version", PITH_VERSION);
    free(name);
    return r->settings ? EXIT_OK : no_memory();
}

// ------------------------------------------------------------------------------------------------- prompts

// Renders and tokenizes. The tokens belong to the prompt.
static pith_status make_prompt(run *r, const eval_problem *p, eval_prompt *out) {
    const pith_message messages[2] = {{"system", p->system}, {"user", p->prompt}};
    const size_t first = p->system ? 0 : 1;
    pith_status status = pith_chat_render(r->model, messages + first, 2 - first, &out->text, &r->err);
    if (status != PITH_OK) return status;
    const size_t bytes = strlen(out->text);
    const size_t capacity = bytes + 16; // no tokenizer makes more tokens than bytes, and a few at the ends
    if (!(out->tokens = malloc(capacity * sizeof *out->tokens))) return eval_no_memory(&r->err);
    return pith_tokenize(r->model, out->text, bytes, PITH_TOKENS_SPECIAL | PITH_TOKENS_BEGIN, out->tokens, capacity,
                         &out->n, &r->err);
}

static int check_fit(run *r, const eval_prompt *prompt, const pith_engine_info *engine) {
    if (prompt->n >= engine->n_ctx)
        return complain(EXIT_FAILED, "%s: expected a prompt of fewer tokens than the context's %u, found %zu",
                        prompt->name, engine->n_ctx, prompt->n);
    for (size_t i = 0; i < r->policies.n; i++) {
        uint64_t bytes;
        if (pith_peak_bytes(r->engine, r->policies.canonical[i], (uint32_t)prompt->n, opt.max_new, &bytes, &r->err) !=
            PITH_OK)
            return failed(&r->err);
        if (bytes > engine->pool_bytes)
            return complain(
                EXIT_FAILED,
                "%s: %s: %zu tokens of prompt and %u generated ones can need %llu bytes of cache, it has %llu "
                "(--kv-budget, --max-tokens)",
                prompt->name, r->results[i].label, prompt->n, opt.max_new, (unsigned long long)bytes,
                (unsigned long long)engine->pool_bytes);
    }
    return EXIT_OK;
}

static int make_prompts(run *r) {
    pith_engine_info engine;
    pith_engine_describe(r->engine, &engine);
    r->prompts = calloc(r->task.n, sizeof *r->prompts);
    r->names = calloc(r->task.n, sizeof *r->names);
    if (!r->prompts || !r->names) return no_memory();
    for (uint32_t i = 0; i < r->part.limit; i++) {
        if (!eval_part_has(&r->part, i)) continue;
        const eval_problem *p = &r->task.problems[i];
        snprintf(r->names[i], sizeof r->names[i], "%.140s:%u", r->files.paths[p->file], p->line);
        r->prompts[i].name = r->names[i];
        if (make_prompt(r, p, &r->prompts[i]) != PITH_OK)
            return complain(EXIT_FAILED, "%s: %s", r->names[i], r->err.msg);
        const int code = check_fit(r, &r->prompts[i], &engine);
        if (code != EXIT_OK) return code;
    }
    return EXIT_OK;
}

// ------------------------------------------------------------------------------------------------- results

static int open_results(run *r) {
    if (eval_store_settle(opt.out, r->settings, &r->err) != PITH_OK) return failed(&r->err);
    for (size_t i = 0; i < r->policies.n; i++) {
        eval_results *results = &r->results[i];
        if (eval_results_init(results, results->policy, results->label, &r->part, &r->err) != PITH_OK ||
            eval_store_open(&r->stores[i], opt.out, results->policy, r->part.shard, r->part.n_shards, &r->err) !=
                PITH_OK ||
            eval_store_read(&r->stores[i], &r->task, results, &r->err) != PITH_OK)
            return failed(&r->err);
    }
    return EXIT_OK;
}

static int open_page(run *r) { return outfile_open(&r->page, opt.html); }

static size_t n_samples(const run *r) {
    size_t n = 0;
    for (size_t i = 0; i < r->policies.n; i++) n += r->results[i].n;
    return n;
}

// ---------------------------------------------------------------------------------------------- generating

static pith_status on_done(void *ctx, eval_sample *sample, const char *bytes, size_t n, pith_error *err) {
    run *r = ctx;
    const eval_prompt *prompt = &r->prompts[sample->problem];
    char *generation = text_clean(bytes, n), *answer = NULL;
    bool found;
    json_t *line = NULL;
    if (generation && eval_answer_read(generation, strlen(generation), &found, &answer)) {
        sample->correct = found && eval_answer_same(answer, r->task.problems[sample->problem].answer);
        line = eval_sample_pack(&r->task, sample,
                                &(eval_text){r->policies.canonical[r->policy], prompt->text, generation, answer});
    }
    pith_status status = line ? eval_store_add(&r->stores[r->policy], line, err) : eval_no_memory(err);
    if (status == PITH_OK) status = eval_results_add(&r->results[r->policy], sample, err);
    json_decref(line);
    free(answer);
    free(generation);
    return status;
}

static bool on_step(void *ctx, const eval_progress *progress) {
    run *r = ctx;
    if (r->meter.silent) return !interrupted;
    meter_state state = {
        .done = n_samples(r), .total = r->n_total, .label = r->results[r->policy].label, .unit = "tokens/s"};
    if (progress->step_seconds > 0) state.per_second = (double)progress->n_tokens / progress->step_seconds;
    // The samples to come will be as long as those that have ended, less what is there of the ones at work.
    if (progress->n_done > 0 && state.per_second > 0) {
        const double length = (double)progress->n_done_tokens / (double)progress->n_done;
        const double in_flight = (double)(progress->n_tokens - progress->n_done_tokens);
        state.seconds_left = ((double)(state.total - state.done) * length - in_flight) / state.per_second;
    }
    meter_show(&r->meter, &state);
    return !interrupted;
}

static int run_policy(run *r, size_t policy) {
    eval_results *results = &r->results[policy];
    const size_t most = (size_t)eval_part_problems(&r->part) * opt.samples;
    eval_job *jobs = malloc((most + 1) * sizeof *jobs);
    if (!jobs) return no_memory();
    size_t n = 0;
    for (uint32_t i = 0; i < r->part.limit; i++)
        for (uint32_t k = 0; eval_part_has(&r->part, i) && k < opt.samples; k++)
            if (!eval_results_has(results, i, k)) jobs[n++] = (eval_job){i, k};
    r->policy = policy;
    const eval_schedule schedule = {
        .model = r->model,
        .engine = r->engine,
        .policy = results->policy,
        .sampling = {.temperature = opt.temperature, .top_p = opt.top_p, .seed = opt.seed},
        .max_new = opt.max_new,
        .batch = opt.batch,
        .prompts = r->prompts,
        .jobs = jobs,
        .n_jobs = n,
        .done = on_done,
        .go_on = on_step,
        .ctx = r,
    };
    eval_progress progress;
    const pith_status status = eval_schedule_run(&schedule, &progress, &r->err);
    results->decoded = progress.n_tokens;
    results->decode_seconds = progress.step_seconds - progress.prefill_seconds;
    free(jobs);
    meter_end(&r->meter);
    return status == PITH_OK ? EXIT_OK : failed(&r->err);
}

static int generate(run *r) {
    int code = EXIT_OK;
    meter_begin(&r->meter, opt.json);
    for (size_t i = 0; code == EXIT_OK && i < r->policies.n && !interrupted; i++) code = run_policy(r, i);
    if (code == EXIT_OK && interrupted && n_samples(r) < r->n_total)
        code = complain(EXIT_INTERRUPTED, "interrupted: %zu of %zu samples are there, the same command goes on",
                        n_samples(r), r->n_total);
    return code;
}

// ------------------------------------------------------------------------------------------------ reporting

static int write_page(run *r, const eval_summary *summary, const eval_about *about) {
    return outfile_keep(&r->page, !r->page.file || eval_page_write(r->page.file, summary, about));
}

static int report(run *r) {
    eval_summary summary;
    if (eval_summarize(&r->task, opt.by, r->results, r->policies.n, &summary, &r->err) != PITH_OK)
        return failed(&r->err);
    char title[512];
    snprintf(title, sizeof title, "%s: %u of %zu problems, %u sample%s each, %s, temperature %g, top-p %g, seed %llu",
             r->files.name, eval_part_problems(&r->part), r->task.n, opt.samples, opt.samples == 1 ? "" : "s",
             json_string_value(json_object_get(r->settings, "model")), (double)opt.temperature, (double)opt.top_p,
             (unsigned long long)opt.seed);
    if (opt.shard) snprintf(title + strlen(title), sizeof title - strlen(title), ", shard %s", opt.shard);
    json_t *settings = json_copy(r->settings);
    json_object_set_new(settings, "samples", json_integer(opt.samples));
    json_object_set_new(settings, "limit", json_integer(r->part.limit));
    json_object_set_new(settings, "by", json_string(opt.by));
    json_object_set_new(settings, "shard", json_pack("[i, i]", (int)r->part.shard + 1, (int)r->part.n_shards));
    const eval_about about = {title, settings};

    int code = write_page(r, &summary, &about);
    bool written = true;
    if (code == EXIT_OK && opt.json) {
        json_t *all = eval_table_json(&summary, &about);
        written = all && json_dumpf(all, stdout, JSON_COMPACT | JSON_REAL_PRECISION(9)) == 0 && putchar('\n') != EOF &&
                  fflush(stdout) == 0;
        json_decref(all);
    } else if (code == EXIT_OK) {
        written = (opt.markdown ? eval_table_markdown : eval_table_print)(stdout, &summary, &about);
    }
    if (!written) code = complain(EXIT_FAILED, "standard output: %s", strerror(errno));
    json_decref(settings);
    eval_summary_free(&summary);
    return code;
}

static int close_run(run *r, int code) {
    outfile_drop(&r->page);
    for (size_t i = 0; i < r->policies.n; i++) {
        if (eval_store_close(&r->stores[i], &r->err) != PITH_OK && code == EXIT_OK) code = failed(&r->err);
        eval_results_free(&r->results[i]);
    }
    for (size_t i = 0; r->prompts && i < r->task.n; i++) {
        pith_text_free(r->prompts[i].text);
        free(r->prompts[i].tokens);
    }
    free(r->prompts);
    free(r->names);
    json_decref(r->settings);
    pith_engine_free(r->engine);
    pith_model_free(r->model);
    eval_task_free(&r->task);
    eval_files_free(&r->files);
    policies_free(&r->policies);
    return code;
}

int eval_main(int argc, char **argv) {
    if (argc < 3 || argv[2][0] == '-')
        return complain(EXIT_USAGE,
                        "expected a task behind \"eval\": pebble, aime24, aime25 or FILE.jsonl (pith help eval)");
    opt.task = argv[2];
    int code = args_parse(args, N_ARGS, 3, argc, argv);
    if (code != EXIT_OK) return code;
    signal(SIGPIPE, SIG_IGN); // a reader that goes away, or a file that may not grow, is an error of the write
    signal(SIGXFSZ, SIG_IGN);
    interrupt_catch_ends();

    static run r;
    static int (*const steps[])(run *) = {check_options, load_task,    open_model, make_prompts,
                                          open_page,     open_results, generate,   report};
    for (size_t i = 0; i < sizeof steps / sizeof *steps && code == EXIT_OK; i++) code = steps[i](&r);
    return close_run(&r, code);
}
