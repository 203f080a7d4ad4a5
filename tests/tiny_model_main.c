// Command line of tiny.h: makes one model file.
#include "tiny.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

static const char usage[] = "usage: tiny_model_main --arch qwen2|qwen3|llama --type TYPE --out FILE [options]\n"
                            "  --embed TYPE          type of the embedding (the same)\n"
                            "  --seed N --layers N --d N --heads N --kv-heads N --head-dim N --ff N --vocab N --ctx N\n"
                            "  --rope-base X --rope-scaling linear|yarn --rope-factor X --ctx-orig N --rope-freqs\n"
                            "  --tied --biases --no-biases --bos --thinks --gain X\n"
                            "TYPE is ggml's name of a tensor type: f32 f16 bf16 q8_0 q4_0 q4_K q6_K iq2_xxs ...\n";

static int usage_error(const char *what, const char *given) {
    fprintf(stderr, "tiny_model_main: %s '%s'\n%s", what, given, usage);
    return 2;
}

// ggml's type of that name, in any case; GGML_TYPE_COUNT when there is none.
static enum ggml_type type_named(const char *name) {
    for (int t = 0; t < GGML_TYPE_COUNT; t++) {
        const char *known = ggml_type_name((enum ggml_type)t);
        bool exists = known && ggml_blck_size((enum ggml_type)t) > 0; // removed types have no block
        if (exists && strcasecmp(known, name) == 0) return (enum ggml_type)t;
    }
    return GGML_TYPE_COUNT;
}

static bool set_number(tiny_spec *s, const char *flag, const char *value) {
    char *end;
    double x = strtod(value, &end);
    if (*value == 0 || *end || !(x >= 0 && x < 4e9)) return false;
    const struct {
        const char *flag;
        uint32_t *at;
    } numbers[] = {{"--layers", &s->n_layers},     {"--d", &s->d_model},         {"--heads", &s->n_heads},
                   {"--kv-heads", &s->n_kv_heads}, {"--head-dim", &s->head_dim}, {"--ff", &s->d_ff},
                   {"--vocab", &s->n_vocab},       {"--ctx", &s->n_ctx},         {"--ctx-orig", &s->n_ctx_orig}};
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        if (strcmp(flag, numbers[i].flag) == 0) return *numbers[i].at = (uint32_t)x, true;
    if (strcmp(flag, "--seed") == 0) return s->seed = (uint64_t)x, true;
    if (strcmp(flag, "--rope-base") == 0) return s->rope_base = (float)x, true;
    if (strcmp(flag, "--rope-factor") == 0) return s->rope_factor = (float)x, true;
    if (strcmp(flag, "--gain") == 0) return s->gain = (float)x, true;
    return false;
}

static const char *value_of(int argc, char **argv, const char *flag) {
    for (int i = 1; i + 1 < argc; i++)
        if (strcmp(argv[i], flag) == 0) return argv[i + 1];
    return NULL;
}

int main(int argc, char **argv) {
    const char *arch = value_of(argc, argv, "--arch"), *type = value_of(argc, argv, "--type");
    const char *out = value_of(argc, argv, "--out");
    if (!arch || !type || !out) return fputs(usage, stderr), 2;
    if (strcmp(arch, "qwen2") != 0 && strcmp(arch, "qwen3") != 0 && strcmp(arch, "llama") != 0)
        return usage_error("unknown architecture", arch);
    enum ggml_type id = type_named(type);
    if (id == GGML_TYPE_COUNT) return usage_error("unknown type", type);
    tiny_spec s = tiny_default(arch, id);
    for (int i = 1; i < argc; i++) {
        const char *flag = argv[i], *value = i + 1 < argc ? argv[i + 1] : "";
        if (strcmp(flag, "--rope-freqs") == 0) s.rope_freqs = true;
        else if (strcmp(flag, "--tied") == 0) s.tied = true;
        else if (strcmp(flag, "--biases") == 0) s.biases = true;
        else if (strcmp(flag, "--no-biases") == 0) s.biases = false;
        else if (strcmp(flag, "--bos") == 0) s.add_bos = true;
        else if (strcmp(flag, "--thinks") == 0) s.thinks = true;
        else if (strcmp(flag, "--arch") == 0 || strcmp(flag, "--type") == 0 || strcmp(flag, "--out") == 0) i++;
        else if (strcmp(flag, "--rope-scaling") == 0) s.rope_scaling = value, i++;
        else if (strcmp(flag, "--embed") == 0) {
            s.embed = type_named(value), i++;
            if (s.embed == GGML_TYPE_COUNT) return usage_error("unknown type", value);
        } else if (set_number(&s, flag, value)) i++;
        else return usage_error("bad option", flag);
    }
    return tiny_model_write(out, &s) ? 0 : 1;
}
