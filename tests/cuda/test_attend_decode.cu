// Decode attention: against double, exact cases, the same bits in every run, batch, order and grid; times.
#include "cuda/attend_decode.h"
#include "test_cache.cuh"

struct rig {
    test_cache &c;
    uint32_t n, cap;
    device<int32_t> seq;
    device<uint16_t> q, out;
    device<uint8_t> plan, parts;
    uint32_t n_blocks;
    pith_cuda_follow follow = PITH_CUDA_AFTER;

    rig(test_cache &cache, const std::vector<int32_t> &seqs, const std::vector<uint16_t> &queries)
        : c(cache), n((uint32_t)seqs.size()),
          cap(pith_cuda_attend_items(&c.geo, n, (uint32_t)*std::max_element(c.n_rows.begin(), c.n_rows.end()))),
          seq(seqs), q(queries), out(queries.size()), plan(pith_cuda_attend_plan_bytes(&c.geo, cap)),
          parts(pith_cuda_attend_parts_bytes(&c.geo, cap)) {
        OK(pith_cuda_attend_blocks(&c.geo, type(), &n_blocks));
        OK(pith_cuda_attend_reset(parts.p, 0));
        make_plan();
    }
    pith_half type() const { return c.bf16 ? PITH_HALF_BF16 : PITH_HALF_F16; }
    void make_plan() {
        const pith_cuda_cache view = c.view();
        OK(pith_cuda_attend_plan(&view, seq.p, n, plan.p, cap, 0));
    }
    void launch(uint32_t layer) {
        const pith_cuda_cache view = c.view();
        OK(pith_cuda_attend_decode(&view, layer, q.p, n, plan.p, parts.p, cap, n_blocks, out.p, type(), follow, 0));
    }
    std::vector<uint16_t> run(uint32_t layer) {
        out.poison(), launch(layer);
        return out.get();
    }
};

static std::vector<uint16_t> random_queries(size_t n, bool bf16, random_source &rng) {
    std::vector<uint16_t> q(n);
    for (uint16_t &x : q) x = to_bits(rng.normal(), bf16);
    return q;
}

static void random_case(uint32_t H, uint32_t G, uint32_t d, bool bf16, std::vector<int32_t> rows_of_seq) {
    random_source rng{H * 1000 + d + bf16};
    const pith_geometry geo = {2, H, G, d, 2};
    std::vector<int32_t> rows; // lanes of a sequence may differ in length
    for (int32_t r : rows_of_seq)
        for (uint32_t i = 0; i < geo.n_layers * G; i++) rows.push_back(std::max(1, r - (int32_t)i % 3));
    test_cache c(geo, bf16, rows, rng);
    c.fill_normal(rng);
    const uint32_t n = (uint32_t)rows_of_seq.size();
    std::vector<int32_t> seqs(n);
    for (uint32_t i = 0; i < n; i++) seqs[i] = (int32_t)i;
    const std::vector<uint16_t> q = random_queries((size_t)n * H * d, bf16, rng);
    rig r(c, seqs, q);
    const uint32_t layer = 1;
    const std::vector<uint16_t> got = r.run(layer);
    // A relative part for the output's rounding and the weights' (8 bits in bf16, 11 in f16), of values up to 2.
    double error = 0;
    std::vector<double> want(d);
    for (uint32_t i = 0; i < n; i++)
        for (uint32_t h = 0; h < H; h++) {
            c.attend(&q[((size_t)i * H + h) * d], c.entry(i, layer, h / (H / G)),
                     (uint32_t)c.n_rows[c.entry(i, layer, h / (H / G))], want.data());
            for (uint32_t e = 0; e < d; e++) {
                const double x = from_bits(got[((size_t)i * H + h) * d + e], bf16);
                if (!(std::fabs(x - want[e]) <= error)) error = std::fabs(x - want[e]);
            }
        }
    char name[128];
    std::snprintf(name, sizeof name, "H %u G %u d %u %s, %u sequences: random", H, G, d, bf16 ? "bf16" : "f16", n);
    report(name, error, 2 * (bf16 ? 0x1p-8 : 0x1p-11));

    size_t wrong = 0;
    for (int i = 0; i < n_again; i++) wrong += differing(got, r.run(layer));
    report_bits("  the same again", wrong);
    for (uint32_t few : {7u, 1u, 200u}) {
        r.n_blocks = few;
        std::snprintf(name, sizeof name, "  the same with %u blocks", few);
        report_bits(name, differing(got, r.run(layer)));
    }
    r.follow = PITH_CUDA_EARLY;
    report_bits("  the same as in a chain", differing(got, r.run(layer)));
    // Alone, and in reverse order with padding in front.
    wrong = 0;
    for (uint32_t i = 0; i < n; i++) {
        rig alone(c, {(int32_t)i}, {q.begin() + (size_t)i * H * d, q.begin() + (size_t)(i + 1) * H * d});
        const std::vector<uint16_t> one = alone.run(layer);
        wrong += std::memcmp(one.data(), &got[(size_t)i * H * d], one.size() * 2) != 0;
    }
    report_bits("  the same alone", wrong);
    std::vector<int32_t> back = {-1};
    std::vector<uint16_t> back_q((size_t)H * d, 0xffff);
    for (uint32_t i = n; i-- > 0;) {
        back.push_back((int32_t)i);
        back_q.insert(back_q.end(), q.begin() + (size_t)i * H * d, q.begin() + (size_t)(i + 1) * H * d);
    }
    rig reversed(c, back, back_q);
    const std::vector<uint16_t> other = reversed.run(layer);
    wrong = 0;
    for (size_t i = 0; i < (size_t)H * d; i++) wrong += other[i] != 0xffff; // padding stays untouched
    for (uint32_t i = 0; i < n; i++)
        wrong += std::memcmp(&other[(size_t)(n - i) * H * d], &got[(size_t)i * H * d], (size_t)H * d * 2) != 0;
    report_bits("  the same in reverse behind padding", wrong);

    // Layers share the counter and the parts: the other one in between changes nothing.
    reversed.run(0);
    report_bits("  the same behind the other layer", differing(other, reversed.run(layer)));
    const std::vector<uint8_t> parts = reversed.parts.get();
    report_bits("  the counter at its start",
                (size_t)std::count_if(parts.begin(), parts.begin() + 4, [](uint8_t byte) { return byte != 0; }));
}

// A plan without room for every lane is refused: who merges looks each of them up.
static void refused_case() {
    random_source rng{5};
    test_cache c({1, 4, 2, 64, 2}, true, {64, 64}, rng);
    c.fill_normal(rng);
    rig r(c, {0}, random_queries((size_t)4 * 64, true, rng));
    const pith_cuda_cache view = c.view();
    const cudaError_t e = pith_cuda_attend_decode(&view, 0, r.q.p, r.n, r.plan.p, r.parts.p, 1, r.n_blocks, r.out.p,
                                                  r.type(), PITH_CUDA_AFTER, 0);
    report_bits("room for one lane of two", e != cudaErrorInvalidValue);
}

// Keys with which every weight is 0 or equal: rows whose number is 3 modulo 8 share the largest score, the others lie
// far below it. Values are small integers, the number of equal rows a power of two: the mean is exact.
static void exact_case(uint32_t d, bool bf16, uint32_t n_rows) {
    random_source rng{d + n_rows};
    const pith_geometry geo = {1, 4, 2, d, 2};
    test_cache c(geo, bf16, {(int32_t)n_rows, (int32_t)n_rows}, rng);
    c.fill([&](size_t, uint32_t r, bool value, uint32_t i) {
        if (value) return (float)((int)rng.below(17) - 8);
        return r % 8 == 3 ? (i < 8 ? 32.0f : 0.0f) : (i < 8 ? -32.0f : (float)(i % 3));
    });
    std::vector<uint16_t> q((size_t)4 * d);
    for (size_t i = 0; i < q.size(); i++) q[i] = to_bits(i % d < 8 ? 64.0f : 0.0f, bf16);
    rig r(c, {0}, q);
    const std::vector<uint16_t> got = r.run(0);
    size_t wrong = 0;
    for (uint32_t h = 0; h < 4; h++)
        for (uint32_t i = 0; i < d; i++) {
            float sum = 0;
            uint32_t n = 0;
            for (uint32_t row = 3; row < n_rows; row += 8, n++)
                sum += from_bits(c.v(c.entry(0, 0, h / 2), row)[i], bf16);
            wrong += got[h * d + i] != to_bits(sum / (float)n, bf16);
        }
    char name[128];
    std::snprintf(name, sizeof name, "d %u %s, %u rows: exact", d, bf16 ? "bf16" : "f16", n_rows);
    report_bits(name, wrong);
}

static void time_case(const char *model, uint32_t H, uint32_t G, uint32_t n, uint32_t n_rows) {
    random_source rng{n_rows};
    const double bytes = (double)n * G * n_rows * 4 * 128;
    const uint32_t layers = (uint32_t)std::min(192.0, std::max(2.0, 400e6 / bytes)); // rotated: several times the L2
    const pith_geometry geo = {layers, H, G, 128, 2};
    test_cache c(geo, true, std::vector<int32_t>((size_t)n * layers * G, (int32_t)n_rows), rng);
    for (size_t i = 0; i < c.pool.size() / 2; i++)
        ((uint16_t *)c.pool.data())[i] = (uint16_t)(0x3f00 + (rng.state += 77) % 256); // near 0.5 to 2
    c.upload();
    std::vector<int32_t> seqs(n);
    for (uint32_t i = 0; i < n; i++) seqs[i] = (int32_t)i;
    rig r(c, seqs, random_queries((size_t)n * H * 128, true, rng));
    char name[128];
    std::snprintf(name, sizeof name, "%s, batch %u, %u rows, one layer", model, n, n_rows);
    report_time(name, median_seconds([&](int i) { r.launch((uint32_t)i % layers); }), bytes);
    std::snprintf(name, sizeof name, "  its plan, %u layers", layers);
    report_time(name, median_seconds([&](int) { r.make_plan(); }), (double)r.plan.n);
}

int main(int n_args, char **args) {
    const asked_for asked = begin(n_args, args);
    if (asked.checks) refused_case();
    for (int bf16 = 0; asked.checks && bf16 < 2; bf16++) {
        random_case(28, 4, 128, bf16, {1, 63, 64, 65, 700, 1024, 1025, 2048, 2049, 4500});
        if (!asked.quick) random_case(40, 8, 128, bf16, {128, 129, 9000});
        if (!asked.quick) random_case(8, 1, 64, bf16, {8192, 8193, 33000}); // at a border; more than 128 parts
        random_case(14, 2, 64, bf16, {5, 300, 2500});
        random_case(16, 1, 128, bf16, {257, 3000});
        random_case(4, 4, 96, bf16, {1, 130, 2300});
        random_case(8, 2, 160, bf16, {300});
        random_case(8, 2, 192, bf16, {300});
        random_case(8, 2, 224, bf16, {300});
        random_case(18, 2, 256, bf16, {300, 2100});
        for (uint32_t d = 64; d <= 256; d += 32)
            exact_case(d, bf16, 64), exact_case(d, bf16, 1024), exact_case(d, bf16, 4096);
    }
    if (asked.times) {
        time_case("7B", 28, 4, 1, 1024);
        time_case("7B", 28, 4, 1, 32640);
        time_case("7B", 28, 4, 16, 1024);
        time_case("7B", 28, 4, 16, 9216);
        time_case("7B", 28, 4, 16, 32640);
        time_case("7B", 28, 4, 64, 2048);
        time_case("QwQ-32B", 40, 8, 16, 9216);
    }
    return finish();
}
