// pith run: one prompt, several answers, or a conversation.
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "args.h"
#include "interrupt.h"
#include "pith.h"
#include "report.h"
#include "text.h"
#include "verbs.h"

enum { MOST_PROMPT_BYTES = 64 << 20, MOST_SAMPLES = 256, PROGRESS_TOKENS = 1024 };

static struct options {
    const char *model, *policy, *prompt, *file, *system, *kv, *trace, *device;
    bool raw, interactive, ignore_end, greedy, json;
    uint32_t samples, max_new, threads, context, top_k;
    float temperature, top_p, min_p;
    uint64_t seed, budget;
} opt = {
    .policy = "rpc", .kv = "auto", .device = "cpu", .samples = 1, .max_new = 4096, .temperature = 0.6f, .top_p = 0.95f};

static arg args[] = {
    {.kind = ARG_GROUP, .help = "Model"},
    {ARG_TEXT, "--model", "-m", "FILE", &opt.model, 0, 0, "GGUF file (qwen2, qwen3, llama)", false},
    {ARG_COUNT, "--context", NULL, "N", &opt.context, 16, 1 << 24, "most tokens of a conversation (the model's)",
     false},
    {ARG_TEXT, "--device", NULL, "NAME", &opt.device, 0, 0, "cpu, cuda or cuda:N (cpu)", false},
    {ARG_COUNT, "--threads", NULL, "N", &opt.threads, 1, 128, "most threads of a step (all CPUs)", false},
    {.kind = ARG_GROUP, .help = "Cache"},
    {ARG_TEXT, "--policy", NULL, "SPEC", &opt.policy, 0, 0, "full, rpc:p=1024,r=32,c=4,..., window, random (rpc)",
     false},
    {ARG_TEXT, "--kv", NULL, "TYPE", &opt.kv, 0, 0, "f16, f32 (CPU), bf16 (GPU); auto: f16, on a GPU bf16 (auto)",
     false},
    {ARG_BYTES, "--kv-budget", NULL, "BYTES", &opt.budget, 0, 0, "most memory of the cache, such as 2G", false},
    {ARG_TEXT, "--trace", NULL, "FILE", &opt.trace, 0, 0, "write what each compression kept, one JSON line each",
     false},
    {.kind = ARG_GROUP, .help = "Prompt (without -p, -f or -i it is read from standard input)"},
    {ARG_TEXT, "--prompt", "-p", "TEXT", &opt.prompt, 0, 0, "the prompt", false},
    {ARG_TEXT, "--file", "-f", "FILE", &opt.file, 0, 0, "read the prompt from a file, - for standard input", false},
    {ARG_TEXT, "--system", NULL, "TEXT", &opt.system, 0, 0, "a system message in front", false},
    {ARG_FLAG, "--raw", NULL, NULL, &opt.raw, 0, 0, "no chat template: complete the text as it is", false},
    {ARG_FLAG, "--interactive", "-i", NULL, &opt.interactive, 0, 0, "a conversation, a line a turn", false},
    {.kind = ARG_GROUP, .help = "Answer"},
    {ARG_COUNT, "--max-tokens", "-n", "N", &opt.max_new, 1, 1 << 24, "most tokens of an answer (4096)", false},
    {ARG_COUNT, "--samples", NULL, "N", &opt.samples, 1, MOST_SAMPLES, "answers at once, sharing the prompt (1)",
     false},
    {ARG_REAL, "--temperature", NULL, "T", &opt.temperature, 0, 100, "(0.6)", false},
    {ARG_REAL, "--top-p", NULL, "P", &opt.top_p, 1e-6, 1, "(0.95)", false},
    {ARG_COUNT, "--top-k", NULL, "K", &opt.top_k, 0, 1 << 24, "0: off (0)", false},
    {ARG_REAL, "--min-p", NULL, "P", &opt.min_p, 0, 1, "0: off (0)", false},
    {ARG_SEED, "--seed", NULL, "N", &opt.seed, 0, 0, "same seed, same answer (0)", false},
    {ARG_FLAG, "--greedy", NULL, NULL, &opt.greedy, 0, 0, "always the likeliest token", false},
    {ARG_FLAG, "--ignore-eos", NULL, NULL, &opt.ignore_end, 0, 0, "go on past the end of the answer", false},
    {ARG_FLAG, "--json", NULL, NULL, &opt.json, 0, 0, "print one JSON object instead of the text", false},
};
enum { N_ARGS = sizeof args / sizeof *args };

void run_help(void) {
    puts(
        "usage: pith run --model FILE [options]\n\nAnswers on stdout, the summary on stderr. Defaults in parentheses.");
    args_help(args, N_ARGS);
}

// ------------------------------------------------------------------------------------------------- a session

typedef struct session {
    pith_model *model;
    pith_engine *engine;
    pith_sequence_params params;
    pith_sequence *seqs[MOST_SAMPLES];
    bool stopped[MOST_SAMPLES]; // by an interrupt, in this turn
    uint32_t n_seqs;
    FILE *trace;
    pith_error err;
} session;

static void trace_event(void *ctx, const pith_compress_event *event) {
    session *s = ctx;
    uint32_t i = 0;
    while (i < s->n_seqs && s->seqs[i] != event->seq) i++;
    report_trace(s->trace, i, event);
}

static int open_session(session *s) {
    if (pith_model_load(opt.model, NULL, &s->model, &s->err) != PITH_OK) return failed(&s->err);
    pith_engine_params engine;
    pith_engine_params_init(&engine);
    engine.n_threads = opt.threads, engine.n_ctx = opt.context, engine.max_sequences = opt.samples;
    engine.device = opt.device;
    args_kv_type(opt.kv, &engine.kv_type); // checked
    engine.kv_budget_bytes = opt.budget;
    if (pith_engine_new(s->model, &engine, &s->engine, &s->err) != PITH_OK) return failed(&s->err);

    pith_sequence_params_init(&s->params);
    s->params.policy = opt.policy, s->params.max_new = opt.max_new, s->params.ignore_end = opt.ignore_end;
    s->params.sampling =
        (pith_sampling){opt.greedy ? 0 : opt.temperature, opt.top_k, opt.top_p, opt.min_p, opt.seed, 0};
    if (pith_sequence_new(s->engine, &s->params, &s->seqs[0], &s->err) != PITH_OK) return failed(&s->err);
    s->n_seqs = 1;
    return EXIT_OK;
}

// Once a prompt is accepted: what could be refused has been, and an older file is not emptied for nothing.
static int open_trace(session *s) {
    if (!opt.trace || s->trace) return EXIT_OK;
    s->trace = fopen(opt.trace, "we");
    if (!s->trace) return complain(EXIT_FAILED, "%s: %s", opt.trace, strerror(errno));
    pith_engine_on_compress(s->engine, trace_event, s);
    return EXIT_OK;
}

static int close_session(session *s, int code) {
    pith_engine_free(s->engine);
    pith_model_free(s->model);
    if (s->trace && (ferror(s->trace) | fclose(s->trace)) && code == EXIT_OK)
        code = complain(EXIT_FAILED, "%s: cannot write", opt.trace);
    return code;
}

// Text to tokens, owned by the caller. NULL after one line.
static pith_token *tokens_of(session *s, const char *words, size_t bytes, bool begins, size_t *n, int *code) {
    const int flags = PITH_TOKENS_SPECIAL | (begins ? PITH_TOKENS_BEGIN : 0);
    const size_t capacity = bytes + 16; // no tokenizer makes more tokens than bytes, and a few at the ends
    pith_token *tokens = malloc(capacity * sizeof *tokens);
    if (!tokens) *code = complain(EXIT_FAILED, "out of memory");
    else if (pith_tokenize(s->model, words, bytes, flags, tokens, capacity, n, &s->err) == PITH_OK) return tokens;
    else *code = complain(EXIT_FAILED, "%s", s->err.msg);
    free(tokens);
    return NULL;
}

// ------------------------------------------------------------------------------------------------- generating

static void show_progress(const pith_sequence *seq, bool *shown) {
    pith_sequence_info info;
    pith_sequence_describe(seq, &info);
    if (info.n_tokens < PROGRESS_TOKENS && !*shown) return;
    const bool terminal = isatty(STDERR_FILENO);
    if (terminal && info.phase == PITH_PREFILL)
        fprintf(stderr, "\rreading the prompt: %u of %u tokens", info.n_tokens - info.n_waiting, info.n_tokens);
    else if (terminal && *shown) fputs("\r\033[K", stderr);
    else if (!terminal && !*shown) fprintf(stderr, "reading the prompt: %u tokens\n", info.n_tokens);
    *shown = true;
}

// Appends the text of one token, which may be longer than anything that one would set aside for it.
static bool add_token(const session *s, pith_token token, bool special, text *out) {
    char brief[64], *piece = brief;
    size_t n = pith_token_text(s->model, token, special, brief, sizeof brief);
    if (n > sizeof brief) {
        if (!(piece = malloc(n))) return false;
        n = pith_token_text(s->model, token, special, piece, n);
    }
    const bool ok = text_add(out, piece, n);
    if (piece != brief) free(piece);
    return ok;
}

// Appends what sequence `seq` has generated from token *done on to `out`; the end-of-generation token itself is no
// text.
static bool collect(const session *s, const pith_sequence *seq, size_t *done, text *out) {
    size_t n;
    const pith_token *tokens = pith_sequence_tokens(seq, &n);
    for (; *done < n; ++*done) {
        if (pith_token_ends(s->model, tokens[*done])) continue;
        if (!add_token(s, tokens[*done], false, out)) return false;
    }
    return true;
}

static int fork_samples(session *s) {
    while (s->n_seqs < opt.samples) {
        pith_sequence_params params = s->params;
        params.sampling.stream = s->n_seqs;
        if (pith_sequence_fork(s->seqs[0], &params, &s->seqs[s->n_seqs], &s->err) != PITH_OK) return failed(&s->err);
        s->n_seqs++;
    }
    return EXIT_OK;
}

static bool is_done(const pith_sequence *seq) {
    pith_sequence_info info;
    pith_sequence_describe(seq, &info);
    return info.phase == PITH_STOPPED || info.phase == PITH_LENGTH;
}

// One of several answers, whole. False: the reader has gone away.
static bool show_sample(uint32_t i, bool thinking, const text *answer) {
    display screen;
    printf("--- sample %u\n", i);
    display_begin(&screen, thinking);
    bool written = display_piece(&screen, answer->text ? answer->text : "", answer->bytes);
    display_end(&screen);
    return written;
}

// Runs the turn that was prompted to its end, or to an interrupt. answers: (samples), each gets its text.
static int generate(session *s, bool thinking, text *answers) {
    const bool streams = !opt.json && opt.samples == 1;
    size_t done[MOST_SAMPLES], prompt_end;
    bool told[MOST_SAMPLES] = {false}, shown = false;
    pith_sequence_tokens(s->seqs[0], &prompt_end);
    for (uint32_t i = 0; i < opt.samples; i++) done[i] = prompt_end;
    display screen;
    if (streams) display_begin(&screen, thinking);

    int code = EXIT_OK;
    for (uint32_t n_active = 1; n_active > 0 && code == EXIT_OK && !interrupted;) {
        if (pith_engine_step(s->engine, &n_active, &s->err) != PITH_OK) code = failed(&s->err);
        pith_sequence_info first;
        pith_sequence_describe(s->seqs[0], &first);
        if (first.phase == PITH_PREFILL || shown) show_progress(s->seqs[0], &shown);
        if (first.phase != PITH_PREFILL) shown = false;
        if (first.phase == PITH_READY && s->n_seqs < opt.samples) code = fork_samples(s);

        for (uint32_t i = 0; i < s->n_seqs && code == EXIT_OK; i++) {
            const size_t before = answers[i].bytes;
            if (!collect(s, s->seqs[i], &done[i], &answers[i])) code = complain(EXIT_FAILED, "out of memory");
            bool written = true;
            if (streams && answers[i].bytes > before)
                written = display_piece(&screen, answers[i].text + before, answers[i].bytes - before);
            if (!streams && !opt.json && !told[i] && is_done(s->seqs[i]))
                told[i] = true, written = show_sample(i, thinking, &answers[i]);
            if (!written) code = complain(EXIT_FAILED, "standard output: %s", strerror(errno));
        }
    }
    if (streams) display_end(&screen);
    for (uint32_t i = 0; i < s->n_seqs; i++) { // an interrupt leaves some unfinished
        s->stopped[i] = !is_done(s->seqs[i]);
        if (s->stopped[i]) pith_sequence_stop(s->seqs[i]);
        if (code == EXIT_OK && !streams && !opt.json && !told[i] && !show_sample(i, thinking, &answers[i]))
            code = complain(EXIT_FAILED, "standard output: %s", strerror(errno));
    }
    return code;
}

static int report(session *s, const text *answers) {
    if (!opt.json) {
        report_summary(s->engine, s->seqs, s->stopped, s->n_seqs);
        return EXIT_OK;
    }
    return report_json(s->model, s->engine, opt.policy, s->seqs, s->stopped, s->n_seqs, answers, opt.samples > 1);
}

// Does the template leave the model inside a thought? Then the answer begins with thinking.
static bool ends_thinking(const char *rendered) {
    size_t n = strlen(rendered);
    while (n > 0 && (rendered[n - 1] == '\n' || rendered[n - 1] == ' ')) n--;
    return n >= 7 && !strncmp(rendered + n - 7, "<think>", 7);
}

// ------------------------------------------------------------------------------------------- a single prompt

static int answer_once(session *s, const char *prompt, size_t bytes) {
    char *rendered = NULL;
    if (!opt.raw) {
        pith_message messages[2] = {{"system", opt.system}, {"user", prompt}};
        const size_t first = opt.system ? 0 : 1;
        if (pith_chat_render(s->model, messages + first, 2 - first, &rendered, &s->err) != PITH_OK)
            return failed(&s->err);
    }
    const char *words = rendered ? rendered : prompt;
    int code = EXIT_OK;
    size_t n;
    pith_token *tokens = tokens_of(s, words, rendered ? strlen(rendered) : bytes, true, &n, &code);
    if (tokens) {
        text answers[MOST_SAMPLES] = {{0}};
        if (pith_sequence_prompt(s->seqs[0], tokens, n, &s->err) != PITH_OK) code = failed(&s->err);
        else code = open_trace(s);
        if (code == EXIT_OK) code = generate(s, ends_thinking(words), answers);
        if (code == EXIT_OK) code = report(s, answers);
        for (uint32_t i = 0; i < opt.samples; i++) text_free(&answers[i]);
    }
    free(tokens);
    pith_text_free(rendered);
    return code;
}

// -------------------------------------------------------------------------------------------- a conversation

typedef struct history {
    pith_message messages[1024];
    char *owned[1024];
    size_t n;
    text seen; // the text that the timeline's tokens stand for
} history;

static bool remember(history *h, const char *role, const char *content) {
    if (h->n == sizeof h->messages / sizeof *h->messages) return false;
    char *copy = text_clean(content, strlen(content));
    if (!copy) return false;
    h->owned[h->n] = copy;
    h->messages[h->n++] = (pith_message){role, copy};
    return true;
}

// Gives the sequence the rendered conversation. Where it goes on from what the model has read and said, only the rest
// is new; where the template changed the past (old thinking dropped), the timeline is rewound to what is still true.
static int prompt_turn(session *s, history *h, const char *rendered) {
    const size_t bytes = strlen(rendered);
    const bool extends = h->seen.bytes > 0 && bytes > h->seen.bytes && !memcmp(rendered, h->seen.text, h->seen.bytes);
    int code = EXIT_OK;
    size_t n = 0, kept = 0;
    pith_token *tokens = extends ? tokens_of(s, rendered + h->seen.bytes, bytes - h->seen.bytes, false, &n, &code)
                                 : tokens_of(s, rendered, bytes, true, &n, &code);
    if (!tokens) return code;
    if (!extends && pith_sequence_rewind(s->seqs[0], tokens, n, &kept, &s->err) != PITH_OK) code = failed(&s->err);
    if (code == EXIT_OK && pith_sequence_prompt(s->seqs[0], tokens + kept, n - kept, &s->err) != PITH_OK)
        code = failed(&s->err);
    free(tokens);
    h->seen.bytes = 0;
    if (code == EXIT_OK && !text_add(&h->seen, rendered, bytes)) code = complain(EXIT_FAILED, "out of memory");
    return code;
}

// The turn's tokens as text with the names of control tokens, as the template would write them.
static bool note_answer(session *s, history *h, size_t from) {
    size_t n;
    const pith_token *tokens = pith_sequence_tokens(s->seqs[0], &n);
    // An interrupt while the prompt was read: the timeline ends before the text does, and the next turn starts over.
    if (n < from) h->seen.bytes = 0;
    for (; from < n; from++)
        if (!add_token(s, tokens[from], true, &h->seen)) return false;
    return true;
}

static int turn(session *s, history *h, const char *line) {
    char *rendered;
    if (!remember(h, "user", line)) return complain(EXIT_FAILED, "the conversation is too long");
    if (pith_chat_render(s->model, h->messages, h->n, &rendered, &s->err) != PITH_OK) return failed(&s->err);
    text answer = {0};
    size_t from;
    int code = prompt_turn(s, h, rendered);
    if (code == EXIT_OK) {
        pith_sequence_tokens(s->seqs[0], &from);
        code = open_trace(s);
        if (code == EXIT_OK) code = generate(s, ends_thinking(rendered), &answer);
    }
    if (code == EXIT_OK) code = report(s, &answer);
    if (code == EXIT_OK && (!note_answer(s, h, from) || !remember(h, "assistant", answer.text ? answer.text : "")))
        code = complain(EXIT_FAILED, "the conversation is too long");
    text_free(&answer);
    pith_text_free(rendered);
    return code;
}

static int converse(session *s) {
    history h = {.n = 0};
    int code = EXIT_OK;
    if (opt.system && !remember(&h, "system", opt.system)) code = complain(EXIT_FAILED, "out of memory");
    char *line = NULL;
    size_t capacity = 0;
    const bool terminal = isatty(STDIN_FILENO);
    while (code == EXIT_OK) {
        if (terminal) fputs("> ", stderr);
        interrupt_catch(false); // Ctrl-C ends the wait for a line, but no write
        ssize_t n = getline(&line, &capacity, stdin);
        interrupt_catch(true);
        if (n < 0) break; // end of input, or Ctrl-C at the prompt
        while (n > 0 && (line[n - 1] == '\n' || line[n - 1] == '\r')) line[--n] = '\0';
        if (n == 0) continue;
        size_t at;
        if (!text_is_utf8(line, (size_t)n, &at)) {
            complain(EXIT_FAILED, "that line: expected UTF-8 text, found byte 0x%02x at %zu", (unsigned char)line[at],
                     at);
            continue;
        }
        code = turn(s, &h, line);
        interrupted = 0; // Ctrl-C ends the answer, not the conversation
    }
    free(line);
    text_free(&h.seen);
    for (size_t i = 0; i < h.n; i++) free(h.owned[i]);
    return code;
}

// ------------------------------------------------------------------------------------------------------- main

static int check_options(void) {
    if (!opt.model) return complain(EXIT_USAGE, "expected --model FILE (pith help run)");
    pith_kv_type kv_type;
    const int kv_code = args_kv_type(opt.kv, &kv_type);
    if (kv_code != EXIT_OK) return kv_code;
    if (!!opt.prompt + !!opt.file + opt.interactive > 1)
        return complain(EXIT_USAGE, "expected one of --prompt, --file and --interactive");
    if (opt.interactive && (opt.raw || opt.samples > 1))
        return complain(EXIT_USAGE, "--interactive goes with neither --raw nor --samples");
    if (opt.raw && opt.system) return complain(EXIT_USAGE, "--system needs the chat template that --raw leaves out");
    pith_error err;
    static char canonical[256];
    if (pith_policy_check(opt.policy, canonical, sizeof canonical, &err) != PITH_OK)
        return complain(EXIT_USAGE, "--policy: %s", err.msg);
    opt.policy = canonical;
    return EXIT_OK;
}

int run_main(int argc, char **argv) {
    int code = args_parse(args, N_ARGS, 2, argc, argv);
    if (code == EXIT_OK) code = check_options();
    if (code != EXIT_OK) return code;

    text prompt = {0};
    if (!opt.interactive) {
        code = opt.prompt ? (text_add(&prompt, opt.prompt, strlen(opt.prompt)) ? EXIT_OK
                                                                               : complain(EXIT_FAILED, "out of memory"))
                          : text_read(&prompt, opt.file, MOST_PROMPT_BYTES);
        // A file's last newline is the editor's, not the question's.
        if (!opt.prompt && !opt.raw && prompt.bytes > 0 && prompt.text[prompt.bytes - 1] == '\n')
            prompt.text[--prompt.bytes] = '\0';
        const char *from = opt.prompt ? "--prompt" : opt.file ? opt.file : "standard input";
        if (code == EXIT_OK && prompt.bytes == 0) code = complain(EXIT_FAILED, "%s: the prompt is empty", from);
        size_t at;
        if (code == EXIT_OK && !text_is_utf8(prompt.text, prompt.bytes, &at))
            code = complain(EXIT_FAILED, "%s: expected UTF-8 text, found byte 0x%02x at %zu", from,
                            (unsigned char)prompt.text[at], at);
    }
    signal(SIGPIPE, SIG_IGN); // a reader that goes away is an error of the write, told in one line
    interrupt_catch(true);

    session s = {0};
    if (code == EXIT_OK) code = open_session(&s);
    if (code == EXIT_OK) code = opt.interactive ? converse(&s) : answer_once(&s, prompt.text, prompt.bytes);
    text_free(&prompt);
    return close_session(&s, code);
}
