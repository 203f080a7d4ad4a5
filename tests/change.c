#include "change.h"

#include <string.h>

bool change_begin(change *c, const char *path) {
    *c = (change){0};
    struct gguf_init_params params = {.no_alloc = false, .ctx = &c->data};
    c->keys = gguf_init_from_file(path, params);
    if (!c->keys || gguf_get_n_tensors(c->keys) > (int64_t)(sizeof c->t / sizeof *c->t)) return false;
    for (int64_t i = 0; i < gguf_get_n_tensors(c->keys); i++)
        c->t[c->n++] = ggml_get_tensor(c->data, gguf_get_tensor_name(c->keys, i));
    return true;
}

bool change_end(change *c, const char *path) {
    struct gguf_context *out = gguf_init_empty();
    gguf_set_kv(out, c->keys);
    for (int i = 0; i < c->n; i++)
        if (c->t[i]) gguf_add_tensor(out, c->t[i]);
    bool ok = gguf_write_to_file(out, path, false);
    gguf_free(out);
    gguf_free(c->keys);
    ggml_free(c->data);
    return ok;
}

static int find(const change *c, const char *name) {
    for (int i = 0; i < c->n; i++)
        if (c->t[i] && strcmp(ggml_get_name(c->t[i]), name) == 0) return i;
    return -1;
}

struct ggml_tensor *change_tensor(change *c, const char *name) {
    int i = find(c, name);
    return i < 0 ? NULL : c->t[i];
}

void change_drop(change *c, const char *name) {
    int i = find(c, name);
    if (i >= 0) c->t[i] = NULL;
}

void change_shape(change *c, const char *name, enum ggml_type type, int64_t cols, int64_t rows) {
    struct ggml_tensor *t = change_tensor(c, name);
    if (!t) return;
    t->type = type;
    t->ne[0] = cols, t->ne[1] = rows, t->ne[2] = t->ne[3] = 1;
    t->nb[0] = ggml_type_size(type);
    t->nb[1] = ggml_row_size(type, cols);
    t->nb[2] = t->nb[3] = t->nb[1] * (size_t)rows;
}
