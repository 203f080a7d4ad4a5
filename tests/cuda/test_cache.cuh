// What the tests of the cache's kernels share: checks, random numbers, a cache with scattered pages, times.
#ifndef PITH_TEST_CACHE_CUH
#define PITH_TEST_CACHE_CUH

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <vector>

#include "base/half.h"
#include "cuda/cache.h"

static void check_cuda(cudaError_t err, const char *call, const char *file, int line) {
    if (err == cudaSuccess) return;
    std::printf("%s:%d: %s: %s\n", file, line, call, cudaGetErrorString(err));
    std::exit(1);
}
#define OK(call) check_cuda((call), #call, __FILE__, __LINE__)

static constexpr double READ_BANDWIDTH = 4.2e12; // bytes per second, measured on an H200
static int n_failed = 0;
static int n_again = 3; // times that a case is run once more and must give the same

[[maybe_unused]] static void report(const char *name, bool ok, double error, double bound) {
    std::printf("%-64s %s  error %.3g, bound %.3g\n", name, ok ? "ok  " : "FAIL", error, bound);
    n_failed += !ok;
}
[[maybe_unused]] static void report(const char *name, double error, double bound) {
    report(name, error <= bound, error, bound);
} // NaN fails
[[maybe_unused]] static void report_bits(const char *name, size_t n_wrong) {
    report(name, n_wrong == 0, (double)n_wrong, 0);
}
[[maybe_unused]] static void report_time(const char *name, double seconds, double bytes) {
    std::printf("%-64s       %.1f us  %.0f GB/s  %.0f %%\n", name, seconds * 1e6, bytes / seconds * 1e-9,
                bytes / seconds / READ_BANDWIDTH * 100);
}
// What a program is asked for: `check`, `time`, or without an argument both.
struct asked_for {
    bool checks, times;
    bool quick; // PITH_TEST_QUICK: few cases and small ones, for a sanitizer or an emulator
};

// Skips, visibly, where there is no device.
static asked_for begin(int n_args, char **args) {
    int n = 0;
    if (cudaGetDeviceCount(&n) != cudaSuccess || n == 0) {
        std::printf("skipped: no CUDA device\n");
        std::exit(77);
    }
    const char *what = n_args > 1 ? args[1] : "";
    const bool quick = std::getenv("PITH_TEST_QUICK") != nullptr;
    if (quick) n_again = 1;
    return {std::strcmp(what, "time") != 0, std::strcmp(what, "check") != 0, quick};
}

static int finish() {
    OK(cudaDeviceSynchronize());
    std::printf(n_failed ? "%d FAILED\n" : "all passed\n", n_failed);
    return n_failed != 0;
}

struct random_source {
    uint64_t state;
    uint32_t next() { // splitmix64
        uint64_t z = (state += 0x9e3779b97f4a7c15u);
        z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
        z = (z ^ z >> 27) * 0x94d049bb133111ebu;
        return (uint32_t)(z >> 32);
    }
    uint32_t below(uint32_t n) { return (uint32_t)((uint64_t)next() * n >> 32); }
    double uniform() { return next() * 0x1p-32; }
    float normal() { // by 12 uniforms
        double s = -6;
        for (int i = 0; i < 12; i++) s += uniform();
        return (float)s;
    }
};

template <typename T> struct device {
    T *p = nullptr;
    size_t n = 0;
    explicit device(size_t n_) : n(n_) { OK(cudaMalloc(&p, std::max<size_t>(n * sizeof(T), 16))), poison(); }
    explicit device(const std::vector<T> &v) : device(v.size()) { set(v); }
    device(const device &) = delete;
    ~device() { cudaFree(p); }
    void poison() { OK(cudaMemset(p, 0xff, n * sizeof(T))); } // NaN in every floating type
    void set(const std::vector<T> &v) { OK(cudaMemcpy(p, v.data(), v.size() * sizeof(T), cudaMemcpyHostToDevice)); }
    std::vector<T> get() const {
        std::vector<T> v(n);
        OK(cudaMemcpy(v.data(), p, n * sizeof(T), cudaMemcpyDeviceToHost));
        return v;
    }
};

static float from_bits(uint16_t b, bool bf16) { return bf16 ? pith_bf16_to_f32(b) : pith_f16_to_f32(b); }
static uint16_t to_bits(float x, bool bf16) { return bf16 ? pith_f32_to_bf16(x) : pith_f32_to_f16(x); }

template <typename T> size_t differing(const std::vector<T> &a, const std::vector<T> &b) {
    size_t n = a.size() != b.size();
    for (size_t i = 0; i < a.size() && i < b.size(); i++) n += std::memcmp(&a[i], &b[i], sizeof(T)) != 0;
    return n;
}

// Lanes over pages in random order; what no row covers is 0xff, NaN in both types.
struct test_cache {
    pith_geometry geo;
    bool bf16;
    uint32_t n_seqs;
    std::vector<int32_t> pages, first, n_rows;
    std::vector<uint8_t> pool; // the host's copy
    size_t page_bytes;
    device<uint8_t> d_pool;
    device<int32_t> d_pages, d_first, d_n_rows;

    static size_t count_pages(const std::vector<int32_t> &rows, uint32_t slack) {
        size_t n = 0;
        for (int32_t r : rows) n += pith_pages_for((uint32_t)r) + slack;
        return n;
    }
    // rows (n_seqs, n_layers, G)
    test_cache(pith_geometry g, bool bf16_, const std::vector<int32_t> &rows, random_source &rng)
        : geo(g), bf16(bf16_), n_seqs((uint32_t)(rows.size() / pith_n_lanes(&g))), n_rows(rows),
          page_bytes(pith_page_bytes(&g)), d_pool(count_pages(rows, 1) * page_bytes), d_pages(count_pages(rows, 0)),
          d_first(rows.size()), d_n_rows(rows.size()) {
        std::vector<int32_t> ids(count_pages(rows, 1));
        for (size_t i = 0; i < ids.size(); i++) ids[i] = (int32_t)i;
        for (size_t i = ids.size(); i > 1; i--) std::swap(ids[i - 1], ids[rng.below((uint32_t)i)]);
        for (int32_t r : rows) {
            first.push_back((int32_t)pages.size());
            for (uint32_t p = 0; p < pith_pages_for((uint32_t)r); p++) pages.push_back(ids[pages.size()]);
        }
        pool.assign(d_pool.n, 0xff);
        d_pages.set(pages), d_first.set(first), d_n_rows.set(n_rows);
    }
    size_t entry(uint32_t seq, uint32_t layer, uint32_t kv) const {
        return ((size_t)seq * geo.n_layers + layer) * geo.n_kv_heads + kv;
    }
    uint8_t *page(size_t e, uint32_t row) { return &pool[(size_t)pages[first[e] + row / 64] * page_bytes]; }
    uint16_t *k(size_t e, uint32_t row) { return (uint16_t *)page(e, row) + (size_t)(row % 64) * geo.head_dim; }
    uint16_t *v(size_t e, uint32_t row) {
        return (uint16_t *)(page(e, row) + pith_page_v_offset(&geo)) + (size_t)(row % 64) * geo.head_dim;
    }
    int32_t *pos(size_t e, uint32_t row) { return (int32_t *)(page(e, row) + pith_page_pos_offset(&geo)) + row % 64; }
    void upload() { d_pool.set(pool); }
    // Fills every row: f(entry, row, is_value, element); positions are the rows.
    void fill(const std::function<float(size_t, uint32_t, bool, uint32_t)> &f) {
        for (size_t e = 0; e < n_rows.size(); e++)
            for (uint32_t r = 0; r < (uint32_t)n_rows[e]; r++) {
                *pos(e, r) = (int32_t)r;
                for (uint32_t i = 0; i < geo.head_dim; i++) {
                    k(e, r)[i] = to_bits(f(e, r, false, i), bf16);
                    v(e, r)[i] = to_bits(f(e, r, true, i), bf16);
                }
            }
        upload();
    }
    void fill_normal(random_source &rng) {
        fill([&](size_t, uint32_t, bool, uint32_t) { return (float)((int)rng.below(4001) - 2000) * 0.001f; });
    }
    pith_cuda_cache view() const {
        return {d_pool.p, page_bytes, geo, bf16 ? PITH_HALF_BF16 : PITH_HALF_F16, d_pages.p, d_first.p, d_n_rows.p};
    }
    // softmax(q.k / sqrt(d)) v of one query (d) over the first n rows of a lane, in double.
    void attend(const uint16_t *q, size_t e, uint32_t n, double *out) {
        const uint32_t d = geo.head_dim;
        std::vector<double> s(n);
        double m = -INFINITY, l = 0;
        for (uint32_t r = 0; r < n; r++) {
            double x = 0;
            for (uint32_t i = 0; i < d; i++) x += (double)from_bits(q[i], bf16) * from_bits(k(e, r)[i], bf16);
            s[r] = x / std::sqrt((double)d), m = std::max(m, s[r]);
        }
        for (uint32_t i = 0; i < d; i++) out[i] = 0;
        for (uint32_t r = 0; r < n; r++) {
            const double w = std::exp(s[r] - m);
            l += w;
            for (uint32_t i = 0; i < d; i++) out[i] += w * from_bits(v(e, r)[i], bf16);
        }
        for (uint32_t i = 0; i < d; i++) out[i] /= l;
    }
};

// Median over 20 runs of f(i), which should touch other memory than f(i - 1): what an L2 of 50 MB holds is read from
// there.
template <typename F> double median_seconds(F f) {
    cudaEvent_t begin, end;
    OK(cudaEventCreate(&begin)), OK(cudaEventCreate(&end));
    std::vector<double> times;
    for (int i = 0; i < 23; i++) {
        OK(cudaEventRecord(begin)), f(i), OK(cudaEventRecord(end)), OK(cudaEventSynchronize(end));
        float ms;
        OK(cudaEventElapsedTime(&ms, begin, end));
        if (i >= 3) times.push_back(ms * 1e-3);
    }
    OK(cudaEventDestroy(begin)), OK(cudaEventDestroy(end));
    std::sort(times.begin(), times.end());
    return times[times.size() / 2];
}

#endif
