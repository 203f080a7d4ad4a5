// An allocator that counts, fails at the k-th call, and forgets nothing.
#ifndef COUNTING_H
#define COUNTING_H

#include "pith.h"

typedef struct counting {
    uint64_t calls, live_calls;
    uint64_t live_bytes, peak_bytes;
    uint64_t fail_at; // the call that fails, from 1; 0: none
} counting;

// `state` is borrowed, and zeroed by the caller.
pith_allocator counting_allocator(counting *state);

#endif
