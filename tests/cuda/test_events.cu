// Candidates, mass, aggregation, pooling and the best ones: exact cases bit for bit, mass also against double; times.
#include "cuda/events.h"
#include "test_cache.cuh"

static float bf16_round(float x) { return pith_bf16_round(x); }

static void candidates_case(random_source &rng, uint32_t n_rows) {
    const pith_geometry geo = {2, 4, 2, 64, 2};
    test_cache c(geo, true, std::vector<int32_t>(4, (int32_t)n_rows), rng);
    for (size_t e = 0; e < 4; e++)
        for (uint32_t r = 0, at = 0; r < n_rows; r++)
            *c.pos(e, r) = (int32_t)(at += 1 + rng.below(3)); // gaps, as after a compression
    c.upload();
    const std::vector<pith_span> protect = {{0, 100}, {400, 401}, {500, 777}};
    const uint32_t tail = 32;
    std::vector<std::vector<uint32_t>> want(4);
    size_t least = n_rows;
    for (size_t e = 0; e < 4; e++) {
        for (uint32_t r = 0; r < n_rows; r++) {
            bool is_free = true;
            for (pith_span s : protect) is_free &= *c.pos(e, r) < s.begin || *c.pos(e, r) >= s.end;
            if (is_free) want[e].push_back(r);
        }
        want[e].resize(want[e].size() > tail ? want[e].size() - tail : 0);
        least = std::min(least, want[e].size());
    }
    if (least == 0) return;
    device<pith_span> d_protect(protect);
    device<uint32_t> rows(4 * least), counts(4);
    const pith_cuda_cache view = c.view();
    const pith_cuda_event e = {0, 0, 2, (uint32_t)least};
    OK(pith_cuda_candidates(&view, &e, d_protect.p, 3, tail, rows.p, counts.p, 0));
    size_t wrong = 0;
    const std::vector<uint32_t> got = rows.get(), n = counts.get();
    for (size_t l = 0; l < 4; l++) {
        wrong += n[l] != want[l].size();
        for (size_t i = 0; i < least; i++) wrong += got[l * least + i] != want[l][i];
    }
    char name[128];
    std::snprintf(name, sizeof name, "candidates of %u rows", n_rows);
    report_bits(name, wrong);
}

// Every `step`-th row behind `first` is a candidate of every lane.
struct mass_rig {
    test_cache &c;
    uint32_t n, n_layers, cap, n_slots;
    std::vector<uint32_t> rows, slots;
    std::vector<float> window;
    mass_rig(test_cache &cache, uint32_t first, uint32_t step, uint32_t n_slots_, random_source &rng, float gain = 1)
        : c(cache), n_layers(cache.geo.n_layers), cap(n_slots_ + 3), n_slots(n_slots_) {
        for (uint32_t r = first; r < (uint32_t)c.n_rows[0]; r += step) rows.push_back(r);
        n = (uint32_t)rows.size();
        const std::vector<uint32_t> lane = rows;
        for (uint32_t l = 1; l < n_layers * c.geo.n_kv_heads; l++) rows.insert(rows.end(), lane.begin(), lane.end());
        for (uint32_t i = 0; i < n_slots; i++) slots.push_back((i * 7 + 1) % cap); // cap may repeat slots: allowed
        window.resize((size_t)n_layers * cap * c.geo.n_heads * c.geo.head_dim);
        for (float &x : window) x = gain * rng.normal();
    }
    std::vector<float> run(pith_arith arith, uint32_t layer0, uint32_t layers) {
        const pith_geometry *g = &c.geo;
        device<uint32_t> d_rows(rows), d_slots(slots);
        device<float> d_window(window), score((size_t)layers * g->n_heads * n);
        device<uint8_t> scratch(pith_cuda_mass_scratch(g, layers, n, n_slots));
        const pith_cuda_cache view = c.view();
        const pith_cuda_event e = {0, layer0, layers, n};
        OK(pith_cuda_mass(&view, &e, d_window.p, cap, d_slots.p, n_slots, arith,
                          d_rows.p + (size_t)layer0 * g->n_kv_heads * n, scratch.p, score.p, 0));
        return score.get();
    }
    // The query as the backend takes it: in the cache's type, or in bf16.
    float query(float q, pith_arith arith) const {
        return arith == PITH_ARITH_BF16 ? bf16_round(q) : from_bits(to_bits(q, c.bf16), c.bf16);
    }
    // Each score, and the largest sum of a dot product's terms without their signs, in units of a logit.
    std::vector<double> reference(uint32_t layer, uint32_t h, pith_arith arith, double *magnitude) {
        const uint32_t d = c.geo.head_dim, g = c.geo.n_heads / c.geo.n_kv_heads;
        const size_t e = c.entry(0, layer, h / g);
        const bool ref = arith == PITH_ARITH_BF16;
        std::vector<double> out(n, 0.0), x(n);
        for (uint32_t slot : slots) {
            const float *q = &window[(((size_t)layer * cap + slot) * c.geo.n_heads + h) * d];
            double m = -INFINITY, l = 0;
            for (uint32_t j = 0; j < n; j++) {
                double terms = x[j] = 0;
                for (uint32_t i = 0; i < d; i++) {
                    const float k = from_bits(c.k(e, rows[j])[i], c.bf16);
                    const double term = (double)query(q[i], arith) * (ref ? bf16_round(k) : k);
                    x[j] += term, terms += std::fabs(term);
                }
                *magnitude = std::max(*magnitude, terms / std::sqrt((double)d));
                x[j] = ref ? bf16_round(bf16_round((float)x[j]) / sqrtf((float)d)) : x[j] / std::sqrt((double)d);
                m = std::max(m, x[j]);
            }
            for (uint32_t j = 0; j < n; j++) l += std::exp(x[j] - m);
            for (uint32_t j = 0; j < n; j++)
                out[j] += ref ? bf16_round((float)(std::exp(x[j] - m) / l)) : std::exp(x[j] - m) / l;
        }
        if (ref)
            for (double &s : out) s = bf16_round((float)s);
        return out;
    }
};

// Of what a score may be off, how much it is. A tensor core drops up to 2^-23 of the largest number at hand with each
// term that it adds; the products of the second pass start from minus the maximum, so that sums reach twice a dot
// product's magnitude; and weights are divided by sums of weights. A logit's error is a weight's relative error. The
// rest are additions of weights and a few roundings; what lies below 2^-126 is nothing.
static double used(double got, double want, uint32_t d, double magnitude, uint32_t n, uint32_t n_slots) {
    const double bound = 0x1p-23 * (4 * (d + 2) * magnitude + n / 16.0 + n_slots + 16) * want + n_slots * 0x1p-126;
    return std::fabs(got - want) / bound;
}

static void mass_case(uint32_t H, uint32_t G, uint32_t d, bool bf16, uint32_t n_rows, uint32_t step, uint32_t n_slots,
                      float gain = 1) {
    random_source rng{d + n_rows};
    const pith_geometry geo = {2, H, G, d, 2};
    test_cache c(geo, bf16, std::vector<int32_t>(2 * G, (int32_t)n_rows), rng);
    c.fill_normal(rng);
    mass_rig r(c, 10, step, n_slots, rng, gain);
    for (int a = 0; a < (gain == 1 ? 2 : 1); a++) {
        const pith_arith arith = a ? PITH_ARITH_BF16 : PITH_ARITH_F32;
        const std::vector<float> got = r.run(arith, 0, 2);
        double error = 0;
        for (uint32_t layer = 0; layer < 2; layer++)
            for (uint32_t h = 0; h < H; h += 1 + H / 4) {
                double magnitude = 0;
                const std::vector<double> want = r.reference(layer, h, arith, &magnitude);
                for (uint32_t j = 0; j < r.n; j++) {
                    const double x = got[((size_t)layer * H + h) * r.n + j];
                    const double e = a ? std::fabs(x - want[j]) / (want[j] + 1e-3 * n_slots / r.n)
                                       : used(x, want[j], d, magnitude, r.n, n_slots);
                    if (!(e <= error)) error = e;
                }
            }
        char name[128];
        std::snprintf(name, sizeof name, "mass %s: H %u G %u d %u %s, %u of %u rows, %u queries%s", a ? "BF16" : "F32",
                      H, G, d, bf16 ? "bf16" : "f16", r.n, n_rows, n_slots, gain == 1 ? "" : ", far apart");
        // F32: the part of its bound. BF16: a score or two beside a rounding border.
        report(name, error, a ? 0.07 : 1);
        size_t wrong = 0;
        for (int i = 0; i < n_again; i++) wrong += differing(got, r.run(arith, 0, 2));
        const std::vector<float> one = r.run(arith, 1, 1);
        wrong += std::memcmp(one.data(), &got[(size_t)H * r.n], one.size() * 4) != 0;
        report_bits("  the same again, and a layer alone", wrong);
    }
}

// Scores of which 8 or 9 candidates are the largest by far, in each head others: weights are 0 and 1/8 or 1/9.
static void exact_mass_case(uint32_t d, bool bf16, uint32_t n_rows) {
    random_source rng{d};
    const pith_geometry geo = {1, 4, 2, d, 2};
    const uint32_t n_slots = 5;
    test_cache c(geo, bf16, {(int32_t)n_rows, (int32_t)n_rows}, rng);
    c.fill([&](size_t e, uint32_t r, bool, uint32_t i) {
        return i == 0 ? (r % 80 == 11 + e ? 64.0f : -64.0f) : (float)((r + i) % 5);
    });
    mass_rig r(c, 0, 1, n_slots, rng);
    for (size_t i = 0; i < r.window.size(); i++) r.window[i] = i % d == 0 ? 128.0f : 0.0f;
    for (int a = 0; a < 2; a++) {
        const std::vector<float> got = r.run(a ? PITH_ARITH_BF16 : PITH_ARITH_F32, 0, 1);
        size_t wrong = 0;
        for (uint32_t h = 0; h < 4; h++) {
            uint32_t count = 0;
            for (uint32_t j = 0; j < n_rows; j++) count += j % 80 == 11 + h / 2;
            for (uint32_t j = 0; j < n_rows; j++) {
                const float w = 1.0f / (float)count;
                float want = 0;
                for (uint32_t s = 0; s < n_slots; s++) want += j % 80 == 11 + h / 2 ? (a ? bf16_round(w) : w) : 0;
                if (a) want = bf16_round(want);
                // 9 equal ones are no power of two: equal among themselves is what a tie needs, and the sum is near.
                const float near = count == 8 ? 0.0f : 1e-6f;
                wrong += !(std::fabs(got[h * n_rows + j] - want) <= near) || (want == 0 && got[h * n_rows + j] != 0);
                wrong += want != 0 && got[h * n_rows + j] != got[h * n_rows + 11 + h / 2];
            }
        }
        char name[128];
        std::snprintf(name, sizeof name, "mass %s: d %u %s, %u rows, exact", a ? "BF16" : "F32", d,
                      bf16 ? "bf16" : "f16", n_rows);
        report_bits(name, wrong);
    }
}

static void scores_case(random_source &rng, uint32_t n) {
    const uint32_t H = 12, G = 4, L = 2;
    const pith_geometry geo = {L, H, G, 64, 2};
    const pith_cuda_event e = {0, 0, L, n};
    std::vector<float> in((size_t)L * H * n);
    for (float &x : in) x = (float)rng.uniform() * (rng.below(4) ? 1.0f : 1e-3f);
    device<float> d_in(in);
    size_t wrong = 0;
    for (int how = 0; how < 3; how++)
        for (int a = 0; a < 2; a++) {
            const uint32_t sets = how == PITH_AGG_LAYER ? 1 : G, per = H / sets;
            device<float> out((size_t)L * sets * n), pooled((size_t)L * sets * n);
            OK(pith_cuda_aggregate(&geo, &e, (pith_aggregate)how, (pith_arith)a, d_in.p, out.p, 0));
            const std::vector<float> got = out.get();
            for (size_t s = 0; s < (size_t)L * sets; s++)
                for (uint32_t j = 0; j < n; j++) {
                    volatile float x = in[s * per * n + j];
                    for (uint32_t h = 1; h < per; h++)
                        x = how == PITH_AGG_HEAD ? std::max((float)x, in[(s * per + h) * n + j])
                                                 : x + in[(s * per + h) * n + j];
                    if (how != PITH_AGG_HEAD) x = x / (float)per, x = a ? bf16_round(x) : (float)x;
                    wrong += got[s * n + j] != x;
                }
            for (int p = 0; p < 3; p++)
                for (uint32_t width : {1u, 7u, 255u}) {
                    OK(pith_cuda_pool(&e, sets, (pith_pool)p, width, (pith_arith)a, out.p, pooled.p, 0));
                    const std::vector<float> after = pooled.get();
                    for (size_t s = 0; s < (size_t)L * sets; s++)
                        for (int64_t j = 0; j < n; j++) {
                            const int64_t from = std::max<int64_t>(0, j - width / 2),
                                          to = std::min<int64_t>(n, j + width / 2 + 1);
                            volatile float sum = 0, top = got[s * n + from];
                            for (int64_t i = from; i < to; i++)
                                sum = sum + got[s * n + i], top = std::max((float)top, got[s * n + i]);
                            float want = p == PITH_POOL_MAX ? (float)top : sum / (float)(a ? width : to - from);
                            want = p == PITH_POOL_NONE ? got[s * n + j] : a ? bf16_round(want) : want;
                            wrong += after[s * n + j] != want;
                        }
                }
        }
    char name[128];
    std::snprintf(name, sizeof name, "aggregation and pooling of %u, all ways", n);
    report_bits(name, wrong);
}

static void top_case(random_source &rng, uint32_t n, uint32_t k, int kind) {
    const uint32_t sets = 3, L = 2;
    std::vector<float> score((size_t)L * sets * n);
    for (float &x : score) {
        x = kind == 0   ? rng.normal()
            : kind == 1 ? (float)rng.below(5) - 2
                        : 1.0f; // distinct, ties (also of 0 and -0), all equal
        if (kind == 1 && x == 0 && rng.below(2)) x = -0.0f;
        if (kind == 1 && rng.below(50) == 0) x = rng.below(2) ? NAN : -INFINITY;
    }
    device<float> d_score(score);
    device<uint32_t> keep((size_t)L * sets * k);
    const pith_cuda_event e = {0, 0, L, n};
    OK(pith_cuda_top(&e, sets, d_score.p, k, keep.p, 0));
    std::vector<uint32_t> want;
    for (uint32_t s = 0; s < L * sets; s++) {
        std::vector<uint32_t> order(n);
        for (uint32_t j = 0; j < n; j++) order[j] = j;
        const float *x = &score[(size_t)s * n];
        std::stable_sort(order.begin(), order.end(),
                         [x](uint32_t a, uint32_t b) { return std::isnan(x[b]) ? !std::isnan(x[a]) : x[a] > x[b]; });
        order.resize(k);
        std::sort(order.begin(), order.end());
        want.insert(want.end(), order.begin(), order.end());
    }
    char name[128];
    std::snprintf(name, sizeof name, "the %u best of %u, kind %d", k, n, kind);
    report_bits(name, differing(want, keep.get()));
}

static void time_case(uint32_t n_rows) {
    random_source rng{n_rows};
    const uint32_t L = 28, H = 28, G = 4, d = 128, R = 32;
    const pith_geometry geo = {L, H, G, d, 2};
    test_cache c(geo, true, std::vector<int32_t>(L * G, (int32_t)n_rows), rng);
    for (size_t i = 0; i < c.pool.size() / 2; i++)
        ((uint16_t *)c.pool.data())[i] = (uint16_t)(0x3e00 + (rng.state += 77) % 256 + (i & 1) * 0x8000);
    c.upload();
    mass_rig r(c, 128, 1, R, rng);
    device<uint32_t> rows(r.rows), slots(r.slots), keep((size_t)L * r.n);
    device<float> window(r.window), score((size_t)L * H * r.n), a((size_t)L * r.n), b((size_t)L * r.n);
    device<uint8_t> scratch(pith_cuda_mass_scratch(&geo, L, r.n, R));
    device<pith_span> protect(std::vector<pith_span>{{0, 128}});
    const pith_cuda_cache view = c.view();
    const pith_cuda_event e = {0, 0, L, r.n};
    std::printf("7B, %u candidates, 28 layers, scratch of mass %.1f MB\n", r.n, (double)scratch.n * 1e-6);
    const double m = median_seconds([&](int) {
        OK(pith_cuda_mass(&view, &e, window.p, r.cap, slots.p, R, PITH_ARITH_F32, rows.p, scratch.p, score.p, 0));
    });
    std::printf("  mass: %.1f us, %.0f TFLOP/s of %.0f GFLOP\n", m * 1e6, 4.0 * L * H * R * d * r.n / m * 1e-12,
                4e-9 * L * H * R * d * r.n);
    report_time("  aggregate", median_seconds([&](int) {
                    OK(pith_cuda_aggregate(&geo, &e, PITH_AGG_LAYER, PITH_ARITH_F32, score.p, a.p, 0));
                }),
                4.0 * L * H * r.n);
    report_time("  pool",
                median_seconds([&](int) { OK(pith_cuda_pool(&e, 1, PITH_POOL_AVG, 7, PITH_ARITH_F32, a.p, b.p, 0)); }),
                8.0 * L * r.n);
    report_time("  top", median_seconds([&](int) { OK(pith_cuda_top(&e, 1, b.p, r.n / 2, keep.p, 0)); }),
                4.0 * L * r.n);
    report_time("  candidates",
                median_seconds([&](int) { OK(pith_cuda_candidates(&view, &e, protect.p, 1, 0, rows.p, nullptr, 0)); }),
                8.0 * L * G * n_rows);
}

int main(int n_args, char **args) {
    const asked_for asked = begin(n_args, args);
    random_source rng{5};
    if (asked.checks) {
        for (uint32_t n : {700u, 1024u, 4095u, 4097u, 9300u}) candidates_case(rng, n);
        for (int bf16 = 0; bf16 < 2; bf16++) {
            if (!asked.quick) mass_case(28, 4, 128, bf16, 1300, 1, 32);
            mass_case(14, 2, 64, bf16, 900, 1, 1); // a full chunk of candidates and a part of one
            mass_case(6, 2, 96, bf16, 300, 1, 40);
            mass_case(3, 1, 64, bf16, 130, 5, 70);    // 9 tiles of queries: two blocks of 5 warps, one idle
            mass_case(4, 2, 128, bf16, 25, 1, 3);     // less than a tile
            mass_case(4, 2, 64, bf16, 700, 1, 7, 16); // weights of many magnitudes, in any order
            for (uint32_t d = 160; d <= 256; d += asked.quick ? 96 : 32) mass_case(4, 2, d, bf16, 500, 3, 33);
            for (uint32_t d = 64; d <= 256; d += 32) exact_mass_case(d, bf16, d % 64 ? 700 : 650);
        }
        for (uint32_t n : {1u, 6u, 257u, 3000u})
            if (!asked.quick || n < 3000) scores_case(rng, n);
        for (int kind = 0; kind < 3; kind++)
            top_case(rng, 1, 1, kind), top_case(rng, 1000, 1000, kind),
                top_case(rng, asked.quick ? 2500 : 9216, asked.quick ? 1800 : 8192, kind), top_case(rng, 1025, 7, kind);
    }
    if (asked.times) time_case(1184), time_case(9216);
    return finish();
}
