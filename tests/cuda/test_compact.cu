// Survivors and in-place compaction against an out-of-place oracle on the host, over random keeps; times.
#include "cuda/compact.h"
#include "test_cache.cuh"

struct choice {
    std::vector<uint32_t> candidates, keep; // (L, G, S), (L, sets, k)
    uint32_t n_sets, k, n;
};

static std::vector<uint32_t> random_subset(uint32_t n, uint32_t k, random_source &rng) {
    std::vector<uint32_t> all(n), out;
    for (uint32_t i = 0; i < n; i++) all[i] = i;
    for (uint32_t i = 0; i < k; i++) std::swap(all[i], all[i + rng.below(n - i)]);
    out.assign(all.begin(), all.begin() + k);
    std::sort(out.begin(), out.end());
    return out;
}

// Candidates are all rows from `first` to the tail but those that `gaps` holds back.
static void random_case(uint32_t d, uint32_t n_rows, uint32_t first, uint32_t tail, uint32_t n_gaps, uint32_t k,
                        bool per_head, random_source &rng) {
    const pith_geometry geo = {3, 4, 2, d, 2};
    test_cache c(geo, true, std::vector<int32_t>(2 * pith_n_lanes(&geo), (int32_t)n_rows), rng);
    for (uint8_t &b : c.pool) b = (uint8_t)rng.next();
    c.upload();
    const uint32_t n = n_rows - first - tail - n_gaps, n_survivors = n_rows - first - (n - k), layer0 = 1, n_layers = 2,
                   seq = 1;
    const uint32_t n_sets = per_head ? 2 : 1;
    std::vector<uint32_t> candidates, keep, want;
    for (uint32_t set = 0; set < n_layers * n_sets; set++) {
        const std::vector<uint32_t> s = random_subset(n, k, rng);
        keep.insert(keep.end(), s.begin(), s.end());
    }
    for (uint32_t lane = 0; lane < n_layers * 2; lane++) {
        // The first candidate stays one, so that all survivors lie behind `first`.
        std::vector<uint32_t> rows = random_subset(n_rows - first - tail - 1, n - 1, rng);
        std::vector<char> is_candidate(n_rows, 0), survives(n_rows, 0);
        candidates.push_back(first), is_candidate[first] = 1;
        for (uint32_t r : rows) candidates.push_back(first + 1 + r), is_candidate[first + 1 + r] = 1;
        const uint32_t *kept = &keep[(size_t)(lane / 2 * n_sets + (per_head ? lane % 2 : 0)) * k];
        for (uint32_t i = 0; i < k; i++) survives[candidates[(size_t)lane * n + kept[i]]] = 1;
        for (uint32_t r = first; r < n_rows; r++)
            if (!is_candidate[r] || survives[r]) want.push_back(r);
    }
    device<uint32_t> d_candidates(candidates), d_keep(keep), survivors((size_t)n_layers * 2 * n_survivors);
    const pith_cuda_cache view = c.view();
    const pith_cuda_event e = {seq, layer0, n_layers, n};
    OK(pith_cuda_survivors(&view, &e, d_candidates.p, n_sets, d_keep.p, k, survivors.p, n_survivors, 0));
    char name[128];
    std::snprintf(name, sizeof name, "d %u, %u rows, %u of %u kept, %u held back: survivors", d, n_rows, k, n, n_gaps);
    report_bits(name, differing(want, survivors.get()));

    // Everything moves on a copy; the whole pool must then agree, other sequences, layers and rows included.
    const std::vector<uint8_t> before = c.pool;
    test_cache *p = &c;
    std::vector<uint8_t> after = before;
    for (uint32_t lane = 0; lane < n_layers * 2; lane++) {
        const size_t entry = c.entry(seq, layer0 + lane / 2, lane % 2);
        auto offset = [&](const void *at) { return (size_t)((const uint8_t *)at - p->pool.data()); };
        for (uint32_t i = 0; i < n_survivors; i++) {
            const uint32_t from = want[(size_t)lane * n_survivors + i], to = first + i;
            std::memcpy(&after[offset(c.k(entry, to))], &before[offset(c.k(entry, from))], d * 2);
            std::memcpy(&after[offset(c.v(entry, to))], &before[offset(c.v(entry, from))], d * 2);
            std::memcpy(&after[offset(c.pos(entry, to))], &before[offset(c.pos(entry, from))], 4);
        }
    }
    OK(pith_cuda_compact_layers(&view, &e, d_candidates.p, k, survivors.p, n_survivors, 0));
    report_bits("  layers compacted, bytes of the pool", differing(after, c.d_pool.get()));
    c.upload();
    for (uint32_t lane = 0; lane < n_layers * 2; lane++)
        OK(pith_cuda_compact(&view, c.d_pages.p + c.first[c.entry(seq, layer0 + lane / 2, lane % 2)], first,
                             survivors.p + (size_t)lane * n_survivors, n_survivors, 0));
    report_bits("  lane by lane", differing(after, c.d_pool.get()));
}

static void time_case(uint32_t n_rows, uint32_t k) {
    random_source rng{k};
    const pith_geometry geo = {28, 28, 4, 128, 2};
    const uint32_t lanes = pith_n_lanes(&geo), n = n_rows - 128 - 32, n_survivors = k + 32;
    test_cache c(geo, true, std::vector<int32_t>(lanes, (int32_t)n_rows), rng);
    c.upload();
    std::vector<uint32_t> candidates, keep;
    for (uint32_t lane = 0; lane < lanes; lane++)
        for (uint32_t i = 0; i < n; i++) candidates.push_back(128 + i);
    for (uint32_t layer = 0; layer < 28; layer++) {
        const std::vector<uint32_t> s = random_subset(n, k, rng);
        keep.insert(keep.end(), s.begin(), s.end());
    }
    device<uint32_t> d_candidates(candidates), d_keep(keep), survivors((size_t)lanes * n_survivors);
    const pith_cuda_cache view = c.view();
    const pith_cuda_event e = {0, 0, 28, n};
    char name[128];
    std::snprintf(name, sizeof name, "7B, %u rows, %u kept, 28 layers: survivors", n_rows, k);
    report_time(name, median_seconds([&](int) {
                    OK(pith_cuda_survivors(&view, &e, d_candidates.p, 1, d_keep.p, k, survivors.p, n_survivors, 0));
                }),
                (double)lanes * (n + 2.0 * n_survivors) * 4);
    report_time("  compaction, bytes read and written", median_seconds([&](int) {
                    OK(pith_cuda_compact_layers(&view, &e, d_candidates.p, k, survivors.p, n_survivors, 0));
                }),
                2.0 * lanes * n_survivors * (512 + 4));
}

int main(int n_args, char **args) {
    const asked_for asked = begin(n_args, args);
    random_source rng{1};
    for (int i = 0; asked.checks && i < (asked.quick ? 2 : 8); i++) {
        const uint32_t d = 64 + 32 * (i % 7), n_rows = 300 + rng.below(3000), first = rng.below(130),
                       tail = rng.below(100);
        const uint32_t gaps = rng.below(60), n = n_rows - first - tail - gaps;
        random_case(d, n_rows, first, tail, gaps, 1 + rng.below(n - 1), i % 2, rng);
    }
    if (asked.checks) {
        random_case(128, 1000, 64, 32, 0, 904, true, rng); // nothing moves
        random_case(128, 1000, 64, 0, 0, 1, false, rng);   // nearly everything goes
        random_case(128, 1000, 0, 1, 20, 5, false, rng);
    }
    if (asked.times) time_case(1184, 256), time_case(9216, 8192);
    return finish();
}
