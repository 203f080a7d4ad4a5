// Threads sum up a buffer much larger than the last cache, each its own part.
#define _GNU_SOURCE // madvise
#include "bandwidth.h"

#include <pthread.h>
#include <stddef.h>
#include <sys/mman.h>

#include "base/clock.h"

enum { MAX_THREADS = 128, PASSES = 8 };
#define BUFFER_BYTES ((size_t)1 << 30)

typedef uint64_t vec64 __attribute__((vector_size(64)));

typedef struct part {
    const vec64 *at;
    size_t n;              // vectors, a multiple of 4
    volatile uint64_t sum; // so that the reads are needed
} part;

#if defined(__x86_64__)
// One thread reads a fifth more with 64-byte loads than with the 16-byte ones of the compiler's default.
__attribute__((target_clones("avx512f", "avx2", "default")))
#endif
static void *
read_part(void *arg) {
    part *p = arg;
    vec64 sum[4] = {{0}};
    for (size_t i = 0; i < p->n; i += 4)
        for (size_t j = 0; j < 4; j++) sum[j] += p->at[i + j];
    const vec64 all = sum[0] + sum[1] + sum[2] + sum[3];
    p->sum = all[0] + all[1] + all[2] + all[3] + all[4] + all[5] + all[6] + all[7];
    return NULL;
}

// Seconds of one pass; 0 when a thread could not be started. Starting them takes a thousandth of it.
static double pass(const vec64 *at, uint32_t n_threads) {
    pthread_t threads[MAX_THREADS];
    part parts[MAX_THREADS];
    const size_t n = BUFFER_BYTES / sizeof(vec64) / n_threads / 4 * 4;
    uint32_t started = 0;
    const double start = pith_seconds();
    for (; started < n_threads; started++) {
        parts[started] = (part){.at = at + started * n, .n = n};
        if (pthread_create(&threads[started], NULL, read_part, &parts[started]) != 0) break;
    }
    for (uint32_t t = 0; t < started; t++) pthread_join(threads[t], NULL);
    return started == n_threads ? pith_seconds() - start : 0;
}

static uint8_t *buffer;

static const vec64 *buffer_make(void) {
    if (buffer) return (const vec64 *)(const void *)buffer;
    uint8_t *made = mmap(NULL, BUFFER_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (made == MAP_FAILED) return NULL;
    madvise(made, BUFFER_BYTES, MADV_HUGEPAGE); // the memory's limit, not that of address translation
    for (size_t i = 0; i < BUFFER_BYTES; i += 4096) made[i] = (uint8_t)(i >> 12);
    buffer = made;
    return (const vec64 *)(const void *)buffer;
}

double bandwidth_measure(uint32_t n_threads) {
    if (n_threads > MAX_THREADS) n_threads = MAX_THREADS;
    const vec64 *at = buffer_make();
    double best = 0;
    for (int i = 0; at && i < PASSES; i++) {
        const double seconds = pass(at, n_threads);
        if (seconds > 0 && (best == 0 || seconds < best)) best = seconds;
    }
    return best > 0 ? (double)BUFFER_BYTES / best : 0;
}

void bandwidth_release(void) {
    if (buffer) munmap(buffer, BUFFER_BYTES);
    buffer = NULL;
}
