// Tasks of a custom node. Every thread of the step runs a node's body; tasks are claimed from the node's counter, so
// that a thread without a CPU holds nothing up but what it has claimed. Who claims what changes no bit: tasks write
// disjoint outputs, and merging orders are fixed.
#ifndef PITH_CPU_CLAIM_H
#define PITH_CPU_CLAIM_H

#include "cpu/cpu.h"

static inline uint32_t claim(pith_node *node) {
    return atomic_fetch_add_explicit(&node->next, 1, memory_order_relaxed);
}

// A range of what is left of `n`: half of it, divided by the threads, in multiples of `step`, at least `least`. Large
// ranges first, since each leaves a gap in the stream from memory; small ones at the end, so that no thread waits long.
static inline bool claim_range(pith_node *node, int nth, int64_t n, int64_t step, int64_t least, int64_t *from,
                               int64_t *to) {
    uint32_t done = atomic_load_explicit(&node->next, memory_order_relaxed), size;
    do {
        const int64_t left = n - done;
        if (left <= 0) return false;
        int64_t want = left / (2 * nth) / step * step;
        if (want < least) want = least;
        size = (uint32_t)(want < left ? want : left);
    } while (!atomic_compare_exchange_weak_explicit(&node->next, &done, done + size, memory_order_relaxed,
                                                    memory_order_relaxed));
    *from = done, *to = (int64_t)done + size;
    return true;
}

#endif
