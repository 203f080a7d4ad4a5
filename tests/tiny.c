#include "tiny.h"

#include "gguf.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "pith.h"

// ------------------------------------------------------------------------------------------------ shapes

tiny_spec tiny_default(const char *arch, enum ggml_type type) {
    bool big = ggml_blck_size(type) > 32;
    uint32_t head_dim = big ? 64 : 32;
    tiny_spec s = {
        .arch = arch,
        .type = type,
        .embed = type,
        .n_layers = 2,
        .d_model = big ? 256 : 128,
        .n_heads = 4,
        .n_kv_heads = 2,
        // Qwen3 states its head size, which need not be D / H: make it differ.
        .head_dim = strcmp(arch, "qwen3") == 0 ? 2 * head_dim : head_dim,
        .d_ff = big ? 512 : 192,
        .n_vocab = 384,
        .n_ctx = 4096,
        .rope_base = 10000.0f,
        .rope_factor = 1.0f,
        .biases = strcmp(arch, "qwen2") == 0,
        .gain = 2.0f,
        .seed = 1,
    };
    return s;
}

// ------------------------------------------------------------------------------------------------ numbers

static uint64_t mix(uint64_t x) { // splitmix64's finaliser (Steele, Lea, Flood 2014)
    x += 0x9e3779b97f4a7c15u;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

// About normal, deviation 1: the sum of the four 16-bit parts of one draw, each uniform with variance 1/12.
static float draw(uint64_t seed, uint64_t i) {
    uint64_t u = mix(seed + i * 0xd1342543de82ef95u);
    float sum = (float)(u & 0xffff) + (float)((u >> 16) & 0xffff) + (float)((u >> 32) & 0xffff) + (float)(u >> 48);
    return (sum * (1.0f / 65536.0f) - 2.0f) * 1.7320508f;
}

// ----------------------------------------------------------------------------------------------- tensors

typedef struct tensor {
    char name[64];
    enum ggml_type type;
    int64_t cols, rows; // rows 0: a vector
    float center, deviation;
} tensor;

typedef struct tensor_list {
    tensor *at;
    size_t n;
    bool failed;
} tensor_list;

static void add(tensor_list *list, const char *name, enum ggml_type type, int64_t cols, int64_t rows, float center,
                float deviation) {
    tensor *grown = realloc(list->at, (list->n + 1) * sizeof *grown);
    if (!grown) {
        list->failed = true;
        return;
    }
    list->at = grown;
    tensor *t = &grown[list->n++];
    *t = (tensor){.type = type, .cols = cols, .rows = rows, .center = center, .deviation = deviation};
    snprintf(t->name, sizeof t->name, "%s", name);
}

// A product (rows, cols) whose outputs have deviation `gain` for inputs of deviation 1, and its bias.
static void add_product(tensor_list *list, const tiny_spec *s, uint32_t layer, const char *role, int64_t cols,
                        int64_t rows, float gain, bool bias) {
    char name[64];
    snprintf(name, sizeof name, "blk.%u.%s.weight", layer, role);
    add(list, name, s->type, cols, rows, 0.0f, gain / sqrtf((float)cols));
    snprintf(name, sizeof name, "blk.%u.%s.bias", layer, role);
    if (bias) add(list, name, GGML_TYPE_F32, rows, 0, 0.0f, 0.1f);
}

static void add_norm(tensor_list *list, uint32_t layer, const char *role, int64_t n) {
    char name[64];
    snprintf(name, sizeof name, "blk.%u.%s.weight", layer, role);
    add(list, name, GGML_TYPE_F32, n, 0, 1.0f, 0.1f);
}

static tensor_list list_tensors(const tiny_spec *s) {
    bool llama = strcmp(s->arch, "llama") == 0, qwen3 = strcmp(s->arch, "qwen3") == 0;
    int64_t q_dim = (int64_t)s->n_heads * s->head_dim, kv_dim = (int64_t)s->n_kv_heads * s->head_dim;
    tensor_list list = {0};
    // Logits of deviation about 3: a clear favourite, yet not a certain one.
    float head = 3.0f / sqrtf((float)s->d_model);
    add(&list, "token_embd.weight", s->embed, s->d_model, s->n_vocab, 0.0f, s->tied ? head : 1.0f);
    if (s->rope_freqs) add(&list, "rope_freqs.weight", GGML_TYPE_F32, s->head_dim / 2, 0, 4.0f, 1.0f);
    for (uint32_t i = 0; i < s->n_layers; i++) {
        add_norm(&list, i, "attn_norm", s->d_model);
        add_product(&list, s, i, "attn_q", s->d_model, q_dim, s->gain, s->biases);
        add_product(&list, s, i, "attn_k", s->d_model, kv_dim, s->gain, s->biases);
        add_product(&list, s, i, "attn_v", s->d_model, kv_dim, 1.0f, s->biases);
        add_product(&list, s, i, "attn_output", q_dim, s->d_model, 1.0f, s->biases && llama);
        if (qwen3) add_norm(&list, i, "attn_q_norm", s->head_dim);
        if (qwen3) add_norm(&list, i, "attn_k_norm", s->head_dim);
        add_norm(&list, i, "ffn_norm", s->d_model);
        add_product(&list, s, i, "ffn_gate", s->d_model, s->d_ff, 1.0f, s->biases && llama);
        add_product(&list, s, i, "ffn_up", s->d_model, s->d_ff, 1.0f, s->biases && llama);
        add_product(&list, s, i, "ffn_down", s->d_ff, s->d_model, 1.0f, s->biases && llama);
    }
    add(&list, "output_norm.weight", GGML_TYPE_F32, s->d_model, 0, 1.0f, 0.1f);
    if (!s->tied) add(&list, "output.weight", s->type, s->d_model, s->n_vocab, 0.0f, head);
    return list;
}

// Rows are whole blocks of a type that weights are stored in (which some types of ggml's are not).
static bool can_make(const tensor *t) {
    bool stored = t->type == GGML_TYPE_F32 || ggml_get_type_traits(t->type)->to_float != NULL;
    return stored && t->cols % ggml_blck_size(t->type) == 0;
}

// Writes the tensor's values row by row, padded to the file's alignment.
static bool write_values(FILE *f, const tensor *t, uint64_t seed) {
    int64_t rows = t->rows ? t->rows : 1;
    size_t row_bytes = ggml_row_size(t->type, t->cols), bytes = row_bytes * (size_t)rows;
    float *values = malloc((size_t)t->cols * sizeof *values),
          *importance = malloc((size_t)t->cols * sizeof *importance);
    void *packed = malloc(row_bytes);
    bool ok = values && importance && packed;
    // The coarsest types refuse to be made without importances.
    for (int64_t i = 0; ok && i < t->cols; i++) importance[i] = 1.0f;
    for (int64_t r = 0; ok && r < rows; r++) {
        for (int64_t i = 0; i < t->cols; i++)
            values[i] = t->center + t->deviation * draw(seed, (uint64_t)(r * t->cols + i));
        ggml_quantize_chunk(t->type, values, packed, 0, 1, t->cols, importance);
        ok = fwrite(packed, row_bytes, 1, f) == 1;
    }
    static const char zeros[GGUF_DEFAULT_ALIGNMENT];
    size_t over = bytes % sizeof zeros, padding = over ? sizeof zeros - over : 0;
    ok = ok && (padding == 0 || fwrite(zeros, padding, 1, f) == 1);
    free(values);
    free(importance);
    free(packed);
    return ok;
}

// -------------------------------------------------------------------------------------------- vocabulary

// GPT-2's reversible spelling of a byte as a printable character, in UTF-8: printable bytes of Latin-1 stand for
// themselves, the others are numbered from 256 on, in order.
static bool is_printable(unsigned b) { return (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174; }

static void byte_name(unsigned byte, char out[4]) {
    unsigned code = is_printable(byte) ? byte : 256;
    for (unsigned b = 0; b < byte && !is_printable(byte); b++) code += !is_printable(b);
    int n = 0;
    if (code >= 0x80) {
        out[n++] = (char)(0xc0 | (code >> 6));
        out[n++] = (char)(0x80 | (code & 0x3f));
    } else {
        out[n++] = (char)code;
    }
    out[n] = 0;
}

#define SPACE "\xc4\xa0" // byte_name(' ')

// Merges in the order of their ranks, as "left right".
static const char *const common_merges[] = {
    "t h", "h e", "i n",  "e r",        "a n",  "r e",        "o n",       "a t",  "e n",  "n d",
    "o r", "i s", "th e", SPACE "t he", "in g", SPACE "a nd", SPACE "i s", "re s", "en t",
};

typedef struct vocab {
    char (*token)[32]; // (n_vocab)
    char (*merge)[32]; // (n_merges)
    int32_t *kind;     // (n_vocab) token types of GGUF: 1 normal, 3 control, 4 user defined, 5 unused
    uint32_t n, n_merges;
} vocab;

static void add_merge(vocab *v, uint32_t limit, const char *merge) {
    char joined[32];
    size_t n = 0;
    for (const char *c = merge; *c; c++)
        if (*c != ' ') joined[n++] = *c;
    joined[n] = 0;
    for (uint32_t i = 0; i < v->n; i++)
        if (strcmp(v->token[i], joined) == 0) return;
    if (v->n == limit) return;
    memcpy(v->token[v->n++], joined, n + 1);
    snprintf(v->merge[v->n_merges++], 32, "%s", merge);
}

tiny_tokens tiny_control_tokens(uint32_t n_vocab) {
    int32_t end = (int32_t)n_vocab;
    return (tiny_tokens){end - 5, end - 4, end - 3, end - 2, end - 1};
}

static bool make_vocab(vocab *v, uint32_t n_vocab) {
    static const char *const control[] = {"<|endoftext|>", "<|im_start|>", "<|im_end|>", "<think>", "</think>"};
    *v = (vocab){calloc(n_vocab, 32), calloc(n_vocab, 32), calloc(n_vocab, sizeof *v->kind), 0, 0};
    if (!v->token || !v->merge || !v->kind || n_vocab < TINY_MIN_VOCAB) return false;
    for (unsigned b = 0; b < 256; b++) byte_name(b, v->token[v->n++]);
    uint32_t limit = n_vocab - 5;
    char merge[32];
    for (char c = 'a'; c <= 'z'; c++) snprintf(merge, sizeof merge, SPACE " %c", c), add_merge(v, limit, merge);
    for (size_t i = 0; i < sizeof common_merges / sizeof *common_merges; i++) add_merge(v, limit, common_merges[i]);
    for (int i = 0; i < 26 * 26; i++) {
        snprintf(merge, sizeof merge, "%c %c", 'a' + i / 26, 'a' + i % 26);
        add_merge(v, limit, merge);
    }
    for (uint32_t i = 0; i < v->n; i++) v->kind[i] = 1;
    while (v->n < limit) {
        v->kind[v->n] = 5;
        snprintf(v->token[v->n], 32, "<|unused_%u|>", v->n);
        v->n++;
    }
    for (int i = 0; i < 5; i++) {
        v->kind[v->n] = i < 3 ? 3 : 4; // thinking is text that a reader sees
        snprintf(v->token[v->n++], 32, "%s", control[i]);
    }
    return true;
}

// ---------------------------------------------------------------------------------------------- metadata

static const char chatml[] = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
                             "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";
static const char thinking[] = "{% if add_generation_prompt %}<think>\n{% endif %}"; // behind it

static bool set_vocab(struct gguf_context *g, const tiny_spec *s) {
    vocab v;
    bool ok = make_vocab(&v, s->n_vocab);
    const char **list = malloc(s->n_vocab * sizeof *list);
    ok = ok && list;
    if (ok) {
        gguf_set_val_str(g, "tokenizer.ggml.model", "gpt2");
        gguf_set_val_str(g, "tokenizer.ggml.pre", "qwen2");
        for (uint32_t i = 0; i < v.n; i++) list[i] = v.token[i];
        gguf_set_arr_str(g, "tokenizer.ggml.tokens", list, v.n);
        gguf_set_arr_data(g, "tokenizer.ggml.token_type", GGUF_TYPE_INT32, v.kind, v.n);
        for (uint32_t i = 0; i < v.n_merges; i++) list[i] = v.merge[i];
        gguf_set_arr_str(g, "tokenizer.ggml.merges", list, v.n_merges);
        tiny_tokens id = tiny_control_tokens(s->n_vocab);
        gguf_set_val_u32(g, "tokenizer.ggml.bos_token_id", (uint32_t)id.end_of_text);
        gguf_set_val_u32(g, "tokenizer.ggml.eos_token_id", (uint32_t)id.im_end);
        gguf_set_val_u32(g, "tokenizer.ggml.padding_token_id", (uint32_t)id.end_of_text);
        gguf_set_val_bool(g, "tokenizer.ggml.add_bos_token", s->add_bos);
        char both[sizeof chatml + sizeof thinking];
        snprintf(both, sizeof both, "%s%s", chatml, s->thinks ? thinking : "");
        gguf_set_val_str(g, "tokenizer.chat_template", both);
    }
    free(list);
    free(v.token);
    free(v.merge);
    free(v.kind);
    return ok;
}

static void set_u32(struct gguf_context *g, const char *arch, const char *key, uint32_t value) {
    char name[96];
    snprintf(name, sizeof name, "%s.%s", arch, key);
    gguf_set_val_u32(g, name, value);
}

static void set_f32(struct gguf_context *g, const char *arch, const char *key, float value) {
    char name[96];
    snprintf(name, sizeof name, "%s.%s", arch, key);
    gguf_set_val_f32(g, name, value);
}

static void set_shape(struct gguf_context *g, const tiny_spec *s) {
    gguf_set_val_str(g, "general.architecture", s->arch);
    gguf_set_val_str(g, "general.name", "tiny");
    set_u32(g, s->arch, "block_count", s->n_layers);
    set_u32(g, s->arch, "context_length", s->n_ctx);
    set_u32(g, s->arch, "embedding_length", s->d_model);
    set_u32(g, s->arch, "feed_forward_length", s->d_ff);
    set_u32(g, s->arch, "attention.head_count", s->n_heads);
    set_u32(g, s->arch, "attention.head_count_kv", s->n_kv_heads);
    if (s->n_heads * s->head_dim != s->d_model) {
        set_u32(g, s->arch, "attention.key_length", s->head_dim);
        set_u32(g, s->arch, "attention.value_length", s->head_dim);
    }
    set_f32(g, s->arch, "attention.layer_norm_rms_epsilon", 1e-6f);
    set_f32(g, s->arch, "rope.freq_base", s->rope_base);
    if (!s->rope_scaling) return;
    char name[96];
    snprintf(name, sizeof name, "%s.rope.scaling.type", s->arch);
    gguf_set_val_str(g, name, s->rope_scaling);
    set_f32(g, s->arch, "rope.scaling.factor", s->rope_factor);
    if (s->n_ctx_orig) set_u32(g, s->arch, "rope.scaling.original_context_length", s->n_ctx_orig);
}

// Tells the header about the tensors; their values follow it in the file.
static void set_tensors(struct gguf_context *g, const tensor_list *list) {
    struct ggml_init_params params = {.mem_size = (list->n + 1) * ggml_tensor_overhead(), .no_alloc = true};
    struct ggml_context *ctx = ggml_init(params);
    for (size_t i = 0; i < list->n; i++) {
        const tensor *t = &list->at[i];
        struct ggml_tensor *made =
            t->rows ? ggml_new_tensor_2d(ctx, t->type, t->cols, t->rows) : ggml_new_tensor_1d(ctx, t->type, t->cols);
        ggml_set_name(made, t->name);
        gguf_add_tensor(g, made); // copies it
    }
    ggml_free(ctx);
}

bool tiny_model_write(const char *path, const tiny_spec *spec) {
    struct gguf_context *g = gguf_init_empty();
    tensor_list list = list_tensors(spec);
    bool ok = !list.failed;
    for (size_t i = 0; ok && i < list.n; i++) ok = can_make(&list.at[i]);
    if (!ok)
        fprintf(stderr, "tiny: %s: matrices of these sizes cannot be made in %s\n", path, ggml_type_name(spec->type));
    if (ok && !(ok = set_vocab(g, spec)))
        fprintf(stderr, "tiny: %s: a vocabulary of %u tokens cannot be made\n", path, spec->n_vocab);
    if (ok) {
        set_shape(g, spec);
        set_tensors(g, &list);
        ok = gguf_write_to_file(g, path, true);
        FILE *f = ok ? fopen(path, "ab") : NULL;
        ok = f != NULL;
        // Each tensor has its own stream, so that adding a role leaves the others' values alone.
        for (size_t i = 0; ok && i < list.n; i++) {
            uint64_t stream = spec->seed;
            for (const char *c = list.at[i].name; *c; c++) stream = mix(stream ^ (uint8_t)*c);
            ok = write_values(f, &list.at[i], stream);
        }
        if (f && fclose(f) != 0) ok = false;
        if (!ok) perror(path);
    }
    free(list.at);
    gguf_free(g);
    return ok;
}

struct pith_model *tiny_model_open(const tiny_spec *spec) {
    char path[64];
    snprintf(path, sizeof path, "tiny.%d.gguf", (int)getpid());
    pith_model *model = NULL;
    pith_error err = {.msg = "cannot write it"};
    if (tiny_model_write(path, spec)) pith_model_load(path, NULL, &model, &err);
    if (!model) fprintf(stderr, "%s: %s\n", path, err.msg);
    remove(path); // stays mapped
    return model;
}
