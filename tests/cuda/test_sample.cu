// Sampling against the CPU backend; the same tokens in every run and batch; times.
#include "cuda/sample.h"
#include "test_cache.cuh"

// src/cpu/sample.c, which this program links with src/cpu/kernels_portable.c: the definition of a draw. Its headers are
// C.
extern "C" {
struct pith_cpu_kernels;
extern const pith_cpu_kernels pith_kernels_portable;
int32_t pith_sample(const pith_cpu_kernels *, const float *logits, uint32_t n, const pith_draw *, void *scratch);
size_t pith_sample_scratch(uint32_t n);
}

static std::vector<int32_t> run(const device<float> &logits, uint32_t V, const std::vector<pith_draw> &draws,
                                const std::vector<int32_t> &live, bool *host_agrees) {
    const uint32_t n = (uint32_t)draws.size();
    device<pith_draw> d_draws(draws);
    device<int32_t> d_live(live), ids(n);
    device<uint8_t> scratch(pith_cuda_sample_scratch(n, V));
    int32_t *host;
    OK(cudaHostAlloc((void **)&host, n * sizeof *host, cudaHostAllocMapped));
    std::memset(host, 0xff, n * sizeof *host);
    OK(pith_cuda_sample(logits.p, n, V, d_draws.p, live.empty() ? nullptr : d_live.p, scratch.p, ids.p, host, 0));
    OK(cudaDeviceSynchronize());
    const std::vector<int32_t> got = ids.get();
    *host_agrees = std::memcmp(got.data(), host, n * sizeof *host) == 0;
    OK(cudaFreeHost(host));
    return got;
}

// Every other token is equal, the likeliest ones are not: more in one bin than a list has room for, and bins of one.
static void half_equal_case() {
    const uint32_t V = 9001, n = 4;
    random_source rng{V};
    std::vector<float> x((size_t)n * V);
    for (size_t i = 0; i < x.size(); i++) x[i] = i % 2 ? 0.5f : 0.5f + 0.001f * rng.normal();
    const pith_draw kinds[] = {{1, 0, 0.3f, 0, 0}, {1, 0, 0.99f, 0, 0}, {1, 6000, 0.9f, 0, 0}, {1, 0, 1, 1e-5f, 0}};
    device<float> logits(x);
    std::vector<uint8_t> scratch(pith_sample_scratch(V));
    size_t wrong = 0;
    for (pith_draw draw : kinds) {
        std::vector<pith_draw> draws(n, draw);
        for (pith_draw &d : draws) d.uniform = rng.uniform();
        bool host_agrees;
        const std::vector<int32_t> got = run(logits, V, draws, {}, &host_agrees);
        for (uint32_t i = 0; i < n; i++)
            wrong += got[i] != pith_sample(&pith_kernels_portable, &x[(size_t)i * V], V, &draws[i], scratch.data());
    }
    report_bits("half of the tokens equal, filters beyond the head", wrong);
}

static void one_case(const char *what, uint32_t V, float spread, bool ties, pith_draw draw) {
    random_source rng{V + (uint64_t)(spread * 100)};
    const uint32_t n = n_again == 1 ? 4 : 24;
    std::vector<float> x((size_t)n * V);
    // Sums are rounded differently on the two sides, by less than 1e-7 of the total: no draw here lies that close to a
    // border.
    for (float &e : x) e = ties ? (float)rng.below(6) : spread * rng.normal();
    std::vector<pith_draw> draws(n, draw);
    for (uint32_t i = 0; i < n; i++) draws[i].uniform = i == 0 ? 0 : i == 1 ? 0.99999 : rng.uniform();
    device<float> logits(x);
    bool host_agrees;
    const std::vector<int32_t> got = run(logits, V, draws, {}, &host_agrees);
    std::vector<uint8_t> scratch(pith_sample_scratch(V));
    size_t wrong = 0;
    for (uint32_t i = 0; i < n; i++)
        wrong += got[i] != pith_sample(&pith_kernels_portable, &x[(size_t)i * V], V, &draws[i], scratch.data());
    char name[160];
    std::snprintf(name, sizeof name, "%s, V %u, spread %.2f%s", what, V, spread, ties ? ", ties" : "");
    report_bits(name, wrong);
    wrong = !host_agrees;
    for (int i = 0; i < n_again; i++) wrong += differing(got, run(logits, V, draws, {}, &host_agrees));
    // Alone, the last sequence draws the same; padding draws nothing.
    device<float> last(std::vector<float>(x.end() - V, x.end()));
    wrong += run(last, V, {draws[n - 1]}, {}, &host_agrees)[0] != got[n - 1];
    std::vector<int32_t> live(n, 1);
    live[3] = -1;
    const std::vector<int32_t> padded = run(logits, V, draws, live, &host_agrees);
    for (uint32_t i = 0; i < n; i++) wrong += padded[i] != (i == 3 ? -1 : got[i]);
    report_bits("  again, alone, beside padding", wrong);
}

static void time_case(const char *what, uint32_t n, float spread, pith_draw draw) {
    const uint32_t V = 152064;
    random_source rng{n};
    std::vector<float> x((size_t)n * V);
    for (float &e : x) e = spread * rng.normal();
    device<float> logits(x);
    draw.uniform = 0.4;
    device<pith_draw> draws(std::vector<pith_draw>(n, draw));
    device<int32_t> ids(n);
    device<uint8_t> scratch(pith_cuda_sample_scratch(n, V));
    char name[128];
    std::snprintf(name, sizeof name, "%s, batch %u, V %u", what, n, V);
    report_time(name, median_seconds([&](int) {
                    OK(pith_cuda_sample(logits.p, n, V, draws.p, nullptr, scratch.p, ids.p, nullptr, 0));
                }),
                4.0 * n * V);
}

int main(int n_args, char **args) {
    const asked_for asked = begin(n_args, args);
    for (uint32_t V : {1u, 17u, 5000u, 32001u, 152064u, 262144u})
        for (int shape = 0; asked.checks && shape < 3; shape++) {
            if (asked.quick && !(shape < 2 ? V == 5000 : V == 17)) continue;
            const float spread = shape == 0 ? 3.0f : 0.01f; // peaked, flat: the head does not fit; ties
            const bool ties = shape == 2;
            one_case("greedy", V, spread, ties, {0, 0, 1, 0, 0});
            one_case("temperature 0.7", V, spread, ties, {0.7f, 0, 1, 0, 0});
            one_case("top-k 20", V, spread, ties, {0.6f, 20, 1, 0, 0});
            one_case("top-p 0.95", V, spread, ties, {0.6f, 0, 0.95f, 0, 0});
            one_case("top-k 40, top-p 0.9, min-p 0.05", V, spread, ties, {1.0f, 40, 0.9f, 0.05f, 0});
            one_case("min-p 0.1", V, spread, ties, {1.0f, 0, 1, 0.1f, 0});
        }
    if (asked.checks) half_equal_case();
    const pith_draw greedy = {0, 0, 1, 0, 0}, plain = {0.6f, 0, 1, 0, 0}, paper = {0.6f, 0, 0.95f, 0, 0};
    for (uint32_t n : {1u, 16u, 64u})
        if (asked.times)
            time_case("greedy", n, 3, greedy), time_case("temperature", n, 3, plain),
                time_case("top-p, peaked", n, 3, paper), time_case("top-p, flat", n, 0.1f, paper);
    return finish();
}
