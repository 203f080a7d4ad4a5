// CUDA's kernels on the host: the threads of a block as fibers of one thread.
//
// What is emulated: every thread of every block runs the kernel's own source, and changes to another only where the
// source waits for others: at a barrier or in an exchange within its warp. Warps run as far as they can before the
// next one does, in an order that PITH_EMULATE_ORDER gives, `forward`, `backward` (which together put any two warps and
// any two lanes both ways round) or `scrambled`; so a barrier that is missing is one that is seen. Blocks run one after
// the other in the same order. The runtime works as late as it may (runtime.cpp). Memory of the device ends at a page
// that may not be touched, and loads off their alignment, indices outside an array and meetings of a warp that not all
// of its lanes attend are faults. An asynchronous copy loses what was at its place at once and is made when its thread
// waits for it.
//
// What is not: blocks at the same time, and so clusters and launches that overlap; races between two instructions of a
// warp with no wait between them; the order of memory between blocks (fences do nothing); caches; registers, the limit
// of shared memory but for what a launch asks for, time. Tensor cores add in double and round once.
#include <setjmp.h>
#include <sys/mman.h>
#include <ucontext.h>

#include <algorithm>
#include <deque>
#include <numeric>
#include <vector>

#include "emulate/block.h"

uint3 threadIdx, blockIdx;
dim3 blockDim, gridDim;

namespace emulate {
namespace {

constexpr size_t STACK = 256 << 10, PAGE = 4096;
constexpr unsigned MOST_THREADS = 1024, WARP = 32, MOST_WARPS = MOST_THREADS / WARP;

enum class state { ready, in_warp, at_barrier, ended };

struct fiber {
    ucontext_t first; // where it begins
    jmp_buf at;       // where it goes on, once it has begun
    bool begun;
    state now;
};

struct copy {
    void *to;
    const void *from;
    size_t bytes;
};
using copies = std::vector<copy>;
struct under_way {
    copies now;                // not yet a group
    std::deque<copies> groups; // oldest first
};

fiber fibers[MOST_THREADS];
under_way under_ways[MOST_THREADS];
meeting meetings[MOST_WARPS];
jmp_buf scheduler;
unsigned n_threads, n_living, n_at_barrier, running;
const std::function<void()> *kernel;
unsigned char *shared;

unsigned warp_threads(unsigned warp) { return std::min(WARP, n_threads - warp * WARP); }

// To the scheduler, until this thread is chosen again.
void leave() {
    if (_setjmp(fibers[running].at) == 0) _longjmp(scheduler, 1);
}

void pass_barrier() {
    for (unsigned t = 0; t < n_threads; t++)
        if (fibers[t].now == state::at_barrier) fibers[t].now = state::ready;
    n_at_barrier = 0;
}

// A fiber runs one thread after another, of this block and of later ones.
void live() {
    for (;;) {
        (*kernel)();
        fibers[running].now = state::ended;
        if (--n_living > 0 && n_at_barrier == n_living) pass_barrier(); // threads that have ended are not waited for
        leave();
    }
}

void begin(fiber &f) {
    void *memory = mmap(nullptr, STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED || mprotect(memory, PAGE, PROT_NONE) != 0) fault("no memory for a stack");
    getcontext(&f.first);
    f.first.uc_stack.ss_sp = memory, f.first.uc_stack.ss_size = STACK;
    makecontext(&f.first, live, 0);
}

void resume(unsigned t) {
    running = t;
    threadIdx = {t, 0, 0};
    if (_setjmp(scheduler) != 0) return;
    fiber &f = fibers[t];
    if (f.begun) _longjmp(f.at, 1);
    f.begun = true;
    begin(f);
    setcontext(&f.first);
}

// The numbers below n, in the order asked for.
std::vector<unsigned> in_order(unsigned n) {
    static const char *const how = getenv("PITH_EMULATE_ORDER") ? getenv("PITH_EMULATE_ORDER") : "forward";
    std::vector<unsigned> order(n);
    std::iota(order.begin(), order.end(), 0u);
    if (strcmp(how, "backward") == 0) {
        std::reverse(order.begin(), order.end());
    } else if (strcmp(how, "scrambled") == 0) {
        static uint64_t random = 1;
        for (unsigned i = n; i > 1; i--)
            std::swap(order[i - 1], order[((random = random * 6364136223846793005u + 1) >> 33) % i]);
    } else if (strcmp(how, "forward") != 0) {
        fault("PITH_EMULATE_ORDER: expected forward, backward or scrambled");
    }
    return order;
}

// Until nothing of the warp can go on. False when nothing could.
bool run_warp(unsigned warp, const std::vector<unsigned> &lanes) {
    bool any = false;
    for (bool more = true; more; any |= more) {
        more = false;
        for (unsigned l : lanes) {
            const unsigned t = warp * WARP + l;
            if (t >= n_threads || fibers[t].now != state::ready) continue;
            more = true;
            resume(t);
        }
    }
    return any;
}

void run_block() {
    for (unsigned t = 0; t < n_threads; t++) fibers[t].now = state::ready, under_ways[t] = {};
    for (meeting &m : meetings) m.n_here = 0;
    n_living = n_threads, n_at_barrier = 0;
    const std::vector<unsigned> warps = in_order((n_threads + WARP - 1) / WARP), lanes = in_order(WARP);
    while (n_living > 0) {
        bool any = false;
        for (unsigned warp : warps) any |= run_warp(warp, lanes);
        if (!any) fault("threads wait for others that will not come");
    }
}

} // namespace

void fault(const char *why) {
    std::fprintf(stderr, "emulated kernel, block (%u, %u, %u), thread %u: %s\n", blockIdx.x, blockIdx.y, blockIdx.z,
                 threadIdx.x, why);
    std::abort();
}

void block_barrier() {
    if (++n_at_barrier == n_living) {
        pass_barrier();
        return;
    }
    fibers[running].now = state::at_barrier;
    leave();
}

unsigned char *dynamic_shared() { return shared; }

void copy_later(void *to, const void *from, size_t bytes) {
    std::memset(to, 0xff, bytes);
    under_ways[running].now.push_back({to, from, bytes});
}

void commit_copies() {
    under_way &mine = under_ways[running];
    mine.groups.push_back(std::move(mine.now));
    mine.now.clear();
}

void wait_for_copies(size_t n_left) {
    for (std::deque<copies> &groups = under_ways[running].groups; groups.size() > n_left; groups.pop_front())
        for (const copy &c : groups.front())
            if (c.from) std::memcpy(c.to, c.from, c.bytes);
            else std::memset(c.to, 0, c.bytes);
}

meeting &meeting_of_warp() { return meetings[running / WARP]; }

bool is_last_at(meeting &m, unsigned mask, const void *where) {
    if (mask != 0xffffffffu) fault("an exchange of a part of a warp");
    if (m.n_here++ == 0) m.where = where;
    if (m.where != where) fault("lanes of a warp in different exchanges");
    const unsigned warp = running / WARP;
    if (m.n_here == warp_threads(warp)) return true;
    fibers[running].now = state::in_warp;
    leave();
    return false;
}

void wake_warp() {
    const unsigned first = running / WARP * WARP;
    meetings[running / WARP].n_here = 0;
    for (unsigned t = first; t < first + warp_threads(running / WARP); t++)
        if (fibers[t].now == state::in_warp) fibers[t].now = state::ready;
}

void run_grid(dim3 grid, unsigned threads, size_t shared_bytes, const std::function<void()> &run) {
    kernel = &run, n_threads = threads;
    gridDim = grid, blockDim = dim3(threads);
    shared = static_cast<unsigned char *>(guarded_new(shared_bytes));
    for (unsigned b : in_order(grid.x * grid.y * grid.z)) {
        blockIdx = {b % grid.x, b / grid.x % grid.y, b / grid.x / grid.y};
        std::memset(shared, 0xff, shared_bytes);
        run_block();
    }
    guarded_delete(shared, shared_bytes);
}

// ------------------------------------------------------------------------------------------------------------ memory

namespace {
size_t whole_pages(size_t bytes) { return (bytes + PAGE - 1) / PAGE * PAGE; }
size_t on_16(size_t bytes) { return (bytes + 15) / 16 * 16; }
} // namespace

void *guarded_new(size_t bytes) {
    const size_t own = whole_pages(on_16(bytes));
    void *base = mmap(nullptr, own + PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (base == MAP_FAILED) return nullptr;
    unsigned char *end = static_cast<unsigned char *>(base) + own;
    if (mprotect(end, PAGE, PROT_NONE) != 0) fault("no guard behind memory");
    return end - on_16(bytes);
}

void guarded_delete(void *p, size_t bytes) {
    unsigned char *end = static_cast<unsigned char *>(p) + on_16(bytes);
    munmap(end - whole_pages(on_16(bytes)), whole_pages(on_16(bytes)) + PAGE);
}

} // namespace emulate
