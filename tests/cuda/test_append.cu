// Append: rows, positions, windows and queries against the host; nothing else in the pool changes.
#include "cuda/append.h"
#include "test_cache.cuh"

// x (d) normed and rotated in double; angles as the CPU's, in f32.
static void prepare(std::vector<double> &x, const std::vector<float> *norm, const pith_rope &rope,
                    const std::vector<float> &factors, int32_t pos) {
    const uint32_t d = (uint32_t)x.size(), half = rope.n_rot / 2;
    if (norm) {
        double sum = 0;
        for (double e : x) sum += e * e;
        const double scale = 1 / std::sqrt(sum / d + 1e-6);
        for (uint32_t i = 0; i < d; i++) x[i] *= scale * (*norm)[i];
    }
    double magnitude = rope.attn_factor;
    float low = 0, high = 0;
    if (rope.ext_factor != 0) {
        auto dim = [&](float rotations) {
            return (float)rope.n_rot * std::log((float)rope.n_ctx_orig / (rotations * 2 * (float)M_PI)) /
                   (2 * std::log(rope.base));
        };
        low = std::max(0.0f, std::floor(dim(rope.beta_fast))),
        high = std::min((float)rope.n_rot - 1, std::ceil(dim(rope.beta_slow)));
        magnitude *= 1 + 0.1 * std::log(1 / (double)rope.freq_scale);
    }
    float theta = (float)pos;
    const float theta_scale = std::pow(rope.base, -2.0f / (float)rope.n_rot);
    for (uint32_t i = 0; i < half; i++, theta *= theta_scale) {
        const float extra = theta / (factors.empty() ? 1.0f : factors[i]), inter = rope.freq_scale * extra;
        const float mix =
            rope.ext_factor * (1 - std::min(1.0f, std::max(0.0f, ((float)i - low) / std::max(0.001f, high - low))));
        const float angle = rope.ext_factor != 0 ? inter * (1 - mix) + extra * mix : inter; // f32, as ggml's
        const uint32_t a = rope.neox ? i : 2 * i, b = rope.neox ? i + half : 2 * i + 1;
        const double c = std::cos((double)angle) * magnitude, s = std::sin((double)angle) * magnitude, x0 = x[a],
                     x1 = x[b];
        x[a] = x0 * c - x1 * s, x[b] = x0 * s + x1 * c;
    }
}

static void one_case(const char *what, uint32_t H, uint32_t G, uint32_t d, bool bf16, bool prefill, pith_rope rope,
                     bool with_factors, bool with_norm) {
    random_source rng{H + d};
    const pith_geometry geo = {2, H, G, d, 2};
    const uint32_t n = prefill ? 150 : 5, layer = 1, cap = 8;
    const std::vector<int32_t> rows_of =
        prefill ? std::vector<int32_t>{9, 200} : std::vector<int32_t>{1, 64, 65, 700, 128};
    std::vector<int32_t> rows;
    for (int32_t r : rows_of) rows.insert(rows.end(), geo.n_layers * G, r);
    test_cache c(geo, bf16, rows, rng);
    c.upload();

    const size_t stride = (H + 2 * G) * d + 8;
    std::vector<float> qkv(n * stride), q_norm(d), k_norm(d), factors(with_factors ? rope.n_rot / 2 : 0);
    const bool exact = rope.n_rot == 0 && !with_norm;
    // As products leave them: in three parts q, one k, two v; what the others do not have must not be read.
    const uint32_t n_parts[] = {3, 1, 2};
    std::vector<float> parts(3 * qkv.size(), NAN);
    for (size_t i = 0; i < qkv.size(); i++) {
        const size_t column = i % stride, which = column < H * d ? 0 : column < (H + G) * d ? 1 : 2;
        qkv[i] = 0;
        for (uint32_t part = 0; part < n_parts[which]; part++)
            qkv[i] += parts[part * qkv.size() + i] = rng.normal() * (exact ? 3.0f : 1.0f);
    }
    for (float &x : q_norm) x = 1 + 0.1f * rng.normal();
    for (float &x : k_norm) x = 1 + 0.1f * rng.normal();
    for (size_t i = 0; i < factors.size(); i++) factors[i] = 1 + (float)(i % 8);
    std::vector<int32_t> pos, slot, seq;
    for (uint32_t i = 0; i < n; i++) {
        seq.push_back(prefill ? 1 : i == 2 ? -1 : (int32_t)i); // decode: a padding token in the middle
        pos.push_back(prefill ? 50 + (int32_t)i : 30000 / (int32_t)(i + 1));
        slot.push_back(prefill ? (i + cap >= n ? (int32_t)(i % cap) : -1) : i == 1 ? -1 : (int32_t)i);
    }
    device<float> d_qkv(parts), d_q_norm(q_norm), d_k_norm(k_norm), d_factors(factors),
        angles((size_t)n * std::max(rope.n_rot, 2u));
    device<int32_t> d_pos(pos), d_slot(slot), d_seq(seq);
    device<uint16_t> q_out((size_t)n * H * d);
    const uint32_t n_seqs = c.n_seqs;
    const size_t window_size = (size_t)2 * cap * H * d;
    device<float> windows(n_seqs * window_size);
    std::vector<float *> window_at(n_seqs);
    for (uint32_t s = 0; s < n_seqs; s++) window_at[s] = windows.p + s * window_size;
    device<float *> d_window_at(window_at);
    device<uint32_t> d_caps(std::vector<uint32_t>(n_seqs, cap));

    OK(pith_cuda_rope_angles(&rope, with_factors ? d_factors.p : nullptr, d_pos.p, n, angles.p, 0));
    pith_cuda_append a = {};
    a.q = d_qkv.p, a.k = d_qkv.p + H * d, a.v = d_qkv.p + (H + G) * d, a.stride = stride;
    a.part_stride = qkv.size(), a.q_parts = n_parts[0], a.k_parts = n_parts[1], a.v_parts = n_parts[2];
    a.q_norm = with_norm ? d_q_norm.p : nullptr, a.k_norm = with_norm ? d_k_norm.p : nullptr, a.norm_eps = 1e-6f;
    a.angles = angles.p, a.n_rot = rope.n_rot, a.neox = rope.neox, a.pos = d_pos.p, a.slot = d_slot.p, a.seq = d_seq.p;
    a.q_out = q_out.p, a.layer = layer, a.n = n;
    const pith_cuda_cache view = c.view();
    const pith_cuda_windows w = {d_window_at.p, d_caps.p};
    const auto append = [&](pith_cuda_follow follow) {
        OK(prefill ? pith_cuda_append_prefill(&view, &w, &a, 0) : pith_cuda_append_decode(&view, &w, &a, follow, 0));
    };
    append(PITH_CUDA_AFTER);

    const std::vector<uint8_t> before = c.pool;
    c.pool = c.d_pool.get();
    const std::vector<uint16_t> got_q = q_out.get();
    const std::vector<float> got_w = windows.get();
    std::vector<uint8_t> touched(before.size(), 0);
    std::vector<char> window_touched(got_w.size(), 0);
    double error = 0;
    size_t wrong = 0;
    const double rounding = bf16 ? 0x1p-8 : 0x1p-11; // half a unit of the last place, relative to the smallest
    auto check = [&](double got, double want, double relative) {
        const double e = std::fabs(got - want) / (std::max(std::fabs(want), 0.25) * relative);
        if (!(e <= error)) error = e;
    };
    for (uint32_t i = 0; i < n; i++) {
        const int32_t s = seq[i];
        for (uint32_t h = 0; h < H + 2 * G; h++) {
            const bool is_q = h < H, is_v = h >= H + G;
            std::vector<double> x(d);
            for (uint32_t e = 0; e < d; e++) x[e] = qkv[i * stride + (size_t)h * d + e];
            if (!is_v) prepare(x, with_norm ? (is_q ? &q_norm : &k_norm) : nullptr, rope, factors, pos[i]);
            const uint16_t *row = nullptr;
            if (is_q) row = &got_q[((size_t)i * H + h) * d];
            if (s < 0) {
                for (uint32_t e = 0; is_q && e < d; e++) wrong += row[e] != 0xffff;
                continue;
            }
            if (!is_q) {
                const size_t entry = c.entry((uint32_t)s, layer, (h - H) % G);
                const uint32_t r = (uint32_t)c.n_rows[entry] - (prefill ? n - i : 1);
                row = is_v ? c.v(entry, r) : c.k(entry, r);
                std::memset(&touched[(size_t)((const uint8_t *)row - c.pool.data())], 1, d * 2);
                std::memset(&touched[(size_t)((const uint8_t *)c.pos(entry, r) - c.pool.data())], 1, 4);
                wrong += *c.pos(entry, r) != pos[i];
            }
            for (uint32_t e = 0; e < d; e++) {
                if (exact || is_v) wrong += row[e] != to_bits((float)x[e], bf16);
                else check(from_bits(row[e], bf16), x[e], 1.01 * rounding + 2e-5);
            }
            if (!is_q || slot[i] < 0) continue;
            const size_t at = (size_t)s * window_size + (((size_t)layer * cap + slot[i]) * H + h) * d;
            for (uint32_t e = 0; e < d; e++) {
                window_touched[at + e] = 1;
                if (exact) wrong += got_w[at + e] != (float)x[e];
                else check(got_w[at + e], x[e], 2e-5);
            }
        }
    }
    for (size_t i = 0; i < before.size(); i++) wrong += !touched[i] && before[i] != c.pool[i];
    for (size_t i = 0; i < got_w.size(); i++) wrong += !window_touched[i] && pith_f32_bits(got_w[i]) != 0xffffffffu;
    char name[128];
    std::snprintf(name, sizeof name, "%s, %s, H %u G %u d %u %s: values", what, prefill ? "prefill" : "decode", H, G, d,
                  bf16 ? "bf16" : "f16");
    report(name, error, 1.0); // in units of the rounding
    report_bits("  exact values, positions, bytes beside them", wrong);
    const std::vector<uint8_t> once = c.pool;
    append(PITH_CUDA_EARLY);
    report_bits("  the same again", differing(once, c.d_pool.get()));
}

int main(int n_args, char **args) {
    const asked_for asked = begin(n_args, args);
    for (int i = 0; asked.checks && i < 4; i++) {
        const bool bf16 = i & 1, prefill = i & 2;
        pith_rope rope = {};
        rope.base = 1e6f, rope.freq_scale = 1, rope.attn_factor = 1, rope.beta_fast = 32, rope.beta_slow = 1,
        rope.n_ctx_orig = 32768;
        one_case("no rotation", 28, 4, 128, bf16, prefill, rope, false, false);
        rope.n_rot = 128, rope.neox = true;
        one_case("neox", 28, 4, 128, bf16, prefill, rope, false, false);
        one_case("neox with norm", 40, 8, 128, bf16, prefill, rope, false, true);
        rope.neox = false, rope.base = 5e5f;
        one_case("pairs with factors", 8, 2, 128, bf16, prefill, rope, true, false);
        rope.n_rot = 64, rope.freq_scale = 0.25f;
        one_case("linear, half of the head", 6, 2, 96, bf16, prefill, rope, false, false);
        rope.ext_factor = 1, rope.neox = true;
        one_case("YaRN", 4, 4, 64, bf16, prefill, rope, false, false);
        rope.n_rot = 256;
        one_case("YaRN", 4, 1, 256, bf16, prefill, rope, false, true);
    }
    return finish();
}
