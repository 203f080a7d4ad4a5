// The checks of a GGUF file: what is accepted means what it says, and everything damaged is refused with one line.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "counting.h"
#include "ggml.h"
#include "model/gguf.h"

// ------------------------------------------------------------------------------------------ making files

typedef struct bytes {
    uint8_t at[4096];
    size_t n;
} bytes;

static size_t put(bytes *b, const void *p, size_t n) { // where it went
    assert_true(b->n + n <= sizeof b->at);
    if (n) memcpy(b->at + b->n, p, n);
    b->n += n;
    return b->n - n;
}
static size_t put_u32(bytes *b, uint32_t v) { return put(b, &v, sizeof v); }
static size_t put_u64(bytes *b, uint64_t v) { return put(b, &v, sizeof v); }
static size_t put_text(bytes *b, const char *s) {
    size_t at = put_u64(b, strlen(s));
    put(b, s, strlen(s));
    return at;
}
static void pad(bytes *b, size_t alignment) {
    while (b->n % alignment) put(b, "", 1);
}

// Two keys and two tensors, and where their parts lie.
typedef struct sample {
    bytes b;
    size_t version, n_tensors, n_keys;
    size_t key, type, list_key, list_type, item, n_items, first_item; // u32 "a.number" and string[2] "a.list"
    size_t tensors, name, n_dims, ne, tensor_type, offset;            // of the first tensor, (64, 2) q8_0
    size_t second_name, second_offset;                                // (3) f32
    size_t data;
} sample;

static sample make(void) {
    sample s = {0};
    bytes *b = &s.b;
    put(b, "GGUF", 4);
    s.version = put_u32(b, 3);
    s.n_tensors = put_u64(b, 2);
    s.n_keys = put_u64(b, 2);
    s.key = put_text(b, "a.number");
    s.type = put_u32(b, PITH_GGUF_U32);
    put_u32(b, 77);
    s.list_key = put_text(b, "a.lister");
    s.list_type = put_u32(b, PITH_GGUF_ARRAY);
    s.item = put_u32(b, PITH_GGUF_STRING);
    s.n_items = put_u64(b, 2);
    s.first_item = put_text(b, "one");
    put_text(b, "");
    s.tensors = b->n;
    s.name = put_text(b, "t.one");
    s.n_dims = put_u32(b, 2);
    s.ne = put_u64(b, 64);
    put_u64(b, 2);
    s.tensor_type = put_u32(b, GGML_TYPE_Q8_0);
    s.offset = put_u64(b, 0);
    s.second_name = put_text(b, "t.two");
    put_u32(b, 1);
    put_u64(b, 3);
    put_u32(b, GGML_TYPE_F32);
    s.second_offset = put_u64(b, 160); // 4 blocks of 34 bytes are 136
    pad(b, 32);
    s.data = b->n;
    b->n += 160;
    put(b, (const float[]){1, 2, 3}, 12); // the last tensor's padding is missing, as many writers leave it
    return s;
}

static void set_u32(sample *s, size_t at, uint32_t v) { memcpy(s->b.at + at, &v, sizeof v); }
static void set_u64(sample *s, size_t at, uint64_t v) { memcpy(s->b.at + at, &v, sizeof v); }

// Checks a copy of exactly n bytes, so that a sanitizer sees a read past them.
static pith_status check(const uint8_t *at, size_t n, pith_error *err) {
    uint8_t *copy = malloc(n ? n : 1);
    if (n) memcpy(copy, at, n);
    pith_gguf g;
    memset(err, 0, sizeof *err);
    pith_status status = pith_gguf_check(copy, n, "model.gguf", NULL, &g, err);
    assert_int_equal(status, err->status);
    if (status != PITH_OK) assert_memory_equal(err->msg, "model.gguf: ", 12);
    pith_gguf_free(&g);
    free(copy);
    return status;
}

static void expect(const sample *s, pith_status status, const char *part) {
    pith_error err;
    pith_status got = check(s->b.at, s->b.n, &err);
    if (got != status || (status != PITH_OK && !strstr(err.msg, part)))
        fail_msg("expected %s '%s', got %s '%s'", pith_status_name(status), part, pith_status_name(got), err.msg);
}

// ----------------------------------------------------------------------------------------------- accepted

static void test_accepts(void **state) {
    (void)state;
    sample s = make();
    for (uint32_t version = 2; version <= 3; version++) {
        set_u32(&s, s.version, version);
        pith_gguf g;
        pith_error err;
        assert_int_equal(pith_gguf_check(s.b.at, s.b.n, "model.gguf", NULL, &g, &err), PITH_OK);
        assert_int_equal(g.n_values, 2);
        assert_int_equal(g.n_tensors, 2);
        assert_int_equal(g.alignment, 32);
        assert_int_equal(g.data_offset, s.data);

        uint32_t number = 0;
        assert_int_equal(pith_gguf_u32(&g, "a.number", true, &number, &err), PITH_OK);
        assert_int_equal(number, 77);
        const pith_gguf_value *list = pith_gguf_find(&g, "a.lister");
        assert_non_null(list);
        assert_int_equal(list->n, 2);
        const uint8_t *at = list->data;
        assert_true(pith_text_is(pith_gguf_next_text(&at), "one"));
        assert_true(pith_text_is(pith_gguf_next_text(&at), ""));
        assert_null(pith_gguf_find(&g, "a.numbe"));

        const pith_weight *one = &g.tensors[pith_gguf_tensor(&g, "t.one")];
        assert_string_equal(one->name, "t.one");
        assert_int_equal(one->type, GGML_TYPE_Q8_0);
        assert_int_equal(one->ne[0], 64);
        assert_int_equal(one->ne[1], 2);
        assert_int_equal(one->ne[2] * one->ne[3], 1);
        assert_int_equal(one->bytes, 4 * 34);
        assert_ptr_equal(one->data, s.b.at + s.data);
        const pith_weight *two = &g.tensors[pith_gguf_tensor(&g, "t.two")];
        assert_int_equal(two->bytes, 12);
        assert_memory_equal(two->data, ((const float[]){1, 2, 3}), 12);
        assert_int_equal(pith_gguf_tensor(&g, "t.three"), PITH_NAME_NONE);
        pith_gguf_free(&g);
    }
}

static void test_every_value_type(void **state) {
    (void)state;
    static const size_t width[] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
    bytes b = {0};
    put(&b, "GGUF", 4);
    put_u32(&b, 3);
    put_u64(&b, 0);
    put_u64(&b, 24);
    const uint8_t zeros[32] = {0};
    for (uint32_t type = 0; type < PITH_GGUF_N_TYPES; type++) {
        if (type == PITH_GGUF_ARRAY) continue;
        char key[32];
        snprintf(key, sizeof key, "scalar.%u", type);
        put_text(&b, key);
        put_u32(&b, type);
        if (type == PITH_GGUF_STRING) put_text(&b, "x");
        else put(&b, zeros, width[type]);
        snprintf(key, sizeof key, "array.%u", type);
        put_text(&b, key);
        put_u32(&b, PITH_GGUF_ARRAY);
        put_u32(&b, type);
        put_u64(&b, 3);
        for (int i = 0; i < 3; i++) {
            if (type == PITH_GGUF_STRING) put_text(&b, "yz");
            else put(&b, zeros, width[type]);
        }
    }
    pith_gguf g;
    pith_error err;
    assert_int_equal(pith_gguf_check(b.at, b.n, "model.gguf", NULL, &g, &err), PITH_OK);
    // A wrong type is refused by name, a missing key by name; an optional one leaves the value alone.
    uint32_t u = 5;
    float f = 5;
    bool flag = true;
    pith_text text;
    assert_int_equal(pith_gguf_u32(&g, "scalar.5", true, &u, &err), PITH_E_FORMAT);
    assert_string_equal(err.msg, "model.gguf: scalar.5: expected u32, found i32");
    assert_int_equal(pith_gguf_f32(&g, "array.6", true, &f, &err), PITH_E_FORMAT);
    assert_string_equal(err.msg, "model.gguf: array.6: expected f32, found array");
    assert_int_equal(pith_gguf_f32(&g, "none", true, &f, &err), PITH_E_FORMAT);
    assert_string_equal(err.msg, "model.gguf: none: the key is missing");
    assert_int_equal(pith_gguf_u32(&g, "none", false, &u, &err), PITH_OK);
    assert_int_equal(u, 5);
    assert_int_equal(pith_gguf_bool(&g, "scalar.7", true, &flag, &err), PITH_OK);
    assert_false(flag);
    assert_int_equal(pith_gguf_text(&g, "scalar.8", true, &text, &err), PITH_OK);
    assert_true(pith_text_is(text, "x"));
    assert_int_equal(pith_gguf_text(&g, "none", false, &text, &err), PITH_OK);
    assert_null(text.at);
    pith_gguf_free(&g);
}

static void test_alignment(void **state) {
    (void)state;
    for (uint32_t alignment = 1; alignment <= 1024; alignment *= 2) {
        bytes b = {0};
        put(&b, "GGUF", 4);
        put_u32(&b, 3);
        put_u64(&b, 1);
        put_u64(&b, 1);
        put_text(&b, "general.alignment");
        put_u32(&b, PITH_GGUF_U32);
        put_u32(&b, alignment);
        put_text(&b, "t");
        put_u32(&b, 1);
        put_u64(&b, 1);
        put_u32(&b, GGML_TYPE_F32);
        put_u64(&b, 0);
        pad(&b, alignment);
        put_u32(&b, 1);
        pith_error err;
        assert_int_equal(check(b.at, b.n, &err), alignment < 32 ? PITH_E_UNSUPPORTED : PITH_OK);
        if (alignment < 32) assert_non_null(strstr(err.msg, "general.alignment: expected a power of two from 32"));
    }
}

// ------------------------------------------------------------------------------------------------ refused

// Every prefix of a good file is refused; the line says inside what it ends.
static void test_truncated(void **state) {
    (void)state;
    const sample s = make();
    for (size_t n = 0; n < s.b.n; n++) {
        pith_error err;
        assert_int_equal(check(s.b.at, n, &err), PITH_E_FORMAT);
        bool told = strstr(err.msg, "truncated") || strstr(err.msg, "do not fit into the rest of the file");
        if (!told) fail_msg("%zu bytes: '%s'", n, err.msg);
        assert_true(err.offset <= n);
    }
    const struct {
        size_t n;
        const char *part;
    } ends[] = {
        {s.key - 1, "truncated inside the header: 8 bytes expected at byte 16, found 7"},
        {s.key + 10, "truncated inside metadata: 8 bytes expected at byte 32, found 2"},
        {s.name + 10, "truncated inside the list of tensors: 5 bytes"},
        {s.data + 1, "t.one: truncated inside tensor data: 136 bytes"},
        {s.b.n - 1, "t.two: truncated inside tensor data: 12 bytes"},
    };
    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++) {
        pith_error err;
        check(s.b.at, ends[i].n, &err);
        if (!strstr(err.msg, ends[i].part)) fail_msg("'%s' in '%s'", ends[i].part, err.msg);
    }
}

#define CASE(change, status, part)                                                                                     \
    do {                                                                                                               \
        sample s = make();                                                                                             \
        change;                                                                                                        \
        expect(&s, status, part);                                                                                      \
    } while (0)

static void test_header(void **state) {
    (void)state;
    CASE(s.b.at[0] = 'g', PITH_E_FORMAT, "not a GGUF file");
    CASE(set_u32(&s, s.version, 0), PITH_E_UNSUPPORTED, "GGUF version: expected 2 or 3, found 0");
    CASE(set_u32(&s, s.version, 1), PITH_E_UNSUPPORTED, "found 1");
    CASE(set_u32(&s, s.version, 4), PITH_E_UNSUPPORTED, "found 4");
    CASE(set_u32(&s, s.version, 3u << 24), PITH_E_UNSUPPORTED, "big-endian");
    CASE(set_u64(&s, s.n_keys, PITH_GGUF_MAX_KEYS + 1), PITH_E_FORMAT, "4097 metadata keys are not possible");
    CASE(set_u64(&s, s.n_keys, UINT64_MAX), PITH_E_FORMAT, "metadata keys are not possible");
    CASE(set_u64(&s, s.n_tensors, PITH_GGUF_MAX_TENSORS + 1), PITH_E_FORMAT, "16385 tensors are not possible");
    CASE(set_u64(&s, s.n_tensors, 1ull << 63), PITH_E_FORMAT, "9223372036854775808 tensors are not possible");
    CASE(set_u64(&s, s.n_keys, 1), PITH_E_FORMAT, "t"); // then the second key is read as a tensor
}

static void test_metadata(void **state) {
    (void)state;
    CASE(set_u64(&s, s.key, 0), PITH_E_FORMAT, "name of key 0: expected 1 to 255 bytes, found 0");
    CASE(set_u64(&s, s.key, 256), PITH_E_FORMAT, "found 256");
    CASE(set_u64(&s, s.key, UINT64_MAX), PITH_E_FORMAT, "name of key 0");
    CASE(s.b.at[s.key + 9] = 0, PITH_E_FORMAT, "name of key 0: expected printable ASCII, found byte 0x00");
    CASE(s.b.at[s.key + 9] = ' ', PITH_E_FORMAT, "found byte 0x20");
    CASE(s.b.at[s.key + 9] = 0x80, PITH_E_FORMAT, "found byte 0x80");
    CASE(memcpy(s.b.at + s.list_key + 8, "a.number", 8), PITH_E_FORMAT, "a.number: the key is given twice");
    CASE(set_u32(&s, s.type, PITH_GGUF_N_TYPES), PITH_E_FORMAT, "a.number: unknown value type 13");
    CASE(set_u32(&s, s.type, UINT32_MAX), PITH_E_FORMAT, "a.number: unknown value type");
    CASE(set_u32(&s, s.item, PITH_GGUF_ARRAY), PITH_E_FORMAT, "a.lister: unknown array element type 9");
    CASE(set_u32(&s, s.item, 99), PITH_E_FORMAT, "a.lister: unknown array element type 99");
    CASE(set_u64(&s, s.n_items, UINT64_MAX), PITH_E_FORMAT, "elements of string do not fit into the rest of the file");
    CASE(set_u64(&s, s.n_items, 1ull << 61), PITH_E_FORMAT, "do not fit"); // times 8 overflows
    CASE((set_u32(&s, s.item, PITH_GGUF_F64), set_u64(&s, s.n_items, 1000)), PITH_E_FORMAT,
         "1000 elements of f64 do not fit");
    CASE(set_u64(&s, s.first_item, 1ull << 40), PITH_E_FORMAT, "a string of 1099511627776 bytes inside metadata");
    CASE(set_u64(&s, s.first_item, UINT64_MAX - 7), PITH_E_FORMAT, "is not possible"); // position + length overflows
    CASE(set_u64(&s, s.first_item, 5000), PITH_E_FORMAT, "truncated inside metadata: 5000 bytes expected");
}

static void test_tensors(void **state) {
    (void)state;
    CASE(set_u64(&s, s.name, 0), PITH_E_FORMAT, "name of tensor 0: expected 1 to 63 bytes, found 0");
    CASE(set_u64(&s, s.name, 64), PITH_E_FORMAT, "found 64");
    CASE(s.b.at[s.name + 8] = '\n', PITH_E_FORMAT, "name of tensor 0: expected printable ASCII");
    CASE(memcpy(s.b.at + s.second_name + 8, "t.one", 5), PITH_E_FORMAT, "t.one: the tensor is given twice");
    CASE(set_u32(&s, s.n_dims, 0), PITH_E_FORMAT, "t.one: expected 1 to 4 dimensions, found 0");
    CASE(set_u32(&s, s.n_dims, 5), PITH_E_FORMAT, "found 5");
    CASE(set_u32(&s, s.n_dims, UINT32_MAX), PITH_E_FORMAT, "t.one: expected 1 to 4 dimensions");
    CASE(set_u64(&s, s.ne, 0), PITH_E_FORMAT, "t.one: dimension 0: 0 elements are not possible");
    CASE(set_u64(&s, s.ne + 8, 0), PITH_E_FORMAT, "t.one: dimension 1: 0 elements are not possible");
    CASE(set_u64(&s, s.ne, UINT64_MAX), PITH_E_FORMAT, "t.one: dimension 0");
    CASE((set_u64(&s, s.ne, 1ull << 40), set_u64(&s, s.ne + 8, 1ull << 40)), PITH_E_FORMAT, "t.one: dimension 1");
    CASE((set_u64(&s, s.ne, 1ull << 32), set_u64(&s, s.ne + 8, 1ull << 30)), PITH_E_FORMAT,
         "t.two: expected its data at offset 4899916394579099648, found 160");
    CASE((set_u64(&s, s.ne, 1ull << 40), set_u64(&s, s.ne + 8, 1ull << 22), set_u32(&s, s.tensor_type, GGML_TYPE_F32)),
         PITH_E_FORMAT, "t.one: its size in bytes is not possible");
    CASE(set_u64(&s, s.ne, 63), PITH_E_FORMAT, "t.one: expected rows of whole blocks of 32 elements of q8_0, found 63");
    CASE(set_u32(&s, s.tensor_type, GGML_TYPE_COUNT), PITH_E_UNSUPPORTED, "t.one: unknown tensor type");
    CASE(set_u32(&s, s.tensor_type, 4), PITH_E_UNSUPPORTED, "t.one: unknown tensor type 4"); // was removed
    CASE(set_u32(&s, s.tensor_type, UINT32_MAX), PITH_E_UNSUPPORTED, "t.one: unknown tensor type");
    CASE(set_u64(&s, s.offset, 32), PITH_E_FORMAT, "t.one: expected its data at offset 0, found 32");
    CASE(set_u64(&s, s.second_offset, 136), PITH_E_FORMAT, "t.two: expected its data at offset 160, found 136");
    CASE(set_u64(&s, s.second_offset, 128), PITH_E_FORMAT,
         "t.two: expected its data at offset 160, found 128");       // overlap
    CASE(set_u64(&s, s.second_offset, 192), PITH_E_FORMAT, "t.two"); // gap
    CASE(set_u64(&s, s.second_offset, UINT64_MAX - 31), PITH_E_FORMAT, "t.two");
}

// ------------------------------------------------------------------------------------------------- memory

// Counts that the file cannot hold cost nothing near what they claim.
static void test_absurd_counts_are_cheap(void **state) {
    (void)state;
    sample s = make();
    set_u64(&s, s.n_tensors, PITH_GGUF_MAX_TENSORS);
    set_u64(&s, s.n_keys, PITH_GGUF_MAX_KEYS);
    counting c = {0};
    pith_allocator alloc = counting_allocator(&c);
    pith_gguf g;
    assert_int_equal(pith_gguf_check(s.b.at, s.b.n, "model.gguf", &alloc, &g, NULL), PITH_E_FORMAT);
    print_message("largest counts: %llu KiB at most\n", (unsigned long long)c.peak_bytes >> 10);
    assert_true(c.peak_bytes < 4u << 20);
    assert_int_equal(c.live_calls, 0);
}

static void test_no_memory(void **state) {
    (void)state;
    const sample s = make();
    for (uint64_t k = 1;; k++) {
        counting c = {.fail_at = k};
        pith_allocator alloc = counting_allocator(&c);
        pith_gguf g;
        pith_error err;
        pith_status status = pith_gguf_check(s.b.at, s.b.n, "model.gguf", &alloc, &g, &err);
        pith_gguf_free(&g);
        assert_int_equal(c.live_calls, 0);
        assert_int_equal(c.live_bytes, 0);
        if (status == PITH_OK) {
            assert_true(k > 4); // it did allocate
            return;
        }
        assert_int_equal(status, PITH_E_MEMORY);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_accepts),   cmocka_unit_test(test_every_value_type),
        cmocka_unit_test(test_alignment), cmocka_unit_test(test_truncated),
        cmocka_unit_test(test_header),    cmocka_unit_test(test_metadata),
        cmocka_unit_test(test_tensors),   cmocka_unit_test(test_absurd_counts_are_cheap),
        cmocka_unit_test(test_no_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
