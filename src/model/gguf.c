#include "model/gguf.h"

#include "model/mapping.h"

#include "ggml.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "GGUF files are little-endian, and their tensors are used where they lie"
#endif

// ------------------------------------------------------------------------------------------------- reader

// Walks the file. The first error sticks; after it every read gives zeros, so that parsing code needs no tests between
// reads, only before it loops or uses what it read.
typedef struct reader {
    const char *path;
    const uint8_t *base;
    uint64_t size, at;
    const char *section; // "the header", ...: what a truncated file is truncated inside
    pith_status status;
    pith_error *err;
} reader;

__attribute__((format(printf, 4, 5))) static void refuse(reader *r, pith_status status, uint64_t offset,
                                                         const char *fmt, ...) {
    if (r->status != PITH_OK) return;
    char line[320];
    va_list args;
    va_start(args, fmt);
    vsnprintf(line, sizeof line, fmt, args);
    va_end(args);
    r->status = pith_fail_at(r->err, status, offset, "%s: %s", r->path, line);
}

static bool ok(const reader *r) { return r->status == PITH_OK; }

static const uint8_t *take(reader *r, uint64_t bytes) {
    if (ok(r) && bytes > r->size - r->at)
        refuse(r, PITH_E_FORMAT, r->at,
               "truncated inside %s: %" PRIu64 " bytes expected at byte %" PRIu64 ", found %" PRIu64, r->section, bytes,
               r->at, r->size - r->at);
    if (!ok(r)) return NULL;
    const uint8_t *p = r->base + r->at;
    r->at += bytes;
    return p;
}

static uint32_t take_u32(reader *r) {
    uint32_t v = 0;
    const uint8_t *p = take(r, sizeof v);
    if (p) memcpy(&v, p, sizeof v);
    return v;
}

static uint64_t take_u64(reader *r) {
    uint64_t v = 0;
    const uint8_t *p = take(r, sizeof v);
    if (p) memcpy(&v, p, sizeof v);
    return v;
}

// A name: printable ASCII without spaces, 1..max bytes. Names appear in messages and as C strings inside ggml.
static pith_text take_name(reader *r, const char *what, uint64_t number, uint32_t max) {
    uint64_t start = r->at, length = take_u64(r);
    if (ok(r) && (length == 0 || length > max))
        refuse(r, PITH_E_FORMAT, start, "name of %s %" PRIu64 ": expected 1 to %u bytes, found %" PRIu64, what, number,
               max, length);
    const uint8_t *p = take(r, length);
    for (uint64_t i = 0; p && i < length; i++)
        if (p[i] <= ' ' || p[i] >= 0x7f) {
            refuse(r, PITH_E_FORMAT, start + 8 + i,
                   "name of %s %" PRIu64 ": expected printable ASCII, found byte 0x%02x", what, number, p[i]);
            p = NULL;
        }
    return p ? (pith_text){(const char *)p, (uint32_t)length} : (pith_text){0};
}

// ----------------------------------------------------------------------------------------------- metadata

static const struct {
    const char *name;
    uint8_t bytes; // 0: no fixed size
} types[PITH_GGUF_N_TYPES] = {
    [PITH_GGUF_U8] = {"u8", 1},       [PITH_GGUF_I8] = {"i8", 1},     [PITH_GGUF_U16] = {"u16", 2},
    [PITH_GGUF_I16] = {"i16", 2},     [PITH_GGUF_U32] = {"u32", 4},   [PITH_GGUF_I32] = {"i32", 4},
    [PITH_GGUF_F32] = {"f32", 4},     [PITH_GGUF_BOOL] = {"bool", 1}, [PITH_GGUF_STRING] = {"string", 0},
    [PITH_GGUF_ARRAY] = {"array", 0}, [PITH_GGUF_U64] = {"u64", 8},   [PITH_GGUF_I64] = {"i64", 8},
    [PITH_GGUF_F64] = {"f64", 8},
};

const char *pith_gguf_type_name(pith_gguf_type type) { return types[type].name; }

static pith_gguf_type take_type(reader *r, pith_text key, bool of_items) {
    uint64_t start = r->at;
    uint32_t type = take_u32(r);
    bool known = type < PITH_GGUF_N_TYPES && !(of_items && type == PITH_GGUF_ARRAY);
    if (ok(r) && !known)
        refuse(r, PITH_E_FORMAT, start, "%.*s: unknown %s type %u", (int)key.length, key.at,
               of_items ? "array element" : "value", type);
    return known ? (pith_gguf_type)type : PITH_GGUF_U8;
}

static void take_string(reader *r) {
    uint64_t start = r->at, length = take_u64(r);
    if (ok(r) && length > PITH_GGUF_MAX_LENGTH)
        refuse(r, PITH_E_FORMAT, start, "a string of %" PRIu64 " bytes inside %s is not possible", length, r->section);
    take(r, length);
}

static void take_value(reader *r, uint64_t number, pith_gguf_value *v) {
    pith_text key = take_name(r, "key", number, PITH_GGUF_MAX_KEY_BYTES);
    pith_gguf_type type = take_type(r, key, false), item = type;
    uint64_t n = 1, start = r->at;
    if (type == PITH_GGUF_ARRAY) {
        item = take_type(r, key, true);
        start = r->at;
        n = take_u64(r);
    }
    *v = (pith_gguf_value){type, item, n, r->base + r->at, key.at, key.length};
    uint64_t least = item == PITH_GGUF_STRING ? 8 : types[item].bytes; // bytes of the smallest element
    if (ok(r) && type == PITH_GGUF_ARRAY && (n > PITH_GGUF_MAX_LENGTH || n > (r->size - r->at) / least))
        refuse(r, PITH_E_FORMAT, start, "%.*s: %" PRIu64 " elements of %s do not fit into the rest of the file",
               (int)key.length, key.at, n, types[item].name);
    if (item != PITH_GGUF_STRING) take(r, ok(r) ? n * least : 0);
    for (uint64_t i = 0; item == PITH_GGUF_STRING && ok(r) && i < n; i++) take_string(r);
}

static void take_values(reader *r, pith_gguf *g) {
    pith_nameset seen;
    if (!pith_nameset_init(&seen, g->alloc, g->n_values)) refuse(r, PITH_E_MEMORY, 0, "no memory for its metadata");
    r->section = "metadata";
    for (uint32_t i = 0; ok(r) && i < g->n_values; i++) {
        uint64_t start = r->at;
        take_value(r, i, &g->values[i]);
        const pith_gguf_value *v = &g->values[i];
        if (ok(r) && pith_nameset_add(&seen, v->key, v->key_length, i) != PITH_NAME_NONE)
            refuse(r, PITH_E_FORMAT, start, "%.*s: the key is given twice", (int)v->key_length, v->key);
    }
    pith_nameset_free(&seen);
}

static void choose_alignment(reader *r, pith_gguf *g) {
    g->alignment = 32;
    pith_status status = pith_gguf_u32(g, "general.alignment", false, &g->alignment, r->err);
    if (status != PITH_OK) r->status = status;
    // Less than 32 is legal, but kernels load whole vectors.
    bool power = g->alignment >= 32 && g->alignment <= 65536 && (g->alignment & (g->alignment - 1)) == 0;
    if (ok(r) && !power)
        refuse(r, PITH_E_UNSUPPORTED, 0, "general.alignment: expected a power of two from 32 to 65536, found %u",
               g->alignment);
}

// ------------------------------------------------------------------------------------------------ tensors

static void take_shape(reader *r, pith_weight *t) {
    uint64_t start = r->at;
    uint32_t n_dims = take_u32(r);
    if (ok(r) && (n_dims < 1 || n_dims > 4))
        refuse(r, PITH_E_FORMAT, start, "%s: expected 1 to 4 dimensions, found %u", t->name, n_dims);
    int64_t elements = 1;
    for (uint32_t i = 0; i < 4; i++) t->ne[i] = 1;
    for (uint32_t i = 0; ok(r) && i < n_dims; i++) {
        start = r->at;
        uint64_t ne = take_u64(r);
        t->ne[i] = (int64_t)ne;
        if (ok(r) && (ne == 0 || ne > INT64_MAX || __builtin_mul_overflow(elements, t->ne[i], &elements)))
            refuse(r, PITH_E_FORMAT, start, "%s: dimension %u: %" PRIu64 " elements are not possible", t->name, i, ne);
    }
}

static void take_tensor_type(reader *r, pith_weight *t) {
    uint64_t start = r->at;
    uint32_t type = take_u32(r);
    bool known = type < GGML_TYPE_COUNT && ggml_blck_size((enum ggml_type)type) > 0; // removed types have no block
    if (ok(r) && !known) refuse(r, PITH_E_UNSUPPORTED, start, "%s: unknown tensor type %u", t->name, type);
    if (!ok(r)) return;
    t->type = (int)type;
    int64_t block = ggml_blck_size((enum ggml_type)type), blocks = t->ne[0] / block;
    if (t->ne[0] % block != 0) {
        refuse(r, PITH_E_FORMAT, start,
               "%s: expected rows of whole blocks of %" PRId64 " elements of %s, found %" PRId64, t->name, block,
               ggml_type_name((enum ggml_type)type), t->ne[0]);
        return;
    }
    blocks *= t->ne[1] * t->ne[2] * t->ne[3]; // no overflow: the number of elements has none
    if (__builtin_mul_overflow((size_t)blocks, ggml_type_size((enum ggml_type)type), &t->bytes))
        refuse(r, PITH_E_FORMAT, start, "%s: its size in bytes is not possible", t->name);
}

static uint64_t align_up(uint64_t x, uint64_t alignment) { return (x + alignment - 1) & ~(alignment - 1); }

// ggml wants the tensors in the order of their infos without gaps; so they cannot overlap either.
static void take_infos(reader *r, pith_gguf *g) {
    r->section = "the list of tensors";
    uint64_t expected = 0; // offset of the next tensor
    for (uint32_t i = 0; ok(r) && i < g->n_tensors; i++) {
        pith_weight *t = &g->tensors[i];
        uint64_t start = r->at;
        pith_text name = take_name(r, "tensor", i, PITH_GGUF_MAX_NAME_BYTES);
        if (ok(r)) memcpy(g->names[i], name.at, name.length);
        t->name = g->names[i];
        if (ok(r) && pith_nameset_add(&g->index, t->name, name.length, i) != PITH_NAME_NONE)
            refuse(r, PITH_E_FORMAT, start, "%s: the tensor is given twice", t->name);
        take_shape(r, t);
        take_tensor_type(r, t);
        start = r->at;
        uint64_t offset = take_u64(r);
        if (ok(r) && offset != expected)
            refuse(r, PITH_E_FORMAT, start, "%s: expected its data at offset %" PRIu64 ", found %" PRIu64, t->name,
                   expected, offset);
        uint64_t end = 0;
        if (ok(r) && (__builtin_add_overflow(offset, t->bytes, &end) || end > INT64_MAX))
            refuse(r, PITH_E_FORMAT, start, "%s: its size in bytes is not possible", t->name);
        expected = align_up(end, g->alignment);
    }
}

// Are all of them inside the file? The last one's padding may be missing.
static void place_data(reader *r, pith_gguf *g) {
    g->data_offset = align_up(r->at, g->alignment);
    uint64_t offset = g->data_offset;
    for (uint32_t i = 0; i < g->n_tensors; i++) {
        pith_weight *t = &g->tensors[i];
        if (offset > r->size || t->bytes > r->size - offset) {
            refuse(r, PITH_E_FORMAT, r->size,
                   "%s: truncated inside tensor data: %zu bytes expected at byte %" PRIu64 ", found %" PRIu64, t->name,
                   t->bytes, offset, offset > r->size ? 0 : r->size - offset);
            return;
        }
        t->data = r->base + offset;
        offset = align_up(offset + t->bytes, g->alignment);
    }
}

// --------------------------------------------------------------------------------------------------- file

static uint32_t take_count(reader *r, const char *what, uint32_t max) {
    uint64_t start = r->at, n = take_u64(r);
    if (ok(r) && n > max) refuse(r, PITH_E_FORMAT, start, "%" PRIu64 " %s are not possible (at most %u)", n, what, max);
    return ok(r) ? (uint32_t)n : 0;
}

static void take_header(reader *r, pith_gguf *g) {
    r->section = "the header";
    const uint8_t *magic = take(r, 4);
    if (magic && memcmp(magic, "GGUF", 4) != 0) refuse(r, PITH_E_FORMAT, 0, "not a GGUF file");
    uint32_t version = take_u32(r);
    if (ok(r) && (version & 0xffff) == 0 && version != 0)
        refuse(r, PITH_E_UNSUPPORTED, 4, "a big-endian GGUF file; only little-endian ones can be run");
    if (ok(r) && version != 2 && version != 3)
        refuse(r, PITH_E_UNSUPPORTED, 4, "GGUF version: expected 2 or 3, found %u", version);
    g->n_tensors = take_count(r, "tensors", PITH_GGUF_MAX_TENSORS);
    g->n_values = take_count(r, "metadata keys", PITH_GGUF_MAX_KEYS);
}

// Tables for what the header promises: at most some megabytes, since the counts are bounded.
static void make_tables(reader *r, pith_gguf *g) {
    if (!ok(r)) return;
    g->values = pith_new(g->alloc, g->n_values, sizeof *g->values);
    g->tensors = pith_new(g->alloc, g->n_tensors, sizeof *g->tensors);
    g->names = pith_new(g->alloc, g->n_tensors, sizeof *g->names);
    if (!pith_nameset_init(&g->index, g->alloc, g->n_tensors) || !g->values || !g->tensors || !g->names)
        refuse(r, PITH_E_MEMORY, 0, "no memory for its tables");
}

pith_status pith_gguf_check(const uint8_t *base, size_t bytes, const char *path, const pith_allocator *alloc,
                            pith_gguf *out, pith_error *err) {
    pith_gguf *g = out;
    *g = (pith_gguf){.alloc = alloc, .path = pith_path_tail(path), .base = base, .bytes = bytes};
    reader r = {.path = g->path, .base = base, .size = bytes, .err = err};
    take_header(&r, g);
    make_tables(&r, g);
    if (ok(&r)) take_values(&r, g);
    if (ok(&r)) choose_alignment(&r, g);
    if (ok(&r)) take_infos(&r, g);
    if (ok(&r)) place_data(&r, g);
    if (!ok(&r)) pith_gguf_free(g);
    return r.status;
}

void pith_gguf_free(pith_gguf *g) {
    pith_delete(g->alloc, g->values, g->n_values, sizeof *g->values);
    pith_delete(g->alloc, g->tensors, g->n_tensors, sizeof *g->tensors);
    pith_delete(g->alloc, g->names, g->n_tensors, sizeof *g->names);
    pith_nameset_free(&g->index);
    *g = (pith_gguf){0};
}

// ------------------------------------------------------------------------------------------------- access

const pith_gguf_value *pith_gguf_find(const pith_gguf *g, const char *key) {
    size_t length = strlen(key);
    for (uint32_t i = 0; i < g->n_values; i++)
        if (g->values[i].key_length == length && memcmp(g->values[i].key, key, length) == 0) return &g->values[i];
    return NULL;
}

// *at gets the value's bytes, or NULL when the key may be missing and is.
static pith_status get(const pith_gguf *g, const char *key, pith_gguf_type type, bool required, const uint8_t **at,
                       pith_error *err) {
    const pith_gguf_value *v = pith_gguf_find(g, key);
    *at = NULL;
    if (!v && required) return pith_fail(err, PITH_E_FORMAT, "%s: %s: the key is missing", g->path, key);
    if (!v) return PITH_OK;
    if (v->type != type)
        return pith_fail_at(err, PITH_E_FORMAT, (uint64_t)(v->data - g->base), "%s: %s: expected %s, found %s", g->path,
                            key, types[type].name, types[v->type].name);
    *at = v->data;
    return PITH_OK;
}

pith_status pith_gguf_u32(const pith_gguf *g, const char *key, bool required, uint32_t *value, pith_error *err) {
    const uint8_t *at;
    pith_status status = get(g, key, PITH_GGUF_U32, required, &at, err);
    if (at) memcpy(value, at, sizeof *value);
    return status;
}

pith_status pith_gguf_f32(const pith_gguf *g, const char *key, bool required, float *value, pith_error *err) {
    const uint8_t *at;
    pith_status status = get(g, key, PITH_GGUF_F32, required, &at, err);
    if (at) memcpy(value, at, sizeof *value);
    return status;
}

pith_status pith_gguf_bool(const pith_gguf *g, const char *key, bool required, bool *value, pith_error *err) {
    const uint8_t *at;
    pith_status status = get(g, key, PITH_GGUF_BOOL, required, &at, err);
    if (at) *value = *at != 0;
    return status;
}

pith_status pith_gguf_text(const pith_gguf *g, const char *key, bool required, pith_text *value, pith_error *err) {
    const uint8_t *at;
    *value = (pith_text){0};
    pith_status status = get(g, key, PITH_GGUF_STRING, required, &at, err);
    if (!at) return status;
    *value = pith_gguf_next_text(&at);
    if (memchr(value->at, 0, value->length)) // libllama would see only what precedes it
        return pith_fail(err, PITH_E_FORMAT, "%s: %s: the text has a zero byte inside", g->path, key);
    return PITH_OK;
}

bool pith_text_is(pith_text text, const char *literal) {
    return text.at && strlen(literal) == text.length && memcmp(text.at, literal, text.length) == 0;
}

uint32_t pith_gguf_u32_at(const pith_gguf_value *v, uint64_t i) {
    uint32_t x;
    memcpy(&x, v->data + i * sizeof x, sizeof x);
    return x;
}

pith_text pith_gguf_next_text(const uint8_t **at) {
    uint64_t length;
    memcpy(&length, *at, sizeof length);
    pith_text text = {(const char *)*at + sizeof length, (uint32_t)length};
    *at += sizeof length + length;
    return text;
}

uint32_t pith_gguf_tensor(const pith_gguf *g, const char *name) {
    return pith_nameset_find(&g->index, name, (uint32_t)strlen(name));
}
