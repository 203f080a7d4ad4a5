// What a thread of a kernel can do with the others: wait for its block, exchange values with its warp.
#ifndef PITH_EMULATE_WARP_H
#define PITH_EMULATE_WARP_H

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>

extern uint3 threadIdx, blockIdx;
extern dim3 blockDim, gridDim;

namespace emulate {

// A kernel that cannot go on: says why and aborts.
[[noreturn]] void fault(const char *why);

inline unsigned lane() { return threadIdx.x % 32; }
void block_barrier();
unsigned char *dynamic_shared(); // of this block

// A thread's copies that are under way: made when they are waited for, never before. `from` NULL: zeros.
void copy_later(void *to, const void *from, size_t bytes);
void commit_copies();
void wait_for_copies(size_t n_left); // groups

// Where a warp meets. Each lane leaves a value and waits; the last to come makes the results of all of them. A lane
// takes its result before it comes again, so one meeting place is enough.
struct meeting {
    const void *where; // which kind of exchange: one and the same for all lanes
    unsigned n_here;
    alignas(16) unsigned char in[32 * 64], out[32 * 16];
};
meeting &meeting_of_warp();
bool is_last_at(meeting &, unsigned mask, const void *where); // waits when it is not
void wake_warp();

template <typename Out, typename In, typename Make> Out in_warp(unsigned mask, const In &in, Make make) {
    static_assert(sizeof(In) <= 64 && sizeof(Out) <= 16, "a lane's room");
    static const char where = 0; // one per kind of exchange: Make is a type of its own at each place
    meeting &m = meeting_of_warp();
    const unsigned mine = lane();
    std::memcpy(m.in + mine * sizeof(In), &in, sizeof(In));
    if (is_last_at(m, mask, &where)) {
        make(reinterpret_cast<const In *>(m.in), reinterpret_cast<Out *>(m.out));
        wake_warp();
    }
    Out out;
    std::memcpy(&out, m.out + mine * sizeof(Out), sizeof(Out));
    return out;
}

template <typename T> struct shuffled {
    T x;
    unsigned from;
};
template <typename T> T shuffle(unsigned mask, T x, unsigned from) {
    return in_warp<T>(mask, shuffled<T>{x, from}, [](const shuffled<T> *in, T *out) {
        for (int i = 0; i < 32; i++) out[i] = in[in[i].from].x;
    });
}

} // namespace emulate

#endif
