// Life of the CPU backend: threads and memory.
#define _GNU_SOURCE // sched_getaffinity
#include "cpu/backend.h"

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/machine.h"
#include "base/mem.h"
#include "cpu/cpu.h"
#include "cpu/sample.h"

// ------------------------------------------------------------------------------------------------ default threads

// CPUs of the cgroup's quota (version 2), rounded up; 0 when there is none.
static uint32_t cgroup_cpus(void) {
    FILE *f = fopen("/sys/fs/cgroup/cpu.max", "re");
    if (!f) return 0;
    char quota[32];
    unsigned long period = 0;
    int fields = fscanf(f, "%31s %lu", quota, &period);
    fclose(f);
    if (fields != 2 || period == 0 || !strcmp(quota, "max")) return 0;
    return (uint32_t)((strtoul(quota, NULL, 10) + period - 1) / period);
}

uint32_t pith_cpu_default_threads(void) {
    cpu_set_t set;
    uint32_t n = sched_getaffinity(0, sizeof set, &set) == 0 ? (uint32_t)CPU_COUNT(&set) : 1;
    uint32_t quota = cgroup_cpus();
    if (quota && quota < n) n = quota;
    return n < 1 ? 1 : n > PITH_MAX_THREADS ? PITH_MAX_THREADS : n;
}

// -------------------------------------------------------------------------------------------------- page memory

static pith_status pool_create(pith_backend *backend, const pith_geometry *geo, uint32_t n, pith_pages *out,
                               pith_error *err) {
    pith_cpu *cpu = (pith_cpu *)backend;
    // Straight from the system and not through the allocator: the budget is address space until a page is first
    // written, and nothing else should come to lie in it. Huge pages spare the many scattered reads TLB misses.
    size_t bytes = (size_t)n * pith_page_bytes(geo);
    void *base =
        mmap(NULL, bytes ? bytes : 1, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (base == MAP_FAILED) return pith_fail(err, PITH_E_MEMORY, "cannot reserve %zu bytes for the cache", bytes);
    madvise(base, bytes, MADV_HUGEPAGE);
    *out = cpu->pages = (pith_pages){.base = base, .page_bytes = pith_page_bytes(geo), .geo = *geo};
    return PITH_OK;
}

static void pool_destroy(pith_backend *backend, pith_pages *pages, uint32_t n) {
    if (!pages->base) return;
    munmap(pages->base, n ? (size_t)n * pages->page_bytes : 1);
    *pages = ((pith_cpu *)backend)->pages = (pith_pages){0};
}

static void page_copy(pith_backend *backend, const pith_pages *pages, pith_page_id dst, pith_page_id src) {
    (void)backend;
    memcpy(pith_page_at(pages, dst), pith_page_at(pages, src), pages->page_bytes);
}

// Kernels read the lanes' own lists.
static pith_status table_create(pith_backend *backend, const pith_geometry *geo, uint32_t cap_pages, pith_table **out,
                                pith_error *err) {
    (void)backend, (void)geo, (void)cap_pages, (void)err;
    *out = NULL;
    return PITH_OK;
}
static void table_destroy(pith_backend *backend, pith_table *table) { (void)backend, (void)table; }
static void table_set(pith_table *table, uint32_t lane, uint32_t at, pith_page_id id) {
    (void)table, (void)lane, (void)at, (void)id;
}

static size_t window_floats(const pith_geometry *geo, uint32_t cap) {
    return (size_t)geo->n_layers * cap * geo->n_heads * geo->head_dim;
}

static pith_status window_create(pith_backend *backend, const pith_geometry *geo, uint32_t cap, pith_window *out,
                                 pith_error *err) {
    *out = (pith_window){.q = pith_new(((pith_cpu *)backend)->alloc, window_floats(geo, cap), sizeof(float))};
    if (!out->q) return pith_fail(err, PITH_E_MEMORY, "no memory for the queries of a sequence");
    out->cap = cap;
    return PITH_OK;
}

static void window_destroy(pith_backend *backend, const pith_geometry *geo, pith_window *w) {
    pith_delete(((pith_cpu *)backend)->alloc, w->q, window_floats(geo, w->cap), sizeof(float));
    *w = (pith_window){0};
}

static void window_copy(pith_backend *backend, const pith_geometry *geo, const pith_window *dst,
                        const pith_window *src) {
    (void)backend;
    memcpy(dst->q, src->q, window_floats(geo, src->cap) * sizeof(float));
}

static uint64_t spare_bytes(const pith_backend *backend) {
    (void)backend;
    return pith_available_bytes() / 2;
}

static pith_status check(const pith_backend *backend, pith_error *err) {
    (void)backend, (void)err;
    return PITH_OK; // a CPU that fails takes the process along
}

// -------------------------------------------------------------------------------------------- logits and sampling

static pith_status logits_create(pith_backend *backend, uint32_t n, uint32_t n_vocab, float **out, pith_error *err) {
    *out = pith_new(((pith_cpu *)backend)->alloc, (size_t)n * n_vocab, sizeof(float));
    return *out ? PITH_OK : pith_fail(err, PITH_E_MEMORY, "no memory for the logits of %u sequences", n);
}
static void logits_destroy(pith_backend *backend, float *logits, uint32_t n, uint32_t n_vocab) {
    pith_delete(((pith_cpu *)backend)->alloc, logits, (size_t)n * n_vocab, sizeof(float));
}
static const float *logits_read(pith_backend *backend, const float *row, uint32_t n_vocab) {
    (void)backend, (void)n_vocab;
    return row;
}

static pith_status sample_reserve(pith_backend *backend, uint32_t n, uint32_t n_vocab, pith_error *err) {
    (void)n; // one after another
    pith_cpu *cpu = (pith_cpu *)backend;
    size_t bytes = pith_sample_scratch(n_vocab);
    if (bytes <= cpu->sample_bytes) return PITH_OK;
    void *memory = pith_new(cpu->alloc, bytes, 1);
    if (!memory) return pith_fail(err, PITH_E_MEMORY, "no memory for the sampler");
    pith_delete(cpu->alloc, cpu->sample_memory, cpu->sample_bytes, 1);
    cpu->sample_memory = memory, cpu->sample_bytes = bytes;
    return PITH_OK;
}

static void sample(pith_backend *backend, const float *const *rows, const pith_draw *draws, uint32_t n,
                   uint32_t n_vocab, int32_t *ids) {
    pith_cpu *cpu = (pith_cpu *)backend;
    for (uint32_t i = 0; i < n; i++)
        ids[i] = pith_sample(cpu->kernels, rows[i], n_vocab, &draws[i], cpu->sample_memory);
}

// ---------------------------------------------------------------------------------------------- create, free

static void describe(const pith_backend *backend, pith_device_info *out) {
    *out = (pith_device_info){.name = "cpu"};
    strncpy(out->isa, ((const pith_cpu *)backend)->kernels->name, sizeof out->isa - 1);
}

static void destroy(pith_backend *backend) {
    if (!backend) return;
    pith_cpu *cpu = (pith_cpu *)backend;
    pith_cpu_weights_free(cpu);
    pith_threads_free(&cpu->threads);
    if (cpu->values) ggml_gallocr_free(cpu->values);
    if (cpu->job_ctx) ggml_free(cpu->job_ctx);
    pith_delete(cpu->alloc, cpu->work, cpu->work_bytes, 1);
    pith_delete(cpu->alloc, cpu->scratch_memory, cpu->scratch_bytes, 1);
    pith_delete(cpu->alloc, cpu->split_memory, cpu->split_bytes, 1);
    pith_delete(cpu->alloc, cpu->event_memory, cpu->event_bytes, 1);
    pith_delete(cpu->alloc, cpu->sample_memory, cpu->sample_bytes, 1);
    pith_delete(cpu->alloc, cpu, 1, sizeof *cpu);
}

// Hands out `floats` from *at, keeping cache lines apart.
static float *carve(uint8_t **at, size_t floats) {
    float *p = (float *)(void *)*at;
    *at += pith_page_align(floats * sizeof(float));
    return p;
}

// Attention scratch of every thread. Called twice: with base NULL it only measures.
static size_t lay_scratch(pith_cpu *cpu, uint8_t *base) {
    const uint32_t d = cpu->geo.head_dim, g = cpu->geo.n_heads / cpu->geo.n_kv_heads;
    const size_t n = (size_t)pith_cpu_prefill_block(g) * g;
    uint8_t *at = base;
    for (uint32_t t = 0; t < cpu->threads.max; t++) {
        pith_cpu_scratch *s = &cpu->scratch[t];
        s->q = carve(&at, n * d);
        s->n_seen = (uint32_t *)(void *)carve(&at, n);
        s->sum = (pith_partial){carve(&at, n * d), carve(&at, n), carve(&at, n)};
        s->part = (pith_partial){carve(&at, n * d), carve(&at, n), carve(&at, n)};
        s->work = carve(&at, pith_attend_scratch((uint32_t)n));
    }
    return (size_t)(at - base);
}

// Instructions that the ggml in this binary uses and this CPU lacks: names the first, NULL when it can run.
static const char *missing_instruction(void) {
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (ggml_cpu_has_avx512() && !__builtin_cpu_supports("avx512f")) return "AVX-512";
    if (ggml_cpu_has_avx512_vnni() && !__builtin_cpu_supports("avx512vnni")) return "AVX-512 VNNI";
    if (ggml_cpu_has_avx512_bf16() && !__builtin_cpu_supports("avx512bf16")) return "AVX-512 BF16";
    if (ggml_cpu_has_avx2() && !__builtin_cpu_supports("avx2")) return "AVX2";
    if (ggml_cpu_has_fma() && !__builtin_cpu_supports("fma")) return "FMA";
#endif
    return NULL;
}

pith_status pith_cpu_create(const pith_geometry *geo, const pith_cpu_params *params, pith_backend **out,
                            pith_error *err) {
    *out = NULL;
    const char *missing = missing_instruction();
    if (missing)
        return pith_fail(err, PITH_E_UNSUPPORTED,
                         "this build uses %s, which this CPU does not have: build it on this "
                         "machine, or with PITH_NATIVE=OFF",
                         missing);
    ggml_cpu_init();

    pith_cpu *cpu = pith_new(params->alloc, 1, sizeof *cpu);
    if (!cpu) return pith_fail(err, PITH_E_MEMORY, "no memory for the backend");
    cpu->base.ops = &cpu->ops;
    cpu->alloc = params->alloc, cpu->geo = *geo, cpu->max_rows = params->max_rows;
    cpu->ops = (pith_ops){.name = "cpu",
                          .free = destroy,
                          .describe = describe,
                          .spare_bytes = spare_bytes,
                          .check = check,
                          .pool_create = pool_create,
                          .pool_destroy = pool_destroy,
                          .page_copy = page_copy,
                          .table_create = table_create,
                          .table_destroy = table_destroy,
                          .table_set = table_set,
                          .window_create = window_create,
                          .window_destroy = window_destroy,
                          .window_copy = window_copy,
                          .logits_create = logits_create,
                          .logits_destroy = logits_destroy,
                          .logits_read = logits_read,
                          .sample_reserve = sample_reserve,
                          .sample = sample};
    pith_cpu_table_plan(&cpu->ops);
    pith_cpu_table_events(&cpu->ops);
    cpu->kernels = pith_cpu_kernels_choose(params->disabled);
    for (int type = 0; type < GGML_TYPE_COUNT && type < MAX_TYPES; type++) {
        cpu->products[type] = pith_product_for(type, params->disabled);
        cpu->arranged[type] = pith_arranged_for(type, params->disabled);
    }

    uint32_t n_threads = params->n_threads ? params->n_threads : pith_cpu_default_threads();
    pith_status status =
        pith_threads_init(&cpu->threads, n_threads < PITH_MAX_THREADS ? n_threads : PITH_MAX_THREADS, err);
    if (status != PITH_OK) {
        destroy(&cpu->base);
        return status;
    }

    const uint32_t g = geo->n_heads / geo->n_kv_heads;
    cpu->max_parts = params->max_rows / PITH_PART_ROWS + 1;
    cpu->split_bytes =
        (size_t)pith_cpu_split_tasks(cpu) * cpu->max_parts * pith_cpu_partial_floats(g, geo->head_dim) * sizeof(float);
    cpu->split_memory = pith_new(params->alloc, cpu->split_bytes, 1);
    cpu->scratch_bytes = lay_scratch(cpu, NULL);
    cpu->scratch_memory = pith_new(params->alloc, cpu->scratch_bytes, 1);
    cpu->values = ggml_gallocr_new(ggml_backend_cpu_buffer_type());
    if (!cpu->split_memory || !cpu->scratch_memory || !cpu->values || !pith_cpu_job_create(cpu) ||
        !pith_cpu_weights_init(cpu)) {
        destroy(&cpu->base);
        return pith_fail(err, PITH_E_MEMORY, "no memory for the backend's scratch");
    }
    lay_scratch(cpu, cpu->scratch_memory);
    *out = &cpu->base;
    return PITH_OK;
}
