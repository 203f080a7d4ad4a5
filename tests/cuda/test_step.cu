// A decode step put together from its kernels, as replay.c does: the same bits however they follow each other. Then,
// for R1-Distill-Qwen-7B's shape, where a step's time goes: whole, with parts left out, and each kernel by itself, one
// after the other and in a chain, against what the same card's memory can be read at.
#include "cuda/append.h"
#include "cuda/attend_decode.h"
#include "cuda/bandwidth.h"
#include "cuda/launch.cuh"
#include "cuda/norm.h"
#include "cuda/product.h"
#include "test_cache.cuh"

#include <string>

struct shape {
    uint32_t n_layers, D, F, V, H, G, d;
};

enum kind { NORM, QKV, APPEND, ATTEND, OUT, GATE_UP, DOWN, HEAD, N_KINDS };
static const char *const KIND[] = {"norm", "qkv", "append", "attend", "out", "gate+up", "down", "head"};
static constexpr unsigned ALL = (1u << N_KINDS) - 1, BETWEEN = 1u << NORM | 1u << APPEND | 1u << ATTEND;

// How the launches of a step follow each other.
struct manner {
    const char *name;
    pith_cuda_follow product, between; // products and norms; append and attention
};
static const manner AFTER = {"one by one", PITH_CUDA_AFTER, PITH_CUDA_AFTER},
                    FIRST = {"products overlap", PITH_CUDA_OVERLAP, PITH_CUDA_AFTER},
                    OVERLAP = {"overlap", PITH_CUDA_OVERLAP, PITH_CUDA_OVERLAP},
                    EARLY = {"early", PITH_CUDA_EARLY, PITH_CUDA_EARLY};

// Words that are finite and small as two bf16: random signs and mantissas, one exponent. Codes may be anything.
__global__ void fill_kernel(uint32_t *p, size_t n, uint32_t keep, uint32_t set) {
    for (size_t i = blockIdx.x * (size_t)blockDim.x + threadIdx.x; i < n; i += (size_t)gridDim.x * blockDim.x) {
        uint64_t h = (i + 1) * 0x9e3779b97f4a7c15ull;
        h ^= h >> 29, h *= 0xbf58476d1ce4e5b9ull, h ^= h >> 32;
        p[i] = ((uint32_t)h & keep) | set;
    }
}
static void fill(void *p, size_t bytes, uint32_t keep, uint32_t set) {
    OK(pith::launch_kernel(fill_kernel, 2048, 256, 0, 0, (uint32_t *)p, bytes / 4, keep, set));
}
static constexpr uint32_t KEEP = 0x807f807fu, SMALL = 0x3c003c00u, NEAR_ONE = 0x3f003f00u;

struct matrix {
    pith_cuda_type type;
    uint32_t m, k;
    bool pair; // gate and up: m rows of each
    size_t at, bytes;
};

// Types of a file: "bf16", "q8_0", "q4_k_m" (whose more important half is Q6_K, chosen as llama.cpp does).
struct weights {
    shape s;
    std::string name;
    size_t bytes = 0;
    std::vector<matrix> all; // per layer q, k, v, out, gate and up, down; then head
    device<uint8_t> memory;

    static size_t bytes_of(const matrix &w) {
        const pith_quant_layout l = pith_quant_layout_of(w.type);
        const uint32_t n_slabs = w.pair ? (w.m + 31) / 32 : pith_quant_slabs(w.m);
        return l.block ? pith_quant_bytes(l, n_slabs, w.k) : (size_t)w.m * w.k * 2 * (w.pair ? 2 : 1);
    }
    void add(pith_cuda_type type, uint32_t m, uint32_t k, bool pair = false) {
        matrix w = {type, m, k, pair, bytes, 0};
        w.bytes = bytes_of(w);
        bytes += (w.bytes + 255) / 256 * 256;
        all.push_back(w);
    }
    static size_t list(weights &w) { // the bytes of all
        const shape &s = w.s;
        const bool mixed = w.name == "q4_k_m";
        const pith_cuda_type low = mixed ? PITH_CUDA_Q4_K : w.name == "q8_0" ? PITH_CUDA_Q8_0 : PITH_CUDA_BF16;
        for (uint32_t i = 0; i < s.n_layers; i++) {
            const uint32_t eighth = s.n_layers / 8;
            const bool more = i < eighth || i >= s.n_layers - eighth || (i - eighth) % 3 == 2;
            const pith_cuda_type high = mixed && more ? PITH_CUDA_Q6_K : low;
            w.add(low, s.H * s.d, s.D), w.add(low, s.G * s.d, s.D), w.add(high, s.G * s.d, s.D);
            w.add(low, s.D, s.H * s.d), w.add(low, s.F, s.D, true), w.add(high, s.D, s.F);
        }
        w.add(mixed ? PITH_CUDA_Q6_K : low, s.V, s.D);
        return w.bytes;
    }
    weights(const shape &s_, const char *name_) : s(s_), name(name_), memory(list(*this)) {
        const bool quant = name != "bf16";
        fill(memory.p, memory.n, quant ? ~0u : KEEP, quant ? 0 : SMALL);
        for (const matrix &w : all) { // scales that are finite
            const pith_quant_layout l = pith_quant_layout_of(w.type);
            if (!l.block) continue;
            const uint32_t n_slabs = w.pair ? (w.m + 31) / 32 : pith_quant_slabs(w.m);
            const size_t from =
                l.super_bytes ? pith_quant_supers_at(l, n_slabs, w.k) : pith_quant_scales_at(l, n_slabs, w.k);
            fill(memory.p + w.at + from, w.bytes - from, 0x03ff03ffu, 0x14001400u);
        }
    }
    uint8_t *data(const matrix &w) const { return memory.p + w.at; }
};

struct step {
    const weights &w;
    const shape &s;
    const uint32_t n;
    const std::vector<int32_t> rows; // of each sequence
    pith_geometry geo;
    size_t page_bytes;
    uint32_t cap;
    device<float> x0, x, qkv, parts_of_x, angles, ones, logits;
    device<uint16_t> norm, q, attention, wide;
    device<int32_t> seq, pos, pages, first, n_rows;
    device<uint8_t> pool, plan, parts;
    cudaStream_t stream;

    // Pages as caches that grow together have them: the next page of all lanes, side by side.
    std::vector<int32_t> page_lists(std::vector<int32_t> &first_of) const {
        const size_t n_lanes = pith_n_lanes(&geo);
        uint32_t most = 0;
        for (int32_t r : rows) most = std::max(most, (uint32_t)pith_pages_for((uint32_t)r));
        std::vector<int32_t> ids(n * n_lanes * most, 0);
        int32_t next = 0;
        for (uint32_t page = 0; page < most; page++)
            for (size_t lane = 0; lane < n * n_lanes; lane++)
                if (page < pith_pages_for((uint32_t)rows[lane / n_lanes])) ids[lane * most + page] = next++;
        for (size_t lane = 0; lane < n * n_lanes; lane++) first_of.push_back((int32_t)(lane * most));
        return ids;
    }
    size_t count_pages() const {
        size_t sum = 0;
        for (int32_t r : rows) sum += pith_pages_for((uint32_t)r) * pith_n_lanes(&geo);
        return sum;
    }
    uint32_t longest() const { return (uint32_t)*std::max_element(rows.begin(), rows.end()); }

    step(const weights &w_, const std::vector<int32_t> &rows_)
        : w(w_), s(w.s), n((uint32_t)rows_.size()), rows(rows_), geo{s.n_layers, s.H, s.G, s.d, 2},
          page_bytes(pith_page_bytes(&geo)), cap(pith_cuda_attend_items(&geo, n, longest())), x0((size_t)n * s.D),
          x((size_t)n * s.D), qkv(PITH_CUDA_MOST_PARTS * (size_t)n * (s.H + 2 * s.G) * s.d),
          parts_of_x(PITH_CUDA_MOST_PARTS * (size_t)n * s.D), angles((size_t)n * s.d), ones(s.D),
          logits((size_t)n * s.V), norm((size_t)n * s.D), q((size_t)n * s.H * s.d), attention(q.n),
          wide((size_t)n * s.F), seq(n), pos(n), pages(0), first(0), n_rows(n * pith_n_lanes(&geo)),
          pool(count_pages() * page_bytes), plan(pith_cuda_attend_plan_bytes(&geo, cap)),
          parts(pith_cuda_attend_parts_bytes(&geo, cap)) {
        OK(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
        std::vector<int32_t> first_of, of_lane, index, at;
        const std::vector<int32_t> ids = page_lists(first_of);
        reset(pages, ids), reset(first, first_of);
        for (uint32_t i = 0; i < n; i++) {
            of_lane.insert(of_lane.end(), pith_n_lanes(&geo), rows[i]);
            index.push_back((int32_t)i), at.push_back(rows[i] - 1);
        }
        n_rows.set(of_lane), seq.set(index), pos.set(at);
        ones.set(std::vector<float>(s.D, 1.0f));
        random_source rng{7};
        std::vector<float> values(x0.n);
        for (float &v : values) v = rng.normal();
        x0.set(values);
        fill(pool.p, pool.n, KEEP, NEAR_ONE);
        OK(pith_cuda_attend_reset(parts.p, 0));
        OK(cudaDeviceSynchronize());
    }
    step(const step &) = delete;
    ~step() { cudaStreamDestroy(stream); }
    static void reset(device<int32_t> &d, const std::vector<int32_t> &v) {
        cudaFree(d.p), d.n = v.size();
        OK(cudaMalloc(&d.p, v.size() * sizeof(int32_t)));
        d.set(v);
    }
    pith_cuda_cache cache() const { return {pool.p, page_bytes, geo, PITH_HALF_BF16, pages.p, first.p, n_rows.p}; }

    double bytes_of(kind k) const {
        double sum = 0;
        for (size_t i = 0; i < w.all.size(); i++) {
            const size_t at = i + 1 == w.all.size() ? 6 : i % 6;
            static const kind OF[] = {QKV, QKV, QKV, OUT, GATE_UP, DOWN, HEAD};
            if (OF[at] == k) sum += (double)w.all[i].bytes;
        }
        if (k == ATTEND)
            for (int32_t r : rows) sum += (double)r * s.G * s.n_layers * 4 * s.d;
        return sum;
    }

    struct launch_of {
        kind what;
        uint32_t layer;
        pith_cuda_product p;
        uint32_t parts[3]; // NORM: of the residual; APPEND: of q, k, v
    };
    using launches = std::vector<launch_of>;

    // Products of one x into columns of y, one launch for each run of one type.
    void multiply(launches &to_do, kind what, const matrix *const *m, const uint32_t *column, uint32_t count,
                  const uint16_t *from, void *y, uint32_t y_stride, pith_cuda_out out,
                  uint32_t *n_parts = nullptr) const {
        for (uint32_t i = 0, run; i < count; i += run) {
            pith_cuda_product p = {};
            p.type = m[i]->type, p.out = out, p.x = from, p.n = n, p.k = m[i]->k;
            for (run = 0; i + run < count && m[i + run]->type == p.type; run++) {
                uint8_t *to = (uint8_t *)y + column[i + run] * sizeof(float);
                p.matrix[run] = {w.data(*m[i + run]), nullptr, to, m[i + run]->m, y_stride, (size_t)n * y_stride};
            }
            p.n_matrices = run;
            if (out == PITH_CUDA_OUT_PARTS)
                for (uint32_t j = i; j < i + run; j++) n_parts[j] = pith_cuda_product_parts(&p);
            if (m[i]->pair && !pith_quant_layout_of(p.type).block) {
                p.matrix[1] = p.matrix[0], p.n_matrices = 2;
                p.matrix[1].w = w.data(*m[i]) + (size_t)m[i]->m * m[i]->k * 2;
            }
            to_do.push_back({what, 0, p, {}});
        }
    }

    // The kernels of those kinds, in the order of a step.
    launches list(unsigned kinds) const {
        launches to_do;
        const auto wants = [&](kind k) { return (kinds >> k & 1) != 0; };
        const uint32_t columns[] = {0, s.H * s.d, (s.H + s.G) * s.d}, width = (s.H + 2 * s.G) * s.d;
        uint32_t qkv_parts[3] = {1, 1, 1}, pending = 0; // parts of the residual that no norm has added
        const auto norm_of = [&](uint32_t layer) {
            if (wants(NORM)) to_do.push_back({NORM, layer, {}, {pending}}), pending = 0;
        };
        for (uint32_t layer = 0; layer < s.n_layers; layer++) {
            const matrix *m = &w.all[layer * 6];
            const matrix *qkv_of[] = {m, m + 1, m + 2}, *out_of[] = {m + 3}, *wide_of[] = {m + 4}, *down_of[] = {m + 5};
            norm_of(layer);
            if (wants(QKV))
                multiply(to_do, QKV, qkv_of, columns, 3, norm.p, qkv.p, width, PITH_CUDA_OUT_PARTS, qkv_parts);
            if (wants(APPEND)) to_do.push_back({APPEND, layer, {}, {qkv_parts[0], qkv_parts[1], qkv_parts[2]}});
            if (wants(ATTEND)) to_do.push_back({ATTEND, layer, {}, {}});
            if (wants(OUT))
                multiply(to_do, OUT, out_of, columns, 1, attention.p, parts_of_x.p, s.D, PITH_CUDA_OUT_PARTS, &pending);
            norm_of(layer);
            if (wants(GATE_UP))
                multiply(to_do, GATE_UP, wide_of, columns, 1, norm.p, wide.p, s.F, PITH_CUDA_OUT_SWIGLU);
            if (wants(DOWN))
                multiply(to_do, DOWN, down_of, columns, 1, wide.p, parts_of_x.p, s.D, PITH_CUDA_OUT_PARTS, &pending);
        }
        norm_of(s.n_layers);
        const matrix *head_of[] = {&w.all.back()};
        if (wants(HEAD)) multiply(to_do, HEAD, head_of, columns, 1, norm.p, logits.p, s.V, PITH_CUDA_OUT_F32);
        return to_do;
    }

    // Those kernels; `begins`: with what comes before the first layer.
    void launch(unsigned kinds, const manner &how, uint32_t n_blocks, bool begins) const {
        const pith_cuda_cache c = cache();
        pith_rope rope = {};
        rope.base = 1e6f, rope.freq_scale = 1, rope.attn_factor = 1, rope.n_rot = s.d, rope.neox = true;
        if (begins) OK(cudaMemcpyAsync(x.p, x0.p, x.n * sizeof(float), cudaMemcpyDeviceToDevice, stream));
        if (begins) OK(pith_cuda_rope_angles(&rope, nullptr, pos.p, n, angles.p, stream));
        if (begins) OK(pith_cuda_attend_plan(&c, seq.p, n, plan.p, cap, stream));
        launches to_do = list(kinds);
        bool chained = false; // the first kernel comes AFTER
        for (launch_of &l : to_do) {
            const bool between = l.what == APPEND || l.what == ATTEND;
            const pith_cuda_follow follow = !chained ? PITH_CUDA_AFTER : between ? how.between : how.product;
            chained = true;
            if (l.what == NORM) {
                const pith_cuda_norm a = {x.p,   parts_of_x.p, (size_t)n * s.D, l.parts[0], ones.p,
                                          1e-6f, norm.p,       false,           n,          s.D};
                OK(pith_cuda_norm_launch(&a, follow, stream));
            } else if (l.what == APPEND) {
                pith_cuda_append a = {};
                a.q = qkv.p, a.k = a.q + s.H * s.d, a.v = a.k + s.G * s.d, a.stride = (s.H + 2 * s.G) * s.d;
                a.part_stride = n * a.stride, a.q_parts = l.parts[0], a.k_parts = l.parts[1], a.v_parts = l.parts[2];
                a.angles = angles.p, a.n_rot = s.d, a.neox = true, a.pos = pos.p, a.seq = seq.p;
                a.q_out = q.p, a.layer = l.layer, a.n = n;
                OK(pith_cuda_append_decode(&c, nullptr, &a, follow, stream));
            } else if (l.what == ATTEND) {
                OK(pith_cuda_attend_decode(&c, l.layer, q.p, n, plan.p, parts.p, cap, n_blocks, attention.p,
                                           PITH_HALF_BF16, follow, stream));
            } else {
                l.p.follow = follow;
                OK(pith_cuda_product_launch(&l.p, stream));
            }
        }
    }

    cudaGraphExec_t capture(unsigned kinds, const manner &how, bool begins) const {
        uint32_t n_blocks;
        cudaGraph_t graph;
        cudaGraphExec_t run;
        OK(pith_cuda_attend_blocks(&geo, PITH_HALF_BF16, &n_blocks));
        OK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
        launch(kinds, how, n_blocks, begins);
        OK(cudaStreamEndCapture(stream, &graph));
        OK(cudaGraphInstantiate(&run, graph, 0));
        OK(cudaGraphDestroy(graph));
        return run;
    }

    // Median of 15, of a graph with those kernels. What they read is many times what L2 holds, but for a short cache.
    double seconds(unsigned kinds, const manner &how, bool begins) const {
        cudaGraphExec_t run = capture(kinds, how, begins);
        cudaEvent_t from, to;
        OK(cudaEventCreate(&from)), OK(cudaEventCreate(&to));
        std::vector<float> times;
        for (int i = 0; i < 18; i++) {
            float ms;
            OK(cudaEventRecord(from, stream)), OK(cudaGraphLaunch(run, stream)), OK(cudaEventRecord(to, stream));
            OK(cudaEventSynchronize(to)), OK(cudaEventElapsedTime(&ms, from, to));
            if (i >= 3) times.push_back(ms);
        }
        OK(cudaEventDestroy(from)), OK(cudaEventDestroy(to)), OK(cudaGraphExecDestroy(run));
        std::sort(times.begin(), times.end());
        return times[times.size() / 2] * 1e-3;
    }
};

// ------------------------------------------------------------------------------------------------------------- checks

struct result {
    std::vector<float> x, logits;
    std::vector<uint8_t> pool;
};
static size_t differing(const result &a, const result &b) {
    return differing(a.x, b.x) + differing(a.logits, b.logits) + differing(a.pool, b.pool);
}
static result run_once(const step &s, cudaGraphExec_t run) {
    OK(cudaGraphLaunch(run, s.stream));
    OK(cudaStreamSynchronize(s.stream));
    return {s.x.get(), s.logits.get(), s.pool.get()};
}

// Every replay begins with the same residual and writes the same rows: all of them have the same result.
static void check_chain(const shape &of, const char *type, const std::vector<int32_t> &rows, int n_runs) {
    const weights w(of, type);
    const step s(w, rows);
    cudaGraphExec_t run = s.capture(ALL, AFTER, true);
    const result want = run_once(s, run);
    OK(cudaGraphExecDestroy(run));
    size_t not_finite = 0;
    for (float v : want.logits) not_finite += !std::isfinite(v);
    char name[96];
    std::snprintf(name, sizeof name, "%s, %u sequences: logits that are numbers", type, s.n);
    report_bits(name, not_finite);
    for (const manner &how : {FIRST, OVERLAP, EARLY}) {
        run = s.capture(ALL, how, true);
        size_t wrong = 0;
        for (int i = 0; i < n_runs; i++) {
            OK(cudaMemset(s.logits.p, 0xff, s.logits.n * sizeof(float)));
            OK(cudaMemset(s.attention.p, 0xff, s.attention.n * 2));
            OK(cudaDeviceSynchronize());
            wrong += differing(want, run_once(s, run));
        }
        OK(cudaGraphExecDestroy(run));
        std::snprintf(name, sizeof name, "  the same bits, %s", how.name);
        report_bits(name, wrong);
    }
}

// -------------------------------------------------------------------------------------------------------------- times

static double read_bandwidth(const weights &w) {
    device<uint32_t> sink(1);
    double bandwidth;
    OK(pith_cuda_read_bandwidth(w.memory.p, std::min<size_t>(w.memory.n, (size_t)4 << 30) / 16 * 16, sink.p, &bandwidth,
                                0));
    return bandwidth;
}

static void time_step(const weights &w, uint32_t n, int32_t n_rows, double bandwidth) {
    const step s(w, std::vector<int32_t>(n, n_rows));
    double bytes = 0;
    for (int k = 0; k < N_KINDS; k++) bytes += s.bytes_of((kind)k);
    std::printf("%s, batch %u, %d rows: %.2f GB, %.2f ms at the read bandwidth\n ", w.name.c_str(), n, n_rows,
                bytes * 1e-9, bytes / bandwidth * 1e3);
    for (const manner &how : {AFTER, FIRST, OVERLAP, EARLY})
        std::printf(" %s %.3f", how.name, s.seconds(ALL, how, true) * 1e3);
    const double whole = s.seconds(ALL, EARLY, true);
    std::printf(" ms: %.0f tok/s, %.1f %%\n  without", n / whole, bytes / bandwidth / whole * 100);
    const struct {
        const char *name;
        unsigned kinds;
    } less[] = {{"attend", 1u << ATTEND},
                {"append and attend", 1u << ATTEND | 1u << APPEND},
                {"norms", 1u << NORM},
                {"all but products", BETWEEN}};
    for (const auto &l : less) std::printf(" %s %.3f", l.name, s.seconds(ALL & ~l.kinds, EARLY, true) * 1e3);
    std::printf(" ms\n");
    for (const manner &how : {AFTER, EARLY}) {
        std::printf("  us each (%% of the bandwidth), %s:", how.name);
        for (int k = 0; k < N_KINDS; k++) {
            const uint32_t count = k == HEAD ? 1 : k == NORM ? 2 * w.s.n_layers + 1 : w.s.n_layers;
            const double t = s.seconds(1u << k, how, false), least = s.bytes_of((kind)k) / bandwidth;
            std::printf(" %s %.1f", KIND[k], t / count * 1e6);
            if (least > 0) std::printf(" (%.0f)", least / t * 100);
        }
        std::printf("\n");
    }
    std::fflush(stdout);
}

int main(int n_args, char **args) {
    const asked_for asked = begin(n_args, args);
    for (const char *type : {"bf16", "q8_0", "q4_k_m"}) {
        if (!asked.checks) break;
        if (asked.quick) check_chain({2, 1792, 1280, 500, 14, 2, 128}, type, {700}, 1);
        if (asked.quick) continue;
        const shape wide = {3, 3584, 2560, 1000, 28, 4, 128};
        check_chain(wide, type, {1500}, 20);
        check_chain(wide, type, {5, 64, 700, 1500, 3000, 4500, 1, 129, 2049}, 10);
    }
    for (const char *type : {"bf16", "q8_0", "q4_k_m"}) {
        if (!asked.times) break;
        const weights w({28, 3584, 18944, 152064, 28, 4, 128}, type);
        const double bandwidth = read_bandwidth(w);
        std::printf("a plain read: %.0f GB/s\n", bandwidth * 1e-9);
        for (uint32_t n : {1u, 8u, 16u})
            for (int32_t rows : {1024, 9216, 32640})
                if (rows != 9216 || w.name == "bf16") time_step(w, n, rows, bandwidth);
    }
    return finish();
}
