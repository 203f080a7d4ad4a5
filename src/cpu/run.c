// Running a ggml graph on the threads that a step may use, and any job of ours through a graph of one node.
#include "base/clock.h"
#include "cpu/cpu.h"

void pith_cpu_compute(pith_cpu *cpu, struct ggml_cgraph *graph, bool adaptive) {
    uint32_t n;
    struct ggml_threadpool *pool = pith_threads_begin(&cpu->threads, adaptive, &n);
    struct ggml_cplan plan = {
        .work_size = cpu->work_bytes, .work_data = cpu->work, .n_threads = (int)n, .threadpool = pool};
    double start = pith_seconds();
    ggml_graph_compute(graph, &plan); // cannot fail: no abort callback, memory is there
    if (adaptive) pith_threads_end(&cpu->threads, pith_seconds() - start);
}

static void job_node(struct ggml_tensor *dst, int ith, int nth, void *userdata) {
    (void)dst, (void)nth;
    pith_cpu *cpu = userdata;
    for (uint32_t task; (task = atomic_fetch_add_explicit(&cpu->job_next, 1, memory_order_relaxed)) < cpu->job_tasks;)
        cpu->job_fn(cpu, ith, task, cpu->job_arg);
}

bool pith_cpu_job_create(pith_cpu *cpu) {
    const size_t bytes = 4 * ggml_tensor_overhead() + ggml_graph_overhead_custom(4, false); // a node, its graph, spare
    cpu->job_ctx = ggml_init((struct ggml_init_params){bytes, NULL, false});
    if (!cpu->job_ctx) return false;
    cpu->job_graph = ggml_new_graph_custom(cpu->job_ctx, 4, false);
    ggml_build_forward_expand(cpu->job_graph, ggml_custom_4d(cpu->job_ctx, GGML_TYPE_F32, 1, 1, 1, 1, NULL, 0, job_node,
                                                             GGML_N_TASKS_MAX, cpu));
    return true;
}

void pith_cpu_run(pith_cpu *cpu, uint32_t n, void (*fn)(pith_cpu *, int, uint32_t, void *), void *arg) {
    cpu->job_fn = fn, cpu->job_arg = arg, cpu->job_tasks = n;
    atomic_store_explicit(&cpu->job_next, 0, memory_order_relaxed);
    uint32_t threads;
    struct ggml_threadpool *pool = pith_threads_current(&cpu->threads, &threads);
    struct ggml_cplan plan = {
        .work_size = cpu->work_bytes, .work_data = cpu->work, .n_threads = (int)threads, .threadpool = pool};
    ggml_graph_compute(cpu->job_graph, &plan);
}
