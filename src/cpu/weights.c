// What decode products read: each weight as it is mapped from the file, or a copy of it, arranged for its kernel, in huge
// pages. The copy reads faster and multiplies with fewer instructions, and costs as much memory again.
#define _GNU_SOURCE // madvise
#include <sys/mman.h>

#include "base/machine.h"
#include "base/mem.h"
#include "cpu/cpu.h"

enum {
    SHARE = 4,          // copies take at most one part in so many of the memory that was available: the rest stays mapped
    TASK_ROWS = 1024,   // of arranging; a multiple of PITH_PRODUCT_ROW_STEP
    LAYER_MATRICES = 7, // q, k, v, output, gate, up, down
};

bool pith_cpu_weights_init(pith_cpu *cpu) {
    pith_cpu_weights *all = &cpu->weights;
    all->cap = cpu->geo.n_layers * LAYER_MATRICES + 1; // and the head
    all->copies = pith_new(cpu->alloc, all->cap, sizeof *all->copies);
    if (!all->copies) return false;
    // Straight from the system, as the pages of the cache are: address space until it is written.
    all->bytes = (size_t)(pith_available_bytes() / SHARE);
    void *base = mmap(NULL, all->bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (base == MAP_FAILED) all->bytes = 0; // nothing is copied
    else all->base = base, madvise(base, all->bytes, MADV_HUGEPAGE);
    return true;
}

void pith_cpu_weights_free(pith_cpu *cpu) {
    if (cpu->weights.base) munmap(cpu->weights.base, cpu->weights.bytes);
    pith_delete(cpu->alloc, cpu->weights.copies, cpu->weights.cap, sizeof *cpu->weights.copies);
}

typedef struct arrange_job {
    const pith_weight *from;
    const pith_arranged *kernel;
    uint8_t *to;
} arrange_job;

static void arrange_some(pith_cpu *cpu, int thread, uint32_t task, void *arg) {
    (void)cpu, (void)thread;
    const arrange_job *job = arg;
    const pith_weight *w = job->from;
    const int64_t m = w->ne[1], r0 = (int64_t)task * TASK_ROWS, r1 = r0 + TASK_ROWS < m ? r0 + TASK_ROWS : m;
    job->kernel->arrange(w->data, w->bytes / (size_t)m, w->ne[0], r0, r1, job->to);
}

// The copy of a weight, made at the first call; NULL when there is no room for it.
static const uint8_t *copy_of(pith_cpu *cpu, const pith_weight *w, const pith_arranged *kernel) {
    pith_cpu_weights *all = &cpu->weights;
    for (uint32_t i = 0; i < all->n; i++)
        if (all->copies[i].of == w) return all->copies[i].data;
    const int64_t steps = (w->ne[1] + PITH_PRODUCT_ROW_STEP - 1) / PITH_PRODUCT_ROW_STEP;
    const size_t bytes = (size_t)steps * PITH_PRODUCT_ROW_STEP * kernel->row_bytes(w->ne[0]);
    if (all->n == all->cap || all->bytes - all->used < bytes) return NULL;
    arrange_job job = {w, kernel, all->base + all->used};
    pith_cpu_run(cpu, (uint32_t)((w->ne[1] + TASK_ROWS - 1) / TASK_ROWS), arrange_some, &job);
    all->used += pith_page_align(bytes);
    all->copies[all->n++] = (pith_cpu_copy){w, job.to};
    return job.to;
}

pith_matrix pith_cpu_matrix(pith_cpu *cpu, const pith_weight *w) {
    if ((unsigned)w->type >= MAX_TYPES) return (pith_matrix){0};
    const pith_arranged *arranged = cpu->arranged[w->type];
    const uint8_t *copy = arranged ? copy_of(cpu, w, arranged) : NULL;
    if (copy) return (pith_matrix){&arranged->product, copy, arranged->row_bytes(w->ne[0]), w->ne[1], w->ne[0]};
    return (pith_matrix){cpu->products[w->type], w->data, w->bytes / (size_t)w->ne[1], w->ne[1], w->ne[0]};
}
