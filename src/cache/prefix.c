#include "cache/prefix.h"

#include <string.h>

#include "base/mem.h"
#include "base/rng.h"

struct pith_prefix_node {
    pith_prefix_node *parent;
    pith_prefix_node *newer, *older;
    uint64_t key;        // of the tokens: differs where they very likely differ
    uint32_t n_children; // nodes whose parent this is
    uint32_t n_held;
    int32_t *tokens;     // (chunk)
    pith_page_id *pages; // (n_lanes, chunk / PITH_PAGE_ROWS)
};

void pith_prefix_init(pith_prefix *p, pith_page_pool *pool, const pith_allocator *alloc, uint32_t n_lanes,
                      uint32_t chunk) {
    *p = (pith_prefix){.pool = pool, .alloc = alloc, .n_lanes = n_lanes, .chunk = chunk};
}

static size_t pages_of(const pith_prefix *p) { return (size_t)p->n_lanes * (p->chunk / PITH_PAGE_ROWS); }

static uint64_t key_of(const int32_t *tokens, uint32_t n) {
    uint64_t key = n;
    for (uint32_t i = 0; i < n; i++) key = pith_mix64(key ^ (uint32_t)tokens[i]);
    return key;
}

// ------------------------------------------------------------------------------------------------- order of use

static void unlink_node(pith_prefix *p, pith_prefix_node *n) {
    *(n->newer ? &n->newer->older : &p->newest) = n->older;
    *(n->older ? &n->older->newer : &p->oldest) = n->newer;
}

static void link_newest(pith_prefix *p, pith_prefix_node *n) {
    n->newer = NULL, n->older = p->newest;
    *(p->newest ? &p->newest->newer : &p->oldest) = n;
    p->newest = n;
}

// ------------------------------------------------------------------------------------------------- nodes

static void delete_node(pith_prefix *p, pith_prefix_node *n) {
    pith_delete(p->alloc, n->tokens, p->chunk, sizeof *n->tokens);
    pith_delete(p->alloc, n->pages, pages_of(p), sizeof *n->pages);
    pith_delete(p->alloc, n, 1, sizeof *n);
}

static void drop_node(pith_prefix *p, pith_prefix_node *n) {
    for (size_t i = 0; i < pages_of(p); i++) pith_pool_drop(p->pool, n->pages[i]);
    p->n_pages -= pages_of(p);
    if (n->parent) n->parent->n_children--;
    unlink_node(p, n);
    delete_node(p, n);
}

void pith_prefix_free(pith_prefix *p) {
    for (pith_prefix_node *n = p->newest; n; n = n->older) n->parent = NULL; // they go in any order
    while (p->newest) drop_node(p, p->newest);
}

pith_prefix_node *pith_prefix_find(pith_prefix *p, pith_prefix_node *parent, const int32_t *tokens) {
    const uint64_t key = key_of(tokens, p->chunk);
    for (pith_prefix_node *n = p->newest; n; n = n->older) {
        if (n->parent != parent || n->key != key || memcmp(n->tokens, tokens, p->chunk * sizeof *tokens) != 0) continue;
        unlink_node(p, n);
        link_newest(p, n);
        return n;
    }
    return NULL;
}

pith_prefix_node *pith_prefix_add(pith_prefix *p, pith_prefix_node *parent, const int32_t *tokens, const pith_kv *kv,
                                  uint32_t first) {
    pith_prefix_node *n = pith_new(p->alloc, 1, sizeof *n);
    if (!n) return NULL;
    n->tokens = pith_new(p->alloc, p->chunk, sizeof *n->tokens);
    n->pages = pith_new(p->alloc, pages_of(p), sizeof *n->pages);
    if (!n->tokens || !n->pages) return delete_node(p, n), NULL;
    memcpy(n->tokens, tokens, p->chunk * sizeof *tokens);
    n->parent = parent, n->key = key_of(tokens, p->chunk);
    if (parent) parent->n_children++;
    const uint32_t n_each = p->chunk / PITH_PAGE_ROWS;
    for (uint32_t lane = 0; lane < p->n_lanes; lane++) {
        for (uint32_t i = 0; i < n_each; i++) {
            const pith_page_id id = kv->lanes[lane].pages[first / PITH_PAGE_ROWS + i];
            pith_pool_own(p->pool, n->pages[lane * n_each + i] = id);
        }
    }
    p->n_pages += pages_of(p);
    link_newest(p, n);
    return n;
}

void pith_prefix_adopt(const pith_prefix *p, const pith_prefix_node *n, pith_kv *kv) {
    pith_kv_adopt(kv, n->pages, p->chunk / PITH_PAGE_ROWS);
}

void pith_prefix_hold(pith_prefix_node *n) {
    if (n) n->n_held++;
}

void pith_prefix_release(pith_prefix_node *n) {
    if (n) n->n_held--;
}

bool pith_prefix_evict(pith_prefix *p) {
    pith_prefix_node *n = p->oldest;
    while (n && (n->n_held > 0 || n->n_children > 0)) n = n->newer;
    if (n) drop_node(p, n);
    return n != NULL;
}
