// Beginnings of prompts whose rows are kept for whoever begins in the same way: a tree of chunks.
//
// A node is one prefill chunk: its tokens, and for every lane the whole pages that hold their rows. Its parent is the
// chunk in front of it. A row depends on the tokens up to it and on the borders of the chunk it was read in, both of
// which the path from the root says: so rows that are taken over are, bit for bit, those that reading the prompt would
// have made.
//
// The tree is one owner of its pages among others, and pages with several owners are never written. It takes no memory
// that somebody was promised: what it holds, admission may have back at any time, least recently used first, leaves
// first.
#ifndef PITH_CACHE_PREFIX_H
#define PITH_CACHE_PREFIX_H

#include "cache/kv.h"

typedef struct pith_prefix_node pith_prefix_node;

typedef struct pith_prefix {
    pith_page_pool *pool;
    const pith_allocator *alloc;
    uint32_t n_lanes;
    uint32_t chunk;                    // tokens of a node, a multiple of PITH_PAGE_ROWS
    pith_prefix_node *newest, *oldest; // all nodes in order of their last use
    uint64_t n_pages;                  // owned
} pith_prefix;

void pith_prefix_init(pith_prefix *, pith_page_pool *, const pith_allocator *, uint32_t n_lanes, uint32_t chunk);
void pith_prefix_free(pith_prefix *); // nobody holds a node any more

// The chunk `tokens` (chunk) behind `parent` (NULL: at the beginning), now the most recently used; NULL when it is not
// there.
pith_prefix_node *pith_prefix_find(pith_prefix *, pith_prefix_node *parent, const int32_t *tokens);

// Keeps the rows [first, first + chunk) of every lane of `kv`, which are those of `tokens` behind `parent`. They are
// whole pages that `kv` never writes again. NULL when there is no memory for the node.
pith_prefix_node *pith_prefix_add(pith_prefix *, pith_prefix_node *parent, const int32_t *tokens, const pith_kv *kv,
                                  uint32_t first);

// Appends the node's rows to all lanes of `kv`, which hold a whole number of pages and have the reservation: pages that
// were promised for these rows are no longer needed.
void pith_prefix_adopt(const pith_prefix *, const pith_prefix_node *, pith_kv *kv);

// A node that is held is not evicted. NULL is allowed.
void pith_prefix_hold(pith_prefix_node *);
void pith_prefix_release(pith_prefix_node *);

// Gives up the least recently used node that nobody holds and nothing follows; false when there is none. Pages that
// sequences still own stay theirs.
bool pith_prefix_evict(pith_prefix *);

#endif
