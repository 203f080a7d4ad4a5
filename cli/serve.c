// pith serve: an OpenAI-compatible server in front of one model.
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "args.h"
#include "pith.h"
#include "server/server.h"
#include "verbs.h"

static struct options {
    const char *model, *alias, *host, *policy, *key_file, *cors, *kv, *device;
    uint32_t port, sequences, max_new, waiting, timeout, request_time, connections, grace, threads, context, body_mb;
    uint64_t budget;
    bool no_sharing;
    float temperature, top_p;
} opt = {.host = "127.0.0.1",
         .port = 8080,
         .policy = "rpc",
         .kv = "auto",
         .device = "cpu",
         .sequences = 16,
         .max_new = 4096,
         .waiting = 128,
         .timeout = 60,
         .request_time = 120,
         .connections = 512,
         .grace = 30,
         .body_mb = 8,
         .temperature = 0.6f,
         .top_p = 0.95f};

static arg args[] = {
    {.kind = ARG_GROUP, .help = "Model"},
    {ARG_TEXT, "--model", "-m", "FILE", &opt.model, 0, 0, "GGUF file (qwen2, qwen3, llama)", false},
    {ARG_TEXT, "--alias", NULL, "NAME", &opt.alias, 0, 0, "what clients call it (the model's own name)", false},
    {ARG_TEXT, "--device", NULL, "NAME", &opt.device, 0, 0, "cpu, cuda or cuda:N (cpu)", false},
    {ARG_COUNT, "--context", NULL, "N", &opt.context, 16, 1 << 24,
     "most tokens of a request and its answer (the model's)", false},
    {ARG_COUNT, "--threads", NULL, "N", &opt.threads, 1, 128, "most threads of a step (all CPUs)", false},
    {.kind = ARG_GROUP, .help = "Cache"},
    {ARG_TEXT, "--policy", NULL, "SPEC", &opt.policy, 0, 0, "of requests without a cache_policy (rpc)", false},
    {ARG_TEXT, "--kv", NULL, "TYPE", &opt.kv, 0, 0, "f16, f32 (CPU), bf16 (GPU); auto: f16, on a GPU bf16 (auto)",
     false},
    {ARG_BYTES, "--kv-budget", NULL, "BYTES", &opt.budget, 0, 0,
     "memory of the cache, such as 2G (half of what is free)", false},
    {ARG_FLAG, "--no-prefixes", NULL, NULL, &opt.no_sharing, 0, 0,
     "read every prompt whole, keep no beginnings for others", false},
    {.kind = ARG_GROUP, .help = "Answers"},
    {ARG_COUNT, "--max-sequences", NULL, "N", &opt.sequences, 1, 1024, "most answers at once (16)", false},
    {ARG_COUNT, "--queue", NULL, "N", &opt.waiting, 0, 1 << 20, "most requests that wait; more get a 429 (128)", false},
    {ARG_COUNT, "--max-tokens", "-n", "N", &opt.max_new, 1, 1 << 24, "of requests without max_tokens (4096)", false},
    {ARG_REAL, "--temperature", NULL, "T", &opt.temperature, 0, 2, "of requests that name none (0.6)", false},
    {ARG_REAL, "--top-p", NULL, "P", &opt.top_p, 1e-6, 1, "of requests that name none (0.95)", false},
    {.kind = ARG_GROUP, .help = "Network"},
    {ARG_TEXT, "--host", NULL, "NAME", &opt.host, 0, 0, "address to listen at (127.0.0.1)", false},
    {ARG_COUNT, "--port", NULL, "N", &opt.port, 0, 65535, "0: one that is free (8080)", false},
    {ARG_TEXT, "--api-key-file", NULL, "FILE", &opt.key_file, 0, 0, "keys of clients, one a line (none is asked for)",
     false},
    {ARG_TEXT, "--cors", NULL, "ORIGIN", &opt.cors, 0, 0, "pages that may ask, * for all (the server's own)", false},
    {ARG_COUNT, "--max-body", NULL, "MB", &opt.body_mb, 1, 1024, "largest body of a request in MiB (8)", false},
    {ARG_COUNT, "--connections", NULL, "N", &opt.connections, 4, 65536, "most connections (512)", false},
    {ARG_COUNT, "--timeout", NULL, "SECONDS", &opt.timeout, 1, 86400, "a connection without a byte is closed (60)",
     false},
    {ARG_COUNT, "--request-time", NULL, "SECONDS", &opt.request_time, 1, 86400,
     "most from connecting, or from the answer before, to a whole request (120)", false},
    {ARG_COUNT, "--grace", NULL, "SECONDS", &opt.grace, 0, 86400, "for running answers at the end (30)", false},
};
enum { N_ARGS = sizeof args / sizeof *args };

void serve_help(void) {
    puts("usage: pith serve --model FILE [options]\n\nPrints its address on stdout when it answers. SIGINT or SIGTERM "
         "ends it. "
         "Defaults in parentheses.");
    args_help(args, N_ARGS);
}

static int check_options(void) {
    if (!opt.model) return complain(EXIT_USAGE, "expected --model FILE (pith help serve)");
    pith_kv_type kv_type;
    const int kv_code = args_kv_type(opt.kv, &kv_type);
    if (kv_code != EXIT_OK) return kv_code;
    pith_error err;
    static char canonical[256];
    if (pith_policy_check(opt.policy, canonical, sizeof canonical, &err) != PITH_OK)
        return complain(EXIT_USAGE, "--policy: %s", err.msg);
    opt.policy = canonical;
    return EXIT_OK;
}

static server_params params_of_options(void) {
    server_params p = {.model = opt.model,
                       .alias = opt.alias,
                       .host = opt.host,
                       .port = (uint16_t)opt.port,
                       .policy = opt.policy,
                       .key_file = opt.key_file,
                       .cors = opt.cors,
                       .max_new = opt.max_new,
                       .max_waiting = opt.waiting,
                       .timeout = opt.timeout,
                       .request_time = opt.request_time,
                       .max_connections = opt.connections,
                       .max_body = (size_t)opt.body_mb << 20,
                       .temperature = opt.temperature,
                       .top_p = opt.top_p};
    pith_engine_params_init(&p.engine);
    p.engine.device = opt.device, p.engine.n_threads = opt.threads, p.engine.n_ctx = opt.context;
    p.engine.share_prefixes = !opt.no_sharing, p.engine.spread_compressions = true;
    p.engine.max_sequences = opt.sequences, p.engine.kv_budget_bytes = opt.budget;
    args_kv_type(opt.kv, &p.engine.kv_type); // checked
    return p;
}

static double mib(uint64_t bytes) { return (double)bytes / (1 << 20); }

static void introduce(const server *s) {
    static const char *const kv_names[] = {"auto", "f16", "f32", "bf16"};
    server_info i;
    server_describe(s, &i);
    const uint64_t fit = i.engine.pool_bytes / i.sequence_bytes, fit_full = i.engine.pool_bytes / i.full_bytes;
    if (i.engine.note[0]) fprintf(stderr, "note     %s\n", i.engine.note);
    fprintf(stderr, "model    %s: %s, %u layers, weights %.1f MiB, context %u, on %s (%s)\n", i.name,
            i.model.architecture, i.model.n_layers, mib(i.model.weight_bytes), i.engine.n_ctx, i.engine.device,
            i.engine.isa);
    fprintf(stderr, "cache    %.1f MiB in pages of %u rows, %s; default policy %s\n", mib(i.engine.pool_bytes),
            i.engine.page_rows, kv_names[i.engine.kv_type], opt.policy);
    fprintf(stderr,
            "answers  at most %u at once; %llu of %u tokens fit into the cache in the worst case (%llu with a full "
            "cache)\n",
            opt.sequences, (unsigned long long)fit, opt.max_new, (unsigned long long)fit_full);
    fprintf(stderr, "limits   %u waiting, body %u MiB, %u connections, %s\n", opt.waiting, opt.body_mb, opt.connections,
            opt.key_file ? "API keys" : "no API key");
    printf("%s\n", i.url);
    fflush(stdout);
}

int serve_main(int argc, char **argv) {
    int code = args_parse(args, N_ARGS, 2, argc, argv);
    if (code == EXIT_OK) code = check_options();
    if (code != EXIT_OK) return code;

    signal(SIGPIPE, SIG_IGN);
    sigset_t ends; // blocked in every thread, taken by this one
    sigemptyset(&ends);
    sigaddset(&ends, SIGINT);
    sigaddset(&ends, SIGTERM);
    pthread_sigmask(SIG_BLOCK, &ends, NULL);

    const server_params params = params_of_options();
    server *s;
    pith_error err;
    if (server_start(&params, &s, &err) != PITH_OK)
        return complain(err.status == PITH_E_ARG ? EXIT_USAGE : EXIT_FAILED, "%s", err.msg);
    introduce(s);
    int which;
    sigwait(&ends, &which);
    fprintf(stderr, "ending: running answers have %u seconds\n", opt.grace);
    pthread_sigmask(SIG_UNBLOCK, &ends, NULL); // asked twice: go at once
    if (server_stop(s, opt.grace)) return EXIT_OK;
    return complain(EXIT_FAILED, "some answers were cut off after %u seconds", opt.grace);
}
