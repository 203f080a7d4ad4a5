// Products of a decode step on the device: against a double-precision loop, exactly where inputs allow; the same bits
// in three runs, alone and in any company; every output written and nothing beside. Then times: `test_product time`
// alone, `test_product check` without them; PITH_TEST_QUICK for fewer cases.
#include "cuda/gemm.h"
#include "cuda/launch.cuh"
#include "cuda/norm.h"
#include "cuda/product.h"
#include "product_ref.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>

static int n_failed;

#define CUDA(call)                                                                                                     \
    do {                                                                                                               \
        const cudaError_t e_ = (call);                                                                                 \
        if (e_ != cudaSuccess) {                                                                                       \
            printf("%s:%d: %s: %s\n", __FILE__, __LINE__, #call, cudaGetErrorString(e_));                              \
            exit(2);                                                                                                   \
        }                                                                                                              \
    } while (0)

template <typename T> struct Device { // n elements of device memory
    T *p = nullptr;
    size_t n;
    explicit Device(size_t n_) : n(n_) { CUDA(cudaMalloc(&p, n * sizeof(T))); }
    Device(const Device &) = delete;
    ~Device() { cudaFree(p); }
    void put(const T *from) { CUDA(cudaMemcpy(p, from, n * sizeof(T), cudaMemcpyHostToDevice)); }
    std::vector<T> get() const {
        std::vector<T> v(n);
        CUDA(cudaMemcpy(v.data(), p, n * sizeof(T), cudaMemcpyDeviceToHost));
        return v;
    }
};

static void report(const char *what, double used, uint64_t n_wrong) {
    const bool ok = used <= 1 && !n_wrong; // false for NaN
    printf("%-72s %s, %.3f of the bound, %llu wrong\n", what, ok ? "ok" : "FAILED", used, (unsigned long long)n_wrong);
    n_failed += !ok;
}

static float from16(uint16_t v, bool f16) { return f16 ? pith_f16_to_f32(v) : pith_bf16_to_f32(v); }

struct Case {
    pith_cuda_type type;
    pith_cuda_out out;
    uint32_t m[3], n_matrices, k, n;
    bool exact, bias;
};

static void check(const Case &c, Random &r) {
    const bool quant = is_quant(c.type), swiglu = c.out == PITH_CUDA_OUT_SWIGLU, f16 = c.type == PITH_CUDA_F16;
    const bool out16 = swiglu || c.out == PITH_CUDA_OUT_16;
    const uint32_t n_files = swiglu ? 2 : c.n_matrices, n_outputs = swiglu ? 1 : c.n_matrices, PAD = 3;

    const std::vector<uint16_t> x = random_activations(c.type, c.n, c.k, c.exact, r);
    Device<uint16_t> dx(x.size());
    dx.put(x.data());

    std::vector<uint8_t> file[3];
    std::vector<float> bias[3];
    uint8_t *dw[3] = {};
    float *dbias[3] = {};
    for (uint32_t i = 0; i < n_files; i++) {
        const uint32_t m = swiglu ? c.m[0] : c.m[i];
        file[i] = random_weights(c.type, m, c.k, c.exact, r);
        bias[i].resize(m);
        for (auto &b : bias[i]) b = c.exact ? (float)r.between(-8, 8) : r.unit();
        CUDA(cudaMalloc(&dbias[i], m * 4));
        CUDA(cudaMemcpy(dbias[i], bias[i].data(), m * 4, cudaMemcpyHostToDevice));
    }
    for (uint32_t i = 0; i < (swiglu && quant ? 1 : n_files); i++) {
        std::vector<uint8_t> w = file[i];
        if (quant) {
            const pith_quant_layout l = pith_quant_layout_of(c.type);
            const uint32_t m = swiglu ? c.m[0] : c.m[i], own = swiglu ? 32 : 64, n_slabs = (m + own - 1) / own;
            w.resize(pith_quant_bytes(l, n_slabs, c.k));
            if (!pith_quant_pack(c.type, file[i].data(), swiglu ? file[1].data() : nullptr, m, c.k, 0, n_slabs,
                                 w.data()))
                exit(3);
        }
        CUDA(cudaMalloc(&dw[i], w.size()));
        CUDA(cudaMemcpy(dw[i], w.data(), w.size(), cudaMemcpyHostToDevice));
    }

    pith_cuda_product p = {};
    p.type = c.type, p.out = c.out, p.x = dx.p, p.n = c.n, p.k = c.k;
    p.n_matrices = swiglu && quant ? 1 : n_files;
    std::vector<uint8_t> y0[3], first[3];
    uint8_t *dy[3] = {};
    const size_t elt = out16 ? 2 : 4;
    for (uint32_t i = 0; i < p.n_matrices; i++) {
        const uint32_t m = swiglu ? c.m[0] : c.m[i];
        p.matrix[i].w = dw[i], p.matrix[i].m = m, p.matrix[i].y_stride = m + PAD;
        p.matrix[i].bias = c.bias && !(swiglu && quant) ? dbias[i] : nullptr;
        if (i >= n_outputs) continue;
        y0[i].assign((size_t)c.n * (m + PAD) * elt, 0xff); // NaN in every format
        CUDA(cudaMalloc(&dy[i], y0[i].size()));
        p.matrix[i].y = dy[i];
    }

    const bool in_parts = c.out == PITH_CUDA_OUT_PARTS;
    const uint32_t n_parts = in_parts ? pith_cuda_product_parts(&p) : 1;
    if (in_parts) // (parts, n, stride)
        for (uint32_t i = 0; i < n_outputs; i++) {
            p.matrix[i].part_stride = y0[i].size() / 4;
            y0[i].resize(y0[i].size() * n_parts, 0xff);
            CUDA(cudaFree(dy[i]));
            CUDA(cudaMalloc(&dy[i], y0[i].size()));
            p.matrix[i].y = dy[i];
        }

    uint64_t n_wrong = 0;
    for (int run = 0; run < 3; run++) { // the second and third as in a chain
        p.follow = (pith_cuda_follow)run;
        for (uint32_t i = 0; i < n_outputs; i++)
            CUDA(cudaMemcpy(dy[i], y0[i].data(), y0[i].size(), cudaMemcpyHostToDevice));
        CUDA(pith_cuda_product_launch(&p, 0));
        CUDA(cudaDeviceSynchronize());
        for (uint32_t i = 0; i < n_outputs; i++) {
            std::vector<uint8_t> y(y0[i].size());
            CUDA(cudaMemcpy(y.data(), dy[i], y.size(), cudaMemcpyDeviceToHost));
            if (!run) first[i] = y;
            else n_wrong += y != first[i];
        }
    }

    // Alone: token by token gives the bits that it has among the others.
    for (uint32_t t = 0; t<c.n; t += c.n> 9 ? 7 : 1) {
        pith_cuda_product one = p;
        one.n = 1, one.x = dx.p + (size_t)t * c.k, one.follow = PITH_CUDA_AFTER;
        for (uint32_t i = 0; i < n_outputs; i++) CUDA(cudaMemset(dy[i], 0xff, y0[i].size()));
        CUDA(pith_cuda_product_launch(&one, 0));
        CUDA(cudaDeviceSynchronize());
        for (uint32_t i = 0; i < n_outputs; i++) {
            const size_t row = (size_t)p.matrix[i].y_stride * elt;
            std::vector<uint8_t> y(row);
            for (uint32_t part = 0; part < n_parts; part++) {
                const size_t at = part * p.matrix[i].part_stride * elt;
                CUDA(cudaMemcpy(y.data(), dy[i] + at, row, cudaMemcpyDeviceToHost));
                n_wrong += memcmp(y.data(), &first[i][at + t * row], row) != 0;
            }
        }
    }

    double used = 0;
    std::vector<std::vector<double>> seen;
    for (uint32_t t = 0; t < c.n; t++) seen.push_back(activations_seen(c.type, &x[(size_t)t * c.k], c.k));
    for (uint32_t i = 0; i < n_outputs; i++) {
        const uint32_t m = p.matrix[i].m, stride = m + PAD;
        for (uint32_t row = 0; row < stride; row++)
            for (uint32_t t = 0; t < c.n; t++) {
                const size_t at = ((size_t)t * stride + row) * elt;
                if (row >= m) { // padding stays
                    n_wrong += memcmp(&first[i][at], &y0[i][at], elt) != 0;
                    continue;
                }
                double sum[2] = {0, 0}, size[2] = {0, 0};
                for (uint32_t f = 0; f < (swiglu ? 2u : 1u); f++) {
                    const uint8_t *w = &file[i + f][row * row_bytes(c.type, c.k)];
                    for (uint32_t j = 0; j < c.k; j++) {
                        const double v = weight_at(c.type, w, j) * seen[t][j];
                        sum[f] += v, size[f] += fabs(v);
                    }
                    if (p.matrix[i + f].bias || (f && c.bias && !quant)) sum[f] += bias[i + f][row];
                    size[f] = (size[f] + 1) * (c.k / 8 + 16) / 16777216.; // a chain of k/16 additions at most, doubled
                    // Minima are taken from sums that are larger than what remains.
                    if (c.type == PITH_CUDA_Q4_K) size[f] *= 4;
                }
                double want = sum[0], bound = size[0], got;
                if (swiglu) {
                    const double silu = sum[0] / (1 + exp(-sum[0]));
                    want = silu * sum[1];
                    bound = 1.2 * size[0] * fabs(sum[1]) + size[1] * fabs(silu) + 2e-6 * fabs(want);
                }
                if (out16) got = from16(get16(&first[i][at]), f16);
                else {
                    float v;
                    memcpy(&v, &first[i][at], 4);
                    for (uint32_t part = 1; part < n_parts; part++) {
                        float more;
                        memcpy(&more, &first[i][at + part * p.matrix[i].part_stride * 4], 4);
                        v += more;
                    }
                    got = v;
                }
                if (c.exact && !swiglu) {
                    const double rounded =
                        !out16 ? want : from16(f16 ? pith_f32_to_f16((float)want) : pith_f32_to_bf16((float)want), f16);
                    n_wrong += got != rounded;
                    continue;
                }
                if (out16) bound += fabs(want) / (f16 ? 2048. : 256.) + 1e-7;
                const double here = fabs(got - want) / bound;
                if (!(here <= used)) used = here;
            }
    }
    static const char *const OUT[] = {"f32", "add", "parts", "16", "swiglu"};
    char line[128];
    snprintf(line, sizeof line, "%s %s (%u%s, %u) n %u%s%s", TYPE_NAME[c.type], OUT[c.out], c.m[0],
             c.n_matrices > 1 && !swiglu ? ", ..." : "", c.k, c.n, c.exact ? " exact" : "", c.bias ? " bias" : "");
    report(line, used, n_wrong);
    for (int i = 0; i < 3; i++) cudaFree(dw[i]), cudaFree(dbias[i]), cudaFree(dy[i]);
}

// Activations that no scale fits: a block of zeros adds nothing, one that is tiny nearly nothing; an infinity or NaN is
// in all of its token's sums and in no other's.
static void check_extremes(pith_cuda_type type, Random &r) {
    const uint32_t m = 64, k = 512, n = 5;
    const pith_quant_layout l = pith_quant_layout_of(type);
    const auto file = random_weights(type, m, k, false, r);
    std::vector<uint8_t> w(pith_quant_bytes(l, 1, k));
    if (!pith_quant_pack(type, file.data(), nullptr, m, k, 0, 1, w.data())) exit(3);
    std::vector<uint16_t> x = random_activations(type, n, k, false, r);
    for (uint32_t i = 0; i < k; i++) x[i] = 0, x[k + i] = i % 2 ? 0x0001 : 0x8000; // the least number, minus zero
    x[2 * k + 77] = 0x7f80, x[3 * k + 300] = 0xffc0;
    Device<uint8_t> dw(w.size());
    Device<uint16_t> dx(x.size());
    Device<float> dy(n * m);
    dw.put(w.data()), dx.put(x.data());
    uint64_t n_wrong = 0;
    for (uint32_t from = 0; from < n;
         from++) { // all of them, then each but the first without those before it: one alone
        pith_cuda_product p = {};
        p.type = type, p.out = PITH_CUDA_OUT_F32, p.x = dx.p + from * k, p.n = n - from, p.k = k, p.n_matrices = 1;
        p.matrix[0].w = dw.p, p.matrix[0].y = dy.p + from * m, p.matrix[0].m = p.matrix[0].y_stride = m;
        CUDA(pith_cuda_product_launch(&p, 0));
        CUDA(cudaDeviceSynchronize());
        const auto y = dy.get();
        for (uint32_t t = from; t < n; t++)
            for (uint32_t row = 0; row < m; row++) {
                const float v = y[t * m + row];
                n_wrong += t == 0 ? v != 0 : t == 1 ? !(fabsf(v) < 1e-30f) : std::isfinite(v) != (t == 4);
            }
    }
    char line[64];
    snprintf(line, sizeof line, "extremes %s", TYPE_NAME[type]);
    report(line, 0, n_wrong);
}

static void check_norm(uint32_t n, uint32_t d, uint32_t n_parts, Random &r) {
    const size_t part_stride = (size_t)n * d + 4;
    std::vector<float> x((size_t)n * d), w(d), parts(n_parts * part_stride);
    for (auto &v : x) v = 30 * r.unit();
    for (auto &v : w) v = r.unit();
    for (auto &v : parts) v = 10 * r.unit();
    Device<float> dx(x.size()), dw(d), dparts(parts.size() + 4);
    Device<uint16_t> dy(x.size());
    dx.put(x.data()), dw.put(w.data());
    if (n_parts) dparts.put(std::vector<float>(parts).data());
    CUDA(cudaMemset(dy.p, 0xff, x.size() * 2));
    const pith_cuda_norm args = {dx.p, dparts.p, part_stride, n_parts, dw.p, 1e-6f, dy.p, false, n, d};
    CUDA(pith_cuda_norm_launch(&args, PITH_CUDA_EARLY, 0));
    CUDA(cudaDeviceSynchronize());
    const auto y = dy.get();
    const auto left = dx.get();
    double used = 0;
    uint64_t n_wrong = 0;
    for (uint32_t t = 0; t < n; t++) {
        double s = 0;
        for (uint32_t i = 0; i < d; i++) {
            float &v = x[(size_t)t * d + i];
            for (uint32_t part = 0; part < n_parts; part++) v += parts[part * part_stride + (size_t)t * d + i];
            n_wrong += left[(size_t)t * d + i] != v;
            s += (double)v * v;
        }
        for (uint32_t i = 0; i < d; i++) {
            const double want = x[(size_t)t * d + i] / sqrt(s / d + 1e-6) * w[i];
            const double here = fabs(pith_bf16_to_f32(y[(size_t)t * d + i]) - want) / (fabs(want) / 250 + 1e-30);
            if (!(here <= used)) used = here;
        }
    }
    char line[64];
    snprintf(line, sizeof line, "norm (%u, %u) and %u parts", n, d, n_parts);
    report(line, used, n_wrong);
}

static void check_dequant(pith_cuda_type type, uint32_t m, uint32_t k, Random &r) {
    const pith_quant_layout l = pith_quant_layout_of(type);
    const auto file = random_weights(type, m, k, false, r);
    std::vector<uint8_t> packed(pith_quant_bytes(l, pith_quant_slabs(m), k));
    if (!pith_quant_pack(type, file.data(), nullptr, m, k, 0, pith_quant_slabs(m), packed.data())) exit(3);
    Device<uint8_t> dw(packed.size());
    Device<uint16_t> dy((size_t)m * k);
    dw.put(packed.data());
    CUDA(cudaMemset(dy.p, 0xff, dy.n * 2));
    for (uint32_t row = 0; row < m; row += 128) // slabs of rows, as a product of many tokens takes them
        CUDA(pith_cuda_dequant_launch(type, dw.p, m, k, row, 128, dy.p + (size_t)row * k, 0));
    const auto y = dy.get();
    double used = 0;
    for (uint32_t row = 0; row < m; row++)
        for (uint32_t i = 0; i < k; i++) {
            const double want = weight_at(type, &file[row * row_bytes(type, k)], i);
            const double here = fabs(pith_bf16_to_f32(y[(size_t)row * k + i]) - want) / (fabs(want) / 256 + 1e-9);
            if (!(here <= used)) used = here;
        }
    char line[64];
    snprintf(line, sizeof line, "dequant %s (%u, %u)", TYPE_NAME[type], m, k);
    report(line, used, 0);
}

static void check_gemm(uint32_t m, uint32_t k, uint32_t n, pith_cuda_out out, Random &r) {
    const auto w = random_weights(PITH_CUDA_BF16, m, k, true, r);
    std::vector<uint16_t> x((size_t)n * k);
    for (auto &v : x) v = pith_f32_to_bf16((float)r.between(-4, 4));
    std::vector<float> y0((size_t)n * m);
    for (auto &v : y0) v = out == PITH_CUDA_OUT_ADD ? (float)r.between(-8, 8) : NAN;
    const size_t scratch_bytes = 32u << 20;
    Device<uint8_t> dw(w.size()), scratch(scratch_bytes);
    Device<uint16_t> dx(x.size());
    Device<float> dy(y0.size());
    dw.put(w.data()), dx.put(x.data()), dy.put(y0.data());
    pith_cuda_gemm *g;
    CUDA(pith_cuda_gemm_create(&g));
    const pith_cuda_gemm_shape shape = {m, k, n, m, false, out};
    CUDA(pith_cuda_gemm_prepare(g, &shape, scratch_bytes));
    CUDA(pith_cuda_gemm_launch(g, &shape, dw.p, dx.p, dy.p, scratch.p, 0));
    CUDA(cudaDeviceSynchronize());
    const auto y = dy.get();
    uint64_t n_wrong = 0;
    for (uint32_t t = 0; t < n; t++)
        for (uint32_t row = 0; row < m; row++) {
            double sum = out == PITH_CUDA_OUT_ADD ? y0[(size_t)t * m + row] : 0;
            for (uint32_t j = 0; j < k; j++)
                sum += weight_at(PITH_CUDA_BF16, &w[(size_t)row * k * 2], j) * pith_bf16_to_f32(x[(size_t)t * k + j]);
            n_wrong += y[(size_t)t * m + row] != sum;
        }
    char line[64];
    snprintf(line, sizeof line, "gemm (%u, %u) n %u exact", m, k, n);
    report(line, 0, n_wrong);
    pith_cuda_gemm_free(g);
}

// --------------------------------------------------------------------------------------------------------------- times

// Words that are finite and small as two bf16, two f16 or codes: random signs and mantissas, one exponent.
__global__ void fill(uint32_t *p, size_t n, uint32_t keep, uint32_t set) {
    for (size_t i = blockIdx.x * (size_t)blockDim.x + threadIdx.x; i < n; i += (size_t)gridDim.x * blockDim.x) {
        uint64_t h = (i + 1) * 0x9e3779b97f4a7c15ull;
        h ^= h >> 29, h *= 0xbf58476d1ce4e5b9ull, h ^= h >> 32;
        p[i] = ((uint32_t)h & keep) | set;
    }
}

// Medians, over enough copies of the weights that none is in L2 when its turn comes.
static void time_product(pith_cuda_type type, pith_cuda_out out, uint32_t n_matrices, const uint32_t *m, uint32_t k,
                         uint32_t n) {
    const bool quant = is_quant(type), swiglu = out == PITH_CUDA_OUT_SWIGLU;
    const pith_quant_layout l = pith_quant_layout_of(type);
    size_t bytes[3] = {}, total = 0;
    if (swiglu && quant) n_matrices = 1;
    for (uint32_t i = 0; i < n_matrices; i++) {
        bytes[i] =
            quant ? pith_quant_bytes(l, swiglu ? (m[i] + 31) / 32 : pith_quant_slabs(m[i]), k) : (size_t)m[i] * k * 2;
        total += bytes[i];
    }
    const uint32_t n_copies = (uint32_t)(400000000 / total) + 2;
    const size_t stride = (total + 255) / 256 * 256;
    Device<uint8_t> w(stride * n_copies);
    Device<uint16_t> x((size_t)n * k);
    Device<float> y((size_t)n * (m[0] + m[1] + m[2]) * PITH_CUDA_MOST_PARTS);
    const uint32_t keep = type == PITH_CUDA_F16 ? 0x83ff83ffu : 0x807f807fu,
                   set = type == PITH_CUDA_F16 ? 0x24002400u : 0x3c003c00u;
    CUDA(pith::launch_kernel(fill, 1024, 256, 0, 0, (uint32_t *)x.p, x.n / 2, keep, set));
    CUDA(pith::launch_kernel(fill, 1024, 256, 0, 0, (uint32_t *)w.p, w.n / 4, quant ? ~0u : keep, quant ? 0 : set));
    if (quant) // scales that are finite
        for (uint32_t c = 0; c < n_copies; c++) {
            size_t at = c * stride;
            for (uint32_t i = 0; i < n_matrices; at += bytes[i++]) {
                const uint32_t n_slabs = swiglu ? (m[i] + 31) / 32 : pith_quant_slabs(m[i]);
                const size_t from =
                    l.super_bytes ? pith_quant_supers_at(l, n_slabs, k) : pith_quant_scales_at(l, n_slabs, k);
                CUDA(pith::launch_kernel(fill, 256, 256, 0, 0, (uint32_t *)(w.p + at + from), (bytes[i] - from) / 4,
                                         0x03ff03ffu, 0x14001400u));
            }
        }
    CUDA(cudaMemset(y.p, 0, y.n * 4));
    CUDA(cudaDeviceSynchronize());

    cudaEvent_t begin, end;
    CUDA(cudaEventCreate(&begin));
    CUDA(cudaEventCreate(&end));
    const auto product = [&](uint32_t copy) {
        pith_cuda_product p = {};
        p.type = type, p.out = out, p.x = x.p, p.n = n, p.k = k, p.n_matrices = n_matrices;
        uint8_t *at = w.p + copy % n_copies * stride;
        float *to = y.p;
        for (uint32_t j = 0; j < n_matrices; j++) {
            p.matrix[j].w = at, p.matrix[j].y = to, p.matrix[j].m = m[j], p.matrix[j].y_stride = m[j];
            p.matrix[j].part_stride = (size_t)n * (m[0] + m[1] + m[2]);
            at += bytes[j], to += (size_t)n * m[j];
        }
        return p;
    };
    // One after the other, and in a chain: recorded, so that the host's time for a launch is not what is seen.
    const uint32_t n_launches = std::max(n_copies, 28u);
    cudaStream_t stream;
    CUDA(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    double us[2];
    for (int how = 0; how < 2; how++) {
        cudaGraph_t graph;
        cudaGraphExec_t recorded;
        CUDA(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
        for (uint32_t i = 0; i < n_launches; i++) {
            pith_cuda_product p = product(i);
            p.follow = how && i ? PITH_CUDA_EARLY : PITH_CUDA_AFTER;
            CUDA(pith_cuda_product_launch(&p, stream));
        }
        CUDA(cudaStreamEndCapture(stream, &graph));
        CUDA(cudaGraphInstantiate(&recorded, graph, 0));
        CUDA(cudaGraphDestroy(graph));
        std::vector<float> ms;
        for (int run = 0; run < 12; run++) {
            float t;
            CUDA(cudaEventRecord(begin, stream));
            CUDA(cudaGraphLaunch(recorded, stream));
            CUDA(cudaEventRecord(end, stream));
            CUDA(cudaEventSynchronize(end));
            CUDA(cudaEventElapsedTime(&t, begin, end));
            if (run >= 3) ms.push_back(t);
        }
        CUDA(cudaGraphExecDestroy(recorded));
        std::sort(ms.begin(), ms.end());
        us[how] = ms[ms.size() / 2] * 1e3 / n_launches;
    }
    CUDA(cudaStreamDestroy(stream));
    CUDA(cudaEventDestroy(begin));
    CUDA(cudaEventDestroy(end));
    printf("time %s%s (%u, %u) n %2u: one by one %7.2f us, in a chain %7.2f us, %5.0f GB/s\n", TYPE_NAME[type],
           swiglu ? " swiglu" : "", m[0] + (swiglu ? m[0] : m[1] + m[2]), k, n, us[0], us[1], total / us[1] / 1e3);
}

// The same product by cuBLASLt, with the algorithm that it recommends for n tokens.
static void time_blas(uint32_t m, uint32_t k, uint32_t n) {
    const size_t bytes = (size_t)m * k * 2, scratch_bytes = 32u << 20;
    const uint32_t n_copies = (uint32_t)(400000000 / bytes) + 2;
    Device<uint8_t> w(bytes * n_copies), scratch(scratch_bytes);
    Device<uint16_t> x((size_t)n * k);
    Device<float> y((size_t)n * m);
    CUDA(pith::launch_kernel(fill, 1024, 256, 0, 0, (uint32_t *)x.p, x.n / 2, 0x807f807fu, 0x3c003c00u));
    CUDA(pith::launch_kernel(fill, 1024, 256, 0, 0, (uint32_t *)w.p, w.n / 4, 0x807f807fu, 0x3c003c00u));
    pith_cuda_gemm *g;
    CUDA(pith_cuda_gemm_create(&g));
    const pith_cuda_gemm_shape shape = {m, k, n, m, false, PITH_CUDA_OUT_F32};
    CUDA(pith_cuda_gemm_prepare(g, &shape, scratch_bytes));
    cudaEvent_t begin, end;
    CUDA(cudaEventCreate(&begin));
    CUDA(cudaEventCreate(&end));
    std::vector<float> ms;
    for (uint32_t run = 0; run < 23; run++) {
        CUDA(cudaEventRecord(begin));
        for (uint32_t i = 0; i < 8; i++)
            CUDA(pith_cuda_gemm_launch(g, &shape, w.p + (run * 8 + i) % n_copies * bytes, x.p, y.p, scratch.p, 0));
        CUDA(cudaEventRecord(end));
        CUDA(cudaEventSynchronize(end));
        float t;
        CUDA(cudaEventElapsedTime(&t, begin, end));
        if (run >= 3) ms.push_back(t);
    }
    std::sort(ms.begin(), ms.end());
    CUDA(cudaEventDestroy(begin));
    CUDA(cudaEventDestroy(end));
    pith_cuda_gemm_free(g);
    const double us = ms[ms.size() / 2] * 1e3 / 8, gbs = (double)bytes / us / 1e3;
    printf("time bf16 by cuBLASLt (%u, %u) n %2u: one of eight %7.2f us, %5.0f GB/s, %5.1f %% of 4200\n", m, k, n, us,
           gbs, gbs / 42);
}

static void checks(bool quick) {
    Random r = {0x243f6a8885a308d3ull};
    const uint32_t tokens[] = {1, 2, 7, 8, 9, 16, 17, 24, 31, 32, 33, 47, 48, 64};
    for (int t = PITH_CUDA_BF16; t <= PITH_CUDA_Q6_K; t++) {
        const pith_cuda_type type = (pith_cuda_type)t;
        for (uint32_t n : tokens) {
            if (quick && n % 8 != 1) continue; // a sanitizer's: 1, 9, 17, 33
            check({type, PITH_CUDA_OUT_F32, {100, 0, 0}, 1, 512, n, true, true}, r);
            check({type, PITH_CUDA_OUT_F32, {70, 64, 33}, 3, 1536, n, false, n % 2 == 0}, r);
            check({type, PITH_CUDA_OUT_SWIGLU, {80, 80, 0}, 2, 768, n, false, !is_quant(type)}, r);
        }
        for (uint32_t n : {1u, 16u, 37u}) {
            check({type, PITH_CUDA_OUT_PARTS, {320, 0, 0}, 1, 3584, n, true, false}, r);
            check({type, PITH_CUDA_OUT_16, {64, 128, 0}, 2, 1024, n, true, true}, r);
        }
        if (!is_quant(type)) // a step that is not full
            for (uint32_t n : {1u, 16u, 40u}) {
                check({type, PITH_CUDA_OUT_PARTS, {100, 70, 0}, 2, 1056, n, true, true}, r);
                check({type, PITH_CUDA_OUT_SWIGLU, {45, 45, 0}, 2, 32, n, false, true}, r);
            }
        check({type, PITH_CUDA_OUT_F32, {64, 0, 0}, 1, 256, 3, true, false}, r); // fewer turns than a warp holds steps
        check({type, PITH_CUDA_OUT_PARTS, {128, 0, 0}, 1, 18944, 8, false, false}, r); // 19 turns of 8 blocks
        for (uint32_t k : {1536u, 2048u, 2560u, 3072u})                                // 3, 4, 5 and 6 parts
            for (uint32_t n : {1u, 8u, 16u, 33u}) {
                if (quick && n != 16) continue;
                check({type, PITH_CUDA_OUT_PARTS, {100, 30, 64}, 3, k, n, true, true}, r);
                check({type, PITH_CUDA_OUT_SWIGLU, {80, 80, 0}, 2, k, n, false, !is_quant(type)}, r);
            }
        if (is_quant(type)) check_dequant(type, 200, 768, r), check_extremes(type, r);
    }
    for (uint32_t n : {1u, 16u, 64u}) check_norm(n, 3584, n % 8, r), check_norm(n, 3584, 7, r);
    check_norm(3, 64, 8, r);
    check_norm(2, 16384, 3, r);
    check_gemm(192, 256, 100, PITH_CUDA_OUT_F32, r);
    check_gemm(192, 256, 100, PITH_CUDA_OUT_ADD, r);
}

static void times() { // R1-Distill-Qwen-7B
    const uint32_t qkv[3] = {3584, 512, 512}, o[3] = {3584, 0, 0}, ffn[3] = {18944, 18944, 0}, v[3] = {152064, 0, 0};
    for (int t = PITH_CUDA_BF16; t <= PITH_CUDA_Q6_K; t++) {
        const pith_cuda_type type = (pith_cuda_type)t;
        for (uint32_t n : {1u, 8u, 16u, 32u, 64u}) {
            time_product(type, PITH_CUDA_OUT_PARTS, 3, qkv, 3584, n);
            time_product(type, PITH_CUDA_OUT_PARTS, 1, o, 3584, n);
            time_product(type, PITH_CUDA_OUT_SWIGLU, 2, ffn, 3584, n);
            time_product(type, PITH_CUDA_OUT_PARTS, 1, o, 18944, n);
            if (n == 1 || n == 16) time_product(type, PITH_CUDA_OUT_F32, 1, v, 3584, n);
        }
    }
    for (uint32_t n : {1u, 16u}) {
        time_blas(4608, 3584, n), time_blas(3584, 3584, n), time_blas(2 * 18944, 3584, n);
        time_blas(3584, 18944, n), time_blas(152064, 3584, n);
    }
}

int main(int n_args, char **args) {
    int n_devices = 0;
    if (cudaGetDeviceCount(&n_devices) != cudaSuccess || !n_devices) {
        printf("skipped: no device\n");
        return 77;
    }
    const char *what = n_args > 1 ? args[1] : "all";
    if (strcmp(what, "time")) checks(getenv("PITH_TEST_QUICK") != nullptr);
    if (strcmp(what, "check")) times();
    printf("%d failed\n", n_failed);
    return n_failed != 0;
}
