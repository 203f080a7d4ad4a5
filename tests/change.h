// Changed copies of a GGUF file, for tests of what is refused.
#ifndef CHANGE_H
#define CHANGE_H

#include "ggml.h"
#include "gguf.h"

#include <stdbool.h>

typedef struct change {
    struct gguf_context *keys;   // change with gguf_set_*, gguf_remove_key
    struct ggml_tensor *t[4096]; // change with ggml_set_name, shrink, or set to NULL to leave it out
    int n;
    struct ggml_context *data; // owns the tensors and their bytes
} change;

bool change_begin(change *c, const char *path); // reads all of the file
bool change_end(change *c, const char *path);   // writes, then frees

struct ggml_tensor *change_tensor(change *c, const char *name); // NULL when there is none
void change_drop(change *c, const char *name);

// Another type and shape over the first bytes of the tensor's data, which must hold it.
void change_shape(change *c, const char *name, enum ggml_type type, int64_t cols, int64_t rows);

#endif
