// CUDA's runtime, on the host, as late as it may be: what is asked of a stream is kept and done when somebody waits for
// it. So a host that writes again what a copy has not read, or reads what nobody waited for, is seen to do so. Streams
// are all of the kind that waits for no other (the default stream too); a graph is a list of such work. There are two
// devices, with one memory, and each thread has its own current one: a kernel cannot be launched into another's stream.
#include <deque>
#include <map>
#include <memory>
#include <new>
#include <set>
#include <unordered_map>
#include <vector>

#include "emulate/block.h"

using work = std::function<void()>;
using work_list = std::deque<work>;

struct CUstream_st {
    int device = -1; // any
    work_list waiting;
    uint64_t n_done = 0;
    std::unique_ptr<work_list> captured; // while a graph is made of what is asked for
};
struct CUevent_st {
    cudaStream_t stream;
    uint64_t behind; // so much of the stream's work
};
struct CUgraph_st {
    work_list list;
};
struct CUgraphExec_st {
    work_list list;
};

namespace {

constexpr size_t DEVICE_BYTES = 384 << 20; // too few to measure how fast they are read
constexpr size_t UNASKED_SHARED = 48 << 10;
constexpr int DEVICES = 2;

thread_local int current_device = 0;

struct card {
    cudaError_t last = cudaSuccess;
    CUstream_st default_stream;
    std::set<cudaStream_t> streams;
    std::map<uintptr_t, size_t> memory, pinned; // bytes of each allocation
    size_t n_bytes = 0;
    std::unordered_map<const void *, size_t> shared_of; // what a kernel was allowed
};
card &the_card() {
    static card c;
    return c;
}

cudaError_t fail(cudaError_t e) { return the_card().last = e; }
cudaStream_t stream_of(cudaStream_t s) { return s ? s : &the_card().default_stream; }

// While a graph is made memory is neither taken nor given back.
bool captures(const card &c) {
    for (cudaStream_t s : c.streams)
        if (s->captured) return true;
    return false;
}

void run_until(cudaStream_t s, uint64_t n) {
    while (s->n_done < n && !s->waiting.empty()) {
        const work next = std::move(s->waiting.front());
        s->waiting.pop_front();
        next();
        s->n_done++;
    }
}
void run_all(cudaStream_t s) { run_until(s, UINT64_MAX); }

bool is_pinned(const void *p) {
    const auto &pinned = the_card().pinned;
    auto at = pinned.upper_bound((uintptr_t)p);
    return at != pinned.begin() && (--at, (uintptr_t)p < at->first + at->second);
}

} // namespace

namespace emulate {

void enqueue(cudaStream_t stream, work w) {
    cudaStream_t s = stream_of(stream);
    (s->captured ? *s->captured : s->waiting).push_back(std::move(w));
}

cudaError_t set_attribute(const void *kernel, cudaFuncAttribute what, int value) {
    if (what == cudaFuncAttributeMaxDynamicSharedMemorySize) the_card().shared_of[kernel] = (size_t)value;
    return cudaSuccess;
}

cudaError_t launch(const void *kernel, const cudaLaunchConfig_t &c, work run) {
    const dim3 grid = c.gridDim;
    const auto allowed = the_card().shared_of.find(kernel);
    if (!grid.x || !grid.y || !grid.z || grid.y > 65535 || grid.z > 65535 || !c.blockDim.x || c.blockDim.x > 1024 ||
        c.blockDim.y != 1 || c.blockDim.z != 1)
        return fail(cudaErrorInvalidConfiguration);
    if (c.dynamicSmemBytes > UNASKED_SHARED &&
        (allowed == the_card().shared_of.end() || c.dynamicSmemBytes > allowed->second))
        return fail(cudaErrorInvalidValue);
    const int device = stream_of(c.stream)->device;
    if (device >= 0 && device != current_device) return fail(cudaErrorInvalidResourceHandle);
    enqueue(c.stream, [=] { run_grid(grid, c.blockDim.x, c.dynamicSmemBytes, run); });
    return cudaSuccess;
}

} // namespace emulate

extern "C" {

cudaError_t cudaGetLastError(void) {
    const cudaError_t e = the_card().last;
    the_card().last = cudaSuccess;
    return e;
}
const char *cudaGetErrorString(cudaError_t e) {
    static const char *const names[] = {"no error",     "invalid value", "out of memory",      "invalid configuration",
                                        "no driver",    "no device",     "misaligned address", "not supported",
                                        "invalid resource", "unknown error"};
    return names[e];
}

// ------------------------------------------------------------------------------------------------------- the device

cudaError_t cudaGetDeviceCount(int *n) { return *n = DEVICES, cudaSuccess; }
cudaError_t cudaGetDevice(int *device) { return *device = current_device, cudaSuccess; }
cudaError_t cudaSetDevice(int device) {
    if (device < 0 || device >= DEVICES) return fail(cudaErrorInvalidValue);
    return current_device = device, cudaSuccess;
}
cudaError_t cudaSetDeviceFlags(unsigned) { return cudaSuccess; }
cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp *p, int) {
    *p = {"emulated", 8, 0};
    return cudaSuccess;
}
cudaError_t cudaDeviceGetAttribute(int *value, cudaDeviceAttr, int) { return *value = 3, cudaSuccess; } // processors
cudaError_t cudaDeviceSynchronize(void) {
    run_all(&the_card().default_stream);
    for (cudaStream_t s : the_card().streams) run_all(s);
    return cudaSuccess;
}

// ------------------------------------------------------------------------------------------------------------ memory

cudaError_t cudaMalloc(void **p, size_t bytes) {
    card &c = the_card();
    if (captures(c)) return fail(cudaErrorNotSupported);
    if (bytes > DEVICE_BYTES - c.n_bytes) return fail(cudaErrorMemoryAllocation);
    if (!(*p = emulate::guarded_new(bytes))) return fail(cudaErrorMemoryAllocation);
    memset(*p, 0xff, bytes);
    c.memory[(uintptr_t)*p] = bytes, c.n_bytes += bytes;
    return cudaSuccess;
}
cudaError_t cudaFree(void *p) {
    card &c = the_card();
    if (!p) return cudaSuccess;
    const auto at = c.memory.find((uintptr_t)p);
    if (at == c.memory.end() || captures(c)) return fail(cudaErrorInvalidValue);
    cudaDeviceSynchronize();
    emulate::guarded_delete(p, at->second);
    c.n_bytes -= at->second;
    c.memory.erase(at);
    return cudaSuccess;
}
cudaError_t cudaMallocHost(void **p, size_t bytes) {
    if (!(*p = emulate::guarded_new(bytes))) return fail(cudaErrorMemoryAllocation);
    the_card().pinned[(uintptr_t)*p] = bytes;
    return cudaSuccess;
}
cudaError_t cudaHostAlloc(void **p, size_t bytes, unsigned) { return cudaMallocHost(p, bytes); }
cudaError_t cudaFreeHost(void *p) {
    auto &pinned = the_card().pinned;
    if (!p) return cudaSuccess;
    const auto at = pinned.find((uintptr_t)p);
    if (at == pinned.end()) return fail(cudaErrorInvalidValue);
    cudaDeviceSynchronize();
    emulate::guarded_delete(p, at->second);
    pinned.erase(at);
    return cudaSuccess;
}
cudaError_t cudaMemGetInfo(size_t *there, size_t *total) {
    *total = DEVICE_BYTES, *there = DEVICE_BYTES - the_card().n_bytes;
    return cudaSuccess;
}

cudaError_t cudaMemsetAsync(void *p, int value, size_t bytes, cudaStream_t stream) {
    emulate::enqueue(stream, [=] { memset(p, value, bytes); });
    return cudaSuccess;
}
cudaError_t cudaMemset(void *p, int value, size_t bytes) { return cudaMemsetAsync(p, value, bytes, nullptr); }

// Memory of the host that is not pinned has been read, or written, when the call returns.
cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, cudaMemcpyKind kind, cudaStream_t stream) {
    if (kind == cudaMemcpyHostToDevice && !is_pinned(from)) {
        const auto *begin = static_cast<const unsigned char *>(from);
        auto copy = std::make_shared<std::vector<unsigned char>>(begin, begin + bytes);
        emulate::enqueue(stream, [=] { memcpy(to, copy->data(), bytes); });
        return cudaSuccess;
    }
    emulate::enqueue(stream, [=] { memcpy(to, from, bytes); });
    if (kind == cudaMemcpyDeviceToHost && !is_pinned(to)) run_all(stream_of(stream));
    return cudaSuccess;
}
cudaError_t cudaMemcpy(void *to, const void *from, size_t bytes, cudaMemcpyKind kind) {
    const cudaError_t e = cudaMemcpyAsync(to, from, bytes, kind, nullptr);
    run_all(&the_card().default_stream);
    return e;
}

// ------------------------------------------------------------------------------------------- streams, events, graphs

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *s, unsigned flags) {
    if (flags != cudaStreamNonBlocking) return fail(cudaErrorNotSupported);
    the_card().streams.insert(*s = new CUstream_st);
    (*s)->device = current_device;
    return cudaSuccess;
}
cudaError_t cudaStreamSynchronize(cudaStream_t s) {
    run_all(stream_of(s));
    return cudaSuccess;
}
cudaError_t cudaStreamDestroy(cudaStream_t s) {
    run_all(s);
    the_card().streams.erase(s);
    delete s;
    return cudaSuccess;
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t *e, unsigned) {
    *e = new CUevent_st{nullptr, 0};
    return cudaSuccess;
}
cudaError_t cudaEventCreate(cudaEvent_t *e) { return cudaEventCreateWithFlags(e, 0); }
cudaError_t cudaEventDestroy(cudaEvent_t e) {
    delete e;
    return cudaSuccess;
}
cudaError_t cudaEventRecord(cudaEvent_t e, cudaStream_t stream) {
    cudaStream_t s = stream_of(stream);
    if (s->captured) return fail(cudaErrorNotSupported);
    *e = {s, s->n_done + s->waiting.size()};
    return cudaSuccess;
}
cudaError_t cudaEventSynchronize(cudaEvent_t e) {
    if (e->stream) run_until(e->stream, e->behind);
    return cudaSuccess;
}
cudaError_t cudaEventElapsedTime(float *, cudaEvent_t, cudaEvent_t) { return fail(cudaErrorNotSupported); }

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode) {
    stream_of(stream)->captured = std::make_unique<work_list>();
    return cudaSuccess;
}
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t *graph) {
    cudaStream_t s = stream_of(stream);
    if (!s->captured) return fail(cudaErrorInvalidValue);
    *graph = new CUgraph_st{std::move(*s->captured)};
    s->captured.reset();
    return cudaSuccess;
}
cudaError_t cudaGraphInstantiate(cudaGraphExec_t *run, cudaGraph_t graph, unsigned long long) {
    *run = new CUgraphExec_st{graph->list};
    return cudaSuccess;
}
cudaError_t cudaGraphUpload(cudaGraphExec_t, cudaStream_t) { return cudaSuccess; }
cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
    delete graph;
    return cudaSuccess;
}
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t run) {
    delete run;
    return cudaSuccess;
}
cudaError_t cudaGraphLaunch(cudaGraphExec_t run, cudaStream_t stream) {
    for (const work &w : run->list) emulate::enqueue(stream, w);
    return cudaSuccess;
}

} // extern "C"
