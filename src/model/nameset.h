// A set of byte strings that live elsewhere, each with the number it was added as. It finds duplicates and looks up.
#ifndef PITH_MODEL_NAMESET_H
#define PITH_MODEL_NAMESET_H

#include "base/mem.h"

#define PITH_NAME_NONE UINT32_MAX

typedef struct pith_name {
    const char *at; // borrowed, not terminated
    uint32_t length;
    uint32_t id;
} pith_name;

typedef struct pith_nameset {
    const pith_allocator *alloc;
    pith_name *slots; // (n_slots), a power of two, at most half full; `at` NULL is free
    uint32_t n_slots;
} pith_nameset;

// Room for up to `capacity` (at most 2^24) names; false when memory is short.
bool pith_nameset_init(pith_nameset *set, const pith_allocator *alloc, uint32_t capacity);
void pith_nameset_free(pith_nameset *set); // a zeroed set is allowed

// Adds a name. PITH_NAME_NONE when it is new, else the id under which it is already there, which stays.
uint32_t pith_nameset_add(pith_nameset *set, const char *at, uint32_t length, uint32_t id);

// The id of a name, or PITH_NAME_NONE.
uint32_t pith_nameset_find(const pith_nameset *set, const char *at, uint32_t length);

#endif
