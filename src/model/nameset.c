#include "model/nameset.h"

#include <string.h>

bool pith_nameset_init(pith_nameset *set, const pith_allocator *alloc, uint32_t capacity) {
    uint32_t n_slots = 8;
    while (n_slots < 2 * capacity) n_slots *= 2;
    *set = (pith_nameset){alloc, pith_new(alloc, n_slots, sizeof *set->slots), n_slots};
    return set->slots != NULL;
}

void pith_nameset_free(pith_nameset *set) {
    pith_delete(set->alloc, set->slots, set->n_slots, sizeof *set->slots);
    *set = (pith_nameset){0};
}

static uint64_t hash(const char *at, uint32_t length) { // FNV-1a, then mixed because the low bits choose the slot
    uint64_t h = 0xcbf29ce484222325u;
    for (uint32_t i = 0; i < length; i++) h = (h ^ (uint8_t)at[i]) * 0x100000001b3u;
    return h ^ (h >> 29);
}

// The slot that holds the name, or the free one where it belongs.
static pith_name *locate(const pith_nameset *set, const char *at, uint32_t length) {
    uint32_t mask = set->n_slots - 1;
    for (uint32_t i = (uint32_t)hash(at, length) & mask;; i = (i + 1) & mask) {
        pith_name *slot = &set->slots[i];
        if (!slot->at || (slot->length == length && memcmp(slot->at, at, length) == 0)) return slot;
    }
}

uint32_t pith_nameset_add(pith_nameset *set, const char *at, uint32_t length, uint32_t id) {
    pith_name *slot = locate(set, at, length);
    if (slot->at) return slot->id;
    *slot = (pith_name){at, length, id};
    return PITH_NAME_NONE;
}

uint32_t pith_nameset_find(const pith_nameset *set, const char *at, uint32_t length) {
    const pith_name *slot = set->slots ? locate(set, at, length) : NULL;
    return slot && slot->at ? slot->id : PITH_NAME_NONE;
}
