#include "base/mem.h"

#include <stdlib.h>
#include <string.h>

enum { ALIGNMENT = 64 }; // a cache line, and the widest vector

void *pith_new(const pith_allocator *a, size_t count, size_t size) {
    size_t bytes;
    if (__builtin_mul_overflow(count, size, &bytes) || bytes > SIZE_MAX - ALIGNMENT) return NULL;
    if (bytes == 0) bytes = 1;
    if (a) return a->alloc(a->ctx, bytes);
    // aligned_alloc wants a multiple of the alignment
    void *p = aligned_alloc(ALIGNMENT, (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT);
    return p ? memset(p, 0, bytes) : NULL;
}

void pith_delete(const pith_allocator *a, void *p, size_t count, size_t size) {
    if (!p) return;
    size_t bytes = count * size;
    if (a) a->release(a->ctx, p, bytes ? bytes : 1);
    else free(p);
}
