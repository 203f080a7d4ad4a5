// Prefill attention: against double, exact cases, the same bits in every run and however the prompt is cut; times.
#include "cuda/attend_prefill.h"
#include "test_cache.cuh"

static std::vector<uint16_t> run(test_cache &c, uint32_t layer, const std::vector<uint16_t> &q, uint32_t n) {
    device<uint16_t> d_q(q), out(q.size());
    device<int32_t> seq(std::vector<int32_t>{0});
    const pith_cuda_cache view = c.view();
    const pith_half type = c.bf16 ? PITH_HALF_BF16 : PITH_HALF_F16;
    OK(pith_cuda_attend_prefill_init(&c.geo, type));
    OK(pith_cuda_attend_prefill(&view, layer, d_q.p, seq.p, n, out.p, type, 0));
    return out.get();
}

static void set_rows(test_cache &c, uint32_t n_rows) {
    std::fill(c.n_rows.begin(), c.n_rows.end(), (int32_t)n_rows);
    c.d_n_rows.set(c.n_rows);
}

// n tokens behind `before` rows.
static void random_case(uint32_t H, uint32_t G, uint32_t d, bool bf16, uint32_t before, uint32_t n) {
    random_source rng{H * 1000 + d + bf16 + n};
    const pith_geometry geo = {2, H, G, d, 2};
    const uint32_t n_rows = before + n, layer = 1;
    test_cache c(geo, bf16, std::vector<int32_t>(2 * G, (int32_t)n_rows), rng);
    c.fill_normal(rng);
    std::vector<uint16_t> q((size_t)n * H * d);
    for (uint16_t &x : q) x = to_bits(rng.normal(), bf16);
    const std::vector<uint16_t> got = run(c, layer, q, n);
    double error = 0;
    std::vector<double> want(d);
    for (uint32_t t = 0; t < n; t += 1 + n / 40) // every token in small cases, some of the others
        for (uint32_t h = 0; h < H; h += 1 + (n > 100 ? H / 5 : 0)) {
            c.attend(&q[((size_t)t * H + h) * d], c.entry(0, layer, h / (H / G)), before + t + 1, want.data());
            for (uint32_t e = 0; e < d; e++) {
                const double x = from_bits(got[((size_t)t * H + h) * d + e], bf16);
                if (!(std::fabs(x - want[e]) <= error)) error = std::fabs(x - want[e]);
            }
        }
    char name[128];
    std::snprintf(name, sizeof name, "H %u G %u d %u %s, %u tokens behind %u: random", H, G, d, bf16 ? "bf16" : "f16",
                  n, before);
    report(name, error, 2 * (bf16 ? 0x1p-8 : 0x1p-11));
    size_t wrong = 0, poisoned = 0;
    for (uint16_t x : got) poisoned += x == 0xffff;
    report_bits("  every element written", poisoned);
    for (int i = 0; i < n_again; i++) wrong += differing(got, run(c, layer, q, n));
    report_bits("  the same again", wrong);
    // As two chunks: rows behind the first chunk's end are there as garbage would be, and must not matter.
    const uint32_t cut = n / 3 + 1;
    if (cut >= n) return;
    set_rows(c, before + cut);
    const std::vector<uint16_t> a = run(c, layer, {q.begin(), q.begin() + (size_t)cut * H * d}, cut);
    set_rows(c, n_rows);
    const std::vector<uint16_t> b = run(c, layer, {q.begin() + (size_t)cut * H * d, q.end()}, n - cut);
    wrong = std::memcmp(a.data(), got.data(), a.size() * 2) != 0;
    wrong += std::memcmp(b.data(), &got[a.size()], b.size() * 2) != 0;
    report_bits("  the same in two chunks", wrong);
}

// Equal scores everywhere: a token's result is the mean of the values it sees, exact where their number is a power of
// two.
static void exact_case(uint32_t d, bool bf16, uint32_t n) {
    random_source rng{d};
    const pith_geometry geo = {1, 6, 2, d, 2};
    test_cache c(geo, bf16, {(int32_t)n, (int32_t)n}, rng);
    c.fill([&](size_t, uint32_t, bool value, uint32_t) { return value ? (float)((int)rng.below(17) - 8) : 1.0f; });
    const std::vector<uint16_t> q((size_t)n * 6 * d, to_bits(0.5f, bf16)), got = run(c, 0, q, n);
    size_t wrong = 0;
    for (uint32_t h = 0; h < 6; h++)
        for (uint32_t i = 0; i < d; i++) {
            float sum = 0;
            for (uint32_t r = 0; r < n; r++) {
                sum += from_bits(c.v(c.entry(0, 0, h / 3), r)[i], bf16);
                if ((r & (r + 1)) == 0)
                    wrong += got[((size_t)r * 6 + h) * d + i] != to_bits(sum / (float)(r + 1), bf16);
            }
        }
    char name[128];
    std::snprintf(name, sizeof name, "d %u %s: exact", d, bf16 ? "bf16" : "f16");
    report_bits(name, wrong);
}

static void time_case(uint32_t n, uint32_t before) {
    random_source rng{n};
    const uint32_t H = 28, G = 4, d = 128, n_rows = before + n;
    const pith_geometry geo = {1, H, G, d, 2};
    test_cache c(geo, true, std::vector<int32_t>(G, (int32_t)n_rows), rng);
    c.fill_normal(rng);
    std::vector<uint16_t> q((size_t)n * H * d);
    for (uint16_t &x : q) x = to_bits(rng.normal(), true);
    device<uint16_t> d_q(q), out(q.size());
    device<int32_t> seq(std::vector<int32_t>{0});
    const pith_cuda_cache view = c.view();
    OK(pith_cuda_attend_prefill_init(&geo, PITH_HALF_BF16));
    const double s =
        median_seconds([&](int) { OK(pith_cuda_attend_prefill(&view, 0, d_q.p, seq.p, n, out.p, PITH_HALF_BF16, 0)); });
    const double flop = 4.0 * H * d * ((double)n * before + 0.5 * n * (n + 1.0));
    std::printf("7B, %u tokens behind %u: %.1f us, %.0f TFLOP/s\n", n, before, s * 1e6, flop / s * 1e-12);
}

int main(int n_args, char **args) {
    const asked_for asked = begin(n_args, args);
    for (int bf16 = 0; asked.checks && bf16 < 2; bf16++) {
        random_case(28, 4, 128, bf16, 0, 1);
        random_case(28, 4, 128, bf16, 0, 130);
        if (!asked.quick) random_case(28, 4, 128, bf16, 1000, 333);
        random_case(40, 8, 128, bf16, 63, 65);
        random_case(14, 2, 64, bf16, 7, 200);
        for (uint32_t d = 96; d <= 256; d += 32) random_case(16, 1, d, bf16, 50, 90);
        for (uint32_t d = 64; d <= 256; d += 32) exact_case(d, bf16, asked.quick ? 130 : 512);
    }
    if (asked.times) time_case(1024, 0), time_case(1024, 8192), time_case(256, 32000);
    return finish();
}
