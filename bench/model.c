#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "bench.h"
#include "tiny.h"

bool model_make(const char *path) {
    if (access(path, R_OK) == 0) return true;
    fprintf(stderr, "bench: writing %s (530 MB, once)\n", path);
    // The shape of Qwen2-0.5B, as its config.json gives it.
    tiny_spec spec = tiny_default("qwen2", GGML_TYPE_Q8_0);
    spec.n_layers = 24, spec.d_model = 896, spec.d_ff = 4864;
    spec.n_heads = 14, spec.n_kv_heads = 2, spec.head_dim = 64;
    spec.n_vocab = 151936, spec.n_ctx = 32768, spec.rope_base = 1e6f;
    spec.tied = true;

    // Under another name until it is whole: an interrupted run leaves nothing that a later one believes.
    char part[4096];
    const int length = snprintf(part, sizeof part, "%s.part", path);
    if (length < 0 || (size_t)length >= sizeof part) {
        fprintf(stderr, "bench: %s: the name is too long\n", path);
        return false;
    }
    if (!tiny_model_write(part, &spec)) return false;
    if (rename(part, path) == 0) return true;
    fprintf(stderr, "bench: %s: %s\n", path, strerror(errno));
    return false;
}
