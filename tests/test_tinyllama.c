// A real model, TinyLlama-1.1B-Chat, on real text: our logits against libllama's, teacher-forced, and its vocabulary
// there and back. Skipped where models/tinyllama-1.1b-chat.gguf is missing (`make test` fetches it), and when
// PITH_TEST_QUICK is set: for repeated runs under sanitizers or with fewer instructions.
#include "calls.h"

#include "llama.h"
#include "pith.h"

enum { MAX_TOKENS = 512, MIN_FORCED = 64 };

// In standard deviations of libllama's logits. Most weights are IQ2_XXS, activations 8-bit: where two programs' sums
// differ in the last bit, some activation moves to the next step of its grid, and 22 layers multiply that. libllama
// differs from itself as much, by 0.26 to 0.30 at most, when only its cache type or its attention is another.
static const double MOST = 0.4, ROOT_MEAN_SQUARE = 0.06;
static const double MARGIN = 0.1; // libllama's top two may change places when they are nearer than this

static const char question[] = "What does the sea look like from the shore in winter?";
static const char answer[] =
    "In winter the sea is rarely blue. On calm days it is the grey of slate, and the line where it meets the sky is "
    "hard to find. When the wind comes from the north, long waves roll in, break over the rocks, and throw white foam "
    "high into the air. Gulls stand on the wet sand with their heads down, and nobody swims.";

static pith_model *model;
static char path[1024];

static bool is_skipped(void) {
    const char *root = getenv("PITH_ROOT");
    snprintf(path, sizeof path, "%s/models/tinyllama-1.1b-chat.gguf", root ? root : ".");
    if (getenv("PITH_TEST_QUICK")) print_message("skipped: PITH_TEST_QUICK is set\n");
    else if (access(path, R_OK) != 0) print_message("skipped: no %s\n", path);
    else return false;
    return true;
}

static size_t tokens_of(const char *text, int flags, pith_token *out, size_t capacity) {
    size_t n;
    OK(pith_tokenize(model, text, strlen(text), flags, out, capacity, &n, &err));
    return n;
}

// ------------------------------------------------------------------------------------------------ libllama

static void silent(enum ggml_log_level level, const char *text, void *ctx) { (void)level, (void)text, (void)ctx; }

// (n - n_prompt + 1, V): logits of the prompt's last token and of every one behind it.
static float *theirs_of(const pith_token *tokens, uint32_t n_prompt, uint32_t n, uint32_t n_vocab) {
    llama_log_set(silent, NULL);
    struct llama_model *m = llama_model_load_from_file(path, llama_model_default_params());
    assert_non_null(m);
    struct llama_context_params cp = llama_context_default_params();
    cp.n_ctx = cp.n_batch = cp.n_ubatch = MAX_TOKENS;
    cp.n_threads = cp.n_threads_batch = 1; // two wait for each other with spinning barriers, long on a busy machine
    cp.flash_attn_type = LLAMA_FLASH_ATTN_TYPE_DISABLED;
    struct llama_context *ctx = llama_init_from_model(m, cp);
    assert_non_null(ctx);
    float *all = t_new((size_t)(n - n_prompt + 1) * n_vocab * sizeof *all);
    pith_token copy[MAX_TOKENS];
    memcpy(copy, tokens, n * sizeof *tokens);
    for (uint32_t end = n_prompt; end <= n; end++) { // the prompt at once, then token by token
        const uint32_t first = end == n_prompt ? 0 : end - 1;
        assert_int_equal(llama_decode(ctx, llama_batch_get_one(copy + first, (int32_t)(end - first))), 0);
        memcpy(all + (size_t)(end - n_prompt) * n_vocab, llama_get_logits_ith(ctx, -1), n_vocab * sizeof *all);
    }
    llama_free(ctx);
    llama_model_free(m);
    return all;
}

// -------------------------------------------------------------------------------------------------- compare

typedef struct comparison {
    double most, squares; // the largest difference; the sum over tokens of the mean square
    double widest_flip;   // the largest margin between libllama's top two where our argmax is another
    uint32_t n, n_same;
} comparison;

static void compare(comparison *c, const float *ours, const float *theirs, uint32_t n) {
    double mean = 0, variance = 0;
    for (uint32_t i = 0; i < n; i++) mean += (double)theirs[i] / n;
    for (uint32_t i = 0; i < n; i++) variance += pow((double)theirs[i] - mean, 2) / n;
    uint32_t best = 0, mine = 0;
    double second = -INFINITY;
    for (uint32_t i = 0; i < n; i++) {
        assert_true(isfinite(ours[i]));
        const double difference = fabs((double)ours[i] - (double)theirs[i]) / sqrt(variance);
        if (difference > c->most) c->most = difference;
        c->squares += difference * difference / n;
        if (theirs[i] > theirs[best]) best = i;
        if (ours[i] > ours[mine]) mine = i;
    }
    for (uint32_t i = 0; i < n; i++)
        if (i != best && (double)theirs[i] > second) second = (double)theirs[i];
    const double margin = ((double)theirs[best] - second) / sqrt(variance);
    if (mine != best && margin > c->widest_flip) c->widest_flip = margin;
    c->n++, c->n_same += mine == best;
}

static pith_sequence *sequence_of(pith_engine **engine) {
    pith_engine_params ep;
    pith_engine_params_init(&ep);
    ep.n_threads = 1, ep.chunk = 64, ep.n_ctx = MAX_TOKENS;
    OK(pith_engine_new(model, &ep, engine, &err));
    pith_sequence_params sp;
    pith_sequence_params_init(&sp);
    sp.ignore_end = true;
    pith_sequence *seq;
    OK(pith_sequence_new(*engine, &sp, &seq, &err));
    return seq;
}

static void logits(void **state) {
    (void)state;
    const pith_message message = {"user", question};
    char *chat;
    pith_token tokens[MAX_TOKENS];
    OK(pith_chat_render(model, &message, 1, &chat, &err));
    assert_non_null(strstr(chat, question));
    const uint32_t n_prompt = (uint32_t)tokens_of(chat, PITH_TOKENS_SPECIAL | PITH_TOKENS_BEGIN, tokens, MAX_TOKENS);
    const uint32_t n = n_prompt + (uint32_t)tokens_of(answer, 0, tokens + n_prompt, MAX_TOKENS - n_prompt);
    pith_text_free(chat);
    assert_in_range(n - n_prompt, MIN_FORCED, 128); // as many as are quickly done

    pith_model_info info;
    pith_model_describe(model, &info);
    float *theirs = theirs_of(tokens, n_prompt, n, info.n_vocab);
    pith_engine *engine;
    pith_sequence *seq = sequence_of(&engine);
    pith_sequence_info now;
    uint32_t n_active;
    OK(pith_sequence_prompt(seq, tokens, n_prompt, &err));
    do {
        OK(pith_engine_step(engine, &n_active, &err));
        pith_sequence_describe(seq, &now);
    } while (now.phase == PITH_PREFILL);
    comparison c = {0};
    for (uint32_t t = n_prompt;; t++) {
        compare(&c, pith_sequence_logits(seq), theirs + (size_t)(t - n_prompt) * info.n_vocab, info.n_vocab);
        if (t == n) break;
        OK(pith_sequence_force(seq, tokens[t], &err));
        OK(pith_engine_step(engine, &n_active, &err));
    }
    const double rms = sqrt(c.squares / c.n);
    print_message("%u tokens: largest difference %.3f of %.3f standard deviations, root mean square %.4f of %.4f, same "
                  "argmax in %u; where not, libllama's top two are at most %.3f of %.3f apart\n",
                  c.n, c.most, MOST, rms, ROOT_MEAN_SQUARE, c.n_same, c.widest_flip, MARGIN);
    assert_true(c.most <= MOST && rms <= ROOT_MEAN_SQUARE);
    assert_true(c.widest_flip <= MARGIN);
    free(theirs);
    pith_engine_free(engine);
}

// ----------------------------------------------------------------------------------------------- vocabulary

static void vocabulary(void **state) {
    (void)state;
    static const char *const texts[] = {
        question,
        answer,
        "  two spaces,\ttabs\nand\r\nlines\n\n\n",
        "na\xc3\xafve caf\xc3\xa9, \xe6\x97\xa5\xe6\x9c\xac\xe8\xaa\x9e, "
        "\xd0\xbf\xd1\x80\xd0\xb8\xd0\xb2\xd0\xb5\xd1\x82, \xf0\x9f\xa6\x99\xf0\x9f\x8f\xbd", // letters of four
                                                                                              // scripts; a llama and a
                                                                                              // skin tone, byte by byte
        "int main(void) { return 0x7f; } // 3.14159e-10",
        "<s></s><|user|>", // names of control tokens are mere text
    };
    pith_token tokens[MAX_TOKENS];
    char text[4096];
    for (size_t i = 0; i < T_COUNT(texts); i++) {
        const size_t n = tokens_of(texts[i], 0, tokens, MAX_TOKENS);
        size_t bytes = 0;
        for (size_t t = 0; t < n; t++)
            bytes += pith_token_text(model, tokens[t], false, text + bytes, sizeof text - bytes - 1);
        text[bytes] = 0;
        assert_true(text[0] == ' '); // SentencePiece puts a space in front
        assert_string_equal(text + 1, texts[i]);
    }

    assert_int_equal(tokens_of("<s>Hi</s>", PITH_TOKENS_SPECIAL | PITH_TOKENS_BEGIN, tokens, MAX_TOKENS), 3);
    assert_int_equal(tokens[0], 1);
    assert_int_equal(tokens[2], 2);
    assert_true(pith_token_ends(model, 2));
    assert_int_equal(pith_token_text(model, 2, false, text, sizeof text), 0);
    assert_int_equal(pith_token_text(model, 2, true, text, sizeof text), 4);
    assert_memory_equal(text, "</s>", 4);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(vocabulary), cmocka_unit_test(logits)};
    if (is_skipped()) return 0;
    if (pith_model_load(path, NULL, &model, &err) != PITH_OK) {
        fprintf(stderr, "%s\n", err.msg);
        return 1;
    }
    const int failed = cmocka_run_group_tests(tests, NULL, NULL);
    pith_model_free(model);
    return failed;
}
