// Which kernel multiplies which weight type; and the kernel for all the others, on ggml's dot products.
#include "cpu/product.h"

#include "cpu/cpuid.h"
#include "cpu/product_float.h"
#include "cpu/product_i8.h"
#include "ggml-cpu.h"
#include "ggml.h"

enum { ALIGN = 64 };
#define MAX_TYPES 64

// ----------------------------------------------------------------------------------- ggml's dot products

static size_t ggml_packed_bytes(const pith_product *self, int64_t k) {
    size_t bytes = ggml_row_size(ggml_get_type_traits_cpu((enum ggml_type)self->type)->vec_dot_type, k);
    return (bytes + ALIGN - 1) / ALIGN * ALIGN;
}

static void ggml_pack(const pith_product *self, const float *x, void *packed, int64_t k) {
    enum ggml_type partner = ggml_get_type_traits_cpu((enum ggml_type)self->type)->vec_dot_type;
    ggml_get_type_traits_cpu(partner)->from_float(x, packed, k);
}

static void ggml_rows(const pith_product *self, const void *w, size_t row_bytes, int64_t k, const void *packed,
                      uint32_t n, int64_t r0, int64_t r1, float *y, size_t y_stride) {
    const ggml_vec_dot_t dot = ggml_get_type_traits_cpu((enum ggml_type)self->type)->vec_dot;
    const size_t x_bytes = ggml_packed_bytes(self, k);
    for (int64_t r = r0; r < r1; r++) {
        const uint8_t *row = (const uint8_t *)w + (size_t)r * row_bytes;
        for (uint32_t c = 0; c < n; c++) // one row, one column: anything more is other arithmetic in ggml
            dot((int)k, &y[c * y_stride + (size_t)r], 0, row, 0, (const uint8_t *)packed + c * x_bytes, 0, 1);
    }
}

#define GGML(type) {type, "ggml", ggml_packed_bytes, ggml_pack, ggml_rows}
#define GGML4(type) GGML(type), GGML((type) + 1), GGML((type) + 2), GGML((type) + 3)
#define GGML16(type) GGML4(type), GGML4((type) + 4), GGML4((type) + 8), GGML4((type) + 12)
static const pith_product by_ggml[MAX_TYPES] = {GGML16(0), GGML16(16), GGML16(32), GGML16(48)};
_Static_assert(GGML_TYPE_COUNT <= MAX_TYPES, "every type needs an entry");

// -------------------------------------------------------------------------------------------- the choice

static const pith_product *find(const pith_product *integers, const pith_product *floats, int type) {
    for (; integers->name; integers++)
        if (integers->type == type) return integers;
    for (; floats->name; floats++)
        if (floats->type == type) return floats;
    return NULL;
}

const pith_product *pith_product_for(int type, const char *disabled) {
    pith_cpu_features cpu;
    pith_cpu_detect(&cpu);
    const pith_product *found = NULL;
    if (cpu.avx512_vnni && !pith_cpu_listed(disabled, "avx512")) found = find(pith_i8_avx512, pith_float_avx512, type);
    if (!found && cpu.avx2 && !pith_cpu_listed(disabled, "avx2")) found = find(pith_i8_avx2, pith_float_avx2, type);
    // On AArch64 ggml's dot products use NEON, which ours do not yet.
    if (!found && !cpu.neon) found = find(pith_i8_portable, pith_float_portable, type);
    if (found) return found;
    if (type < 0 || type >= GGML_TYPE_COUNT) return NULL;
    const struct ggml_type_traits_cpu *traits = ggml_get_type_traits_cpu((enum ggml_type)type);
    if (!traits->vec_dot || !ggml_get_type_traits_cpu(traits->vec_dot_type)->from_float) return NULL;
    return &by_ggml[type];
}

const pith_arranged *pith_arranged_for(int type, const char *disabled) {
    pith_cpu_features cpu;
    pith_cpu_detect(&cpu);
    if (!cpu.avx512_vnni || pith_cpu_listed(disabled, "avx512") || pith_cpu_listed(disabled, "arranged")) return NULL;
    for (const pith_arranged *a = pith_i8_arranged_avx512; a->product.name; a++)
        if (a->product.type == type) return a;
    return NULL;
}

int pith_product_same_pack(const pith_product *a, const pith_product *b) {
    if (a->pack != b->pack) return 0;
    if (a->pack != ggml_pack) return 1;
    return ggml_get_type_traits_cpu((enum ggml_type)a->type)->vec_dot_type ==
           ggml_get_type_traits_cpu((enum ggml_type)b->type)->vec_dot_type;
}
