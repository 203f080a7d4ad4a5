// All memory of ours passes through a pith_allocator, so that a test can count it, make it fail, or forbid it from
// some moment on. `a` may be NULL: the C library's.
#ifndef PITH_BASE_MEM_H
#define PITH_BASE_MEM_H

#include "pith.h"

// count * size bytes, zero-filled, 64-byte aligned. NULL when the product overflows or memory is short; count or size 0
// gives a pointer that must still be released.
void *pith_new(const pith_allocator *a, size_t count, size_t size);

// Gives back what pith_new returned for the same count and size; p may be NULL.
void pith_delete(const pith_allocator *a, void *p, size_t count, size_t size);

#endif
