// Life of the CUDA backend: the device, its memory, its errors.
#include "cuda/device.h"

#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "base/status.h"
#include "cuda/bandwidth.h"
#include "cuda/product.h"

enum {
    LEAST_MAJOR = 8, // bf16 in tensor cores, asynchronous copies
    MOST_GROUP = 16,
};

// ------------------------------------------------------------------------------------------------ errors, memory

bool pith_cuda_ok(pith_cuda *cuda, cudaError_t error, const char *doing) {
    if (error == cudaSuccess) return true;
    if (!cuda->failed) cuda->failed = error, cuda->failed_at = doing;
    return false;
}

static const pith_cuda *cuda_of(const pith_backend *b) { return (const pith_cuda *)(const void *)b; }

pith_cuda *pith_cuda_enter(pith_backend *backend) {
    pith_cuda *cuda = (pith_cuda *)(void *)backend;
    pith_cuda_ok(cuda, cudaSetDevice(cuda->device), "cudaSetDevice");
    return cuda;
}

static size_t free_bytes(const pith_cuda *cuda, size_t *total) {
    size_t there = 0;
    if (cudaSetDevice(cuda->device) != cudaSuccess || cudaMemGetInfo(&there, total) != cudaSuccess) there = *total = 0;
    return there;
}

static pith_status check(const pith_backend *backend, pith_error *err) {
    const pith_cuda *cuda = cuda_of(backend);
    size_t total;
    if (!cuda->failed) return PITH_OK;
    if (cuda->failed == cudaErrorMemoryAllocation)
        return pith_fail(err, PITH_E_MEMORY, "cuda:%d: no memory left, %zu bytes are free (%.120s)", cuda->device,
                         free_bytes(cuda, &total), cuda->failed_at);
    return pith_fail(err, PITH_E_DEVICE, "cuda:%d: %s (%.120s)", cuda->device, cudaGetErrorString(cuda->failed),
                     cuda->failed_at);
}

void *pith_cuda_new(pith_cuda *cuda, size_t bytes, const char *what, pith_error *err) {
    void *p = NULL;
    const cudaError_t e = cudaMalloc(&p, bytes ? bytes : 1);
    if (e == cudaSuccess) return p;
    size_t total = 0;
    cudaGetLastError(); // what was asked for too much is no error of the device
    const size_t there = free_bytes(cuda, &total);
    if (e == cudaErrorMemoryAllocation)
        pith_fail(err, PITH_E_MEMORY, "cuda:%d: %s needs %zu bytes, %zu of %zu are free", cuda->device, what, bytes,
                  there, total);
    else pith_fail(err, PITH_E_DEVICE, "cuda:%d: %s: %s", cuda->device, what, cudaGetErrorString(e));
    return NULL;
}

void *pith_cuda_pinned(pith_cuda *cuda, size_t bytes, const char *what, pith_error *err) {
    void *p = NULL;
    const cudaError_t e = cudaMallocHost(&p, bytes ? bytes : 1);
    if (e == cudaSuccess) return memset(p, 0, bytes);
    cudaGetLastError();
    pith_fail(err, PITH_E_MEMORY, "cuda:%d: %s: no %zu bytes of pinned memory: %s", cuda->device, what, bytes,
              cudaGetErrorString(e));
    return NULL;
}

static uint64_t spare_bytes(const pith_backend *backend) {
    size_t total = 0;
    const size_t there = free_bytes(cuda_of(backend), &total);
    const size_t margin = total / 20; // for plans of other shapes, compression, and what the driver takes itself
    return there > margin ? there - margin : 0;
}

static void describe(const pith_backend *backend, pith_device_info *out) {
    const pith_cuda *cuda = cuda_of(backend);
    size_t total = 0;
    const size_t there = free_bytes(cuda, &total);
    *out = (pith_device_info){
        .bytes_used = total - there, .bytes_total = total, .read_bytes_per_second = cuda->read_bytes_per_second};
    snprintf(out->name, sizeof out->name, "%s", cuda->name);
    snprintf(out->isa, sizeof out->isa, "%s", cuda->arch);
    if (cuda->n_converted)
        snprintf(out->note, sizeof out->note, "%u tensors became bf16: %llu bytes in place of the file's %llu",
                 cuda->n_converted, (unsigned long long)cuda->converted_bytes,
                 (unsigned long long)cuda->converted_from);
}

static void wait(pith_backend *backend) {
    pith_cuda *cuda = pith_cuda_enter(backend);
    PITH_CUDA_DO(cuda, cudaStreamSynchronize(cuda->stream));
}

// ---------------------------------------------------------------------------------------------- create, free

static void destroy(pith_backend *backend) {
    if (!backend) return;
    pith_cuda *cuda = pith_cuda_enter(backend);
    if (cuda->stream) cudaStreamSynchronize(cuda->stream);
    pith_cuda_free_events(cuda);
    pith_cuda_free_logits(cuda);
    pith_cuda_free_values(cuda);
    pith_cuda_free_cache(cuda);
    pith_cuda_free_mail(cuda);
    pith_cuda_free_weights(cuda);
    if (cuda->stream) cudaStreamDestroy(cuda->stream);
    pith_delete(cuda->alloc, cuda, 1, sizeof *cuda);
}

// Is there a device that the kernels run on? One line says what is missing.
static pith_status find_device(pith_cuda *cuda, pith_error *err) {
    int n = 0;
    cudaError_t e = cudaGetDeviceCount(&n);
    cudaGetLastError();
    if (e == cudaErrorInsufficientDriver || e == cudaErrorNoDevice || (e == cudaSuccess && n == 0))
        return pith_fail(err, PITH_E_UNSUPPORTED, "cuda: %s",
                         e == cudaErrorInsufficientDriver
                             ? "no NVIDIA driver, or one that is older than this build's CUDA"
                             : "no device");
    if (e != cudaSuccess) return pith_fail(err, PITH_E_UNSUPPORTED, "cuda: %s", cudaGetErrorString(e));
    if (cuda->device >= n)
        return pith_fail(err, PITH_E_UNSUPPORTED, "cuda:%d: expected a device below %d", cuda->device, n);
    struct cudaDeviceProp p;
    e = cudaGetDeviceProperties(&p, cuda->device);
    if (e != cudaSuccess) return pith_fail(err, PITH_E_DEVICE, "cuda:%d: %s", cuda->device, cudaGetErrorString(e));
    snprintf(cuda->name, sizeof cuda->name, "%.63s", p.name);
    snprintf(cuda->arch, sizeof cuda->arch, "sm_%d%d", p.major, p.minor);
    if (p.major < LEAST_MAJOR)
        return pith_fail(err, PITH_E_UNSUPPORTED, "cuda:%d: %s has compute capability %d.%d, expected %d.0 or more",
                         cuda->device, cuda->name, p.major, p.minor, LEAST_MAJOR);
    return PITH_OK;
}

// What there are kernels for.
static pith_status check_geometry(const pith_geometry *geo, pith_error *err) {
    const uint32_t d = geo->head_dim, g = geo->n_heads / geo->n_kv_heads;
    if (d >= 64 && d <= 256 && d % 32 == 0 && g <= MOST_GROUP) return PITH_OK;
    return pith_fail(
        err, PITH_E_UNSUPPORTED,
        "cuda: heads of %u elements, %u query heads to a KV head: expected a multiple of 32 from 64 to 256, "
        "and at most %d",
        d, g, MOST_GROUP);
}

// A few milliseconds, while the card is still empty. Where it is not, nothing is measured, which is no error.
static void measure_reads(pith_cuda *cuda) {
    uint8_t *memory = NULL;
    if (cudaMalloc((void **)&memory, MEASURED_BYTES) != cudaSuccess) {
        cudaGetLastError();
        return;
    }
    PITH_CUDA_DO(cuda, cudaMemsetAsync(memory, 1, MEASURED_BYTES, cuda->stream));
    PITH_CUDA_DO(cuda, pith_cuda_read_bandwidth(memory, MEASURED_BYTES, (uint32_t *)(void *)memory,
                                                &cuda->read_bytes_per_second, cuda->stream));
    cudaFree(memory);
}

static pith_status start(pith_cuda *cuda, pith_error *err) {
    pith_status status = find_device(cuda, err);
    if (status != PITH_OK) return status;
    // Draws are waited for at every step: a thread that sleeps is woken tens of microseconds late.
    cudaError_t e = cudaSetDevice(cuda->device);
    if (!e) e = cudaSetDeviceFlags(cudaDeviceScheduleSpin);
    if (!e) e = cudaStreamCreateWithFlags(&cuda->stream, cudaStreamNonBlocking);
    if (!e && pith_cuda_product_built() != cudaSuccess)
        return pith_fail(err, PITH_E_UNSUPPORTED,
                         "cuda:%d: %s is %s, for which this program was not built (make CUDA=%s)", cuda->device,
                         cuda->name, cuda->arch, cuda->arch + 3);
    if (e)
        return pith_fail(err, e == cudaErrorMemoryAllocation ? PITH_E_MEMORY : PITH_E_DEVICE, "cuda:%d: %s",
                         cuda->device, cudaGetErrorString(e));
    return PITH_OK;
}

pith_status pith_cuda_create(const pith_geometry *geo, const pith_cuda_params *params, pith_backend **out,
                             pith_error *err) {
    *out = NULL;
    pith_cuda *cuda = pith_new(params->alloc, 1, sizeof *cuda);
    if (!cuda) return pith_fail(err, PITH_E_MEMORY, "no memory for the backend");
    cuda->base.ops = &cuda->ops;
    cuda->alloc = params->alloc, cuda->geo = *geo;
    cuda->device = (int)params->device;
    cuda->type = params->kv_bf16 ? PITH_HALF_BF16 : PITH_HALF_F16;
    cuda->max_rows = params->max_rows, cuda->max_sequences = params->max_sequences;
    cuda->n_threads = params->n_threads;
    cuda->ops = (pith_ops){.name = "cuda",
                           .event_layers = geo->n_layers,
                           .free = destroy,
                           .describe = describe,
                           .spare_bytes = spare_bytes,
                           .weights_fit = pith_cuda_weights_fit,
                           .check = check,
                           .wait = wait};
    pith_cuda_table_cache(&cuda->ops);
    pith_cuda_table_plan(&cuda->ops);
    pith_cuda_table_logits(&cuda->ops);
    pith_cuda_table_events(&cuda->ops);
    pith_status status = check_geometry(geo, err);
    if (status == PITH_OK) status = start(cuda, err);
    if (status == PITH_OK) measure_reads(cuda);
    if (status == PITH_OK) status = pith_cuda_begin_mail(cuda, err);
    if (status == PITH_OK) status = pith_cuda_begin_cache(cuda, err);
    if (status == PITH_OK) status = pith_cuda_begin_values(cuda, err);
    if (status != PITH_OK) {
        destroy(&cuda->base);
        return status;
    }
    *out = &cuda->base;
    return PITH_OK;
}
