// Buffers with a bound, and what is taken from their front.
#include "server/buffer.h"

#include <jansson.h>

#include "t.h"

static void bounds(void **state) {
    (void)state;
    buffer b = buffer_new(8);
    assert_true(buffer_add(&b, "12345", 5));
    assert_true(buffer_print(&b, "%d", 678));
    assert_string_equal(b.at, "12345678");
    assert_false(buffer_add(&b, "9", 1));
    assert_true(b.failed);
    assert_false(buffer_add(&b, "", 0)); // the first failure sticks
    assert_int_equal(b.n, 8);
    buffer_free(&b);
    assert_true(buffer_add(&b, "12345678", 8));
    buffer_free(&b);
    assert_false(buffer_print(&b, "%s", "123456789"));
    buffer_free(&b);
}

// Bytes come out in order, whatever the sizes of the pieces, while others go in.
static void a_queue_of_bytes(void **state) {
    (void)state;
    t_rng rng = 11;
    buffer b = buffer_new(1 << 16);
    uint8_t next_in = 0, next_out = 0;
    size_t n_in = 0, n_out = 0;
    for (size_t round = 0; round < 20000; round++) {
        char piece[64], got[64];
        const size_t n = t_below(&rng, 64), most = 1 + t_below(&rng, round < 15000 ? 60 : 64);
        for (size_t i = 0; i < n; i++) piece[i] = (char)next_in++;
        assert_true(buffer_add(&b, piece, n));
        n_in += n;
        const size_t taken = buffer_take(&b, got, most);
        for (size_t i = 0; i < taken; i++) assert_int_equal((uint8_t)got[i], next_out++);
        n_out += taken;
        if (b.n - b.taken > 20000)
            while ((n_out += buffer_take(&b, got, 1)), next_out++, b.n > b.taken) continue;
        assert_int_equal(b.n - b.taken, n_in - n_out);
    }
    buffer_free(&b);
}

// Strings of JSON mean the text they were made of; jansson reads them back.
static void json(void **state) {
    (void)state;
    char text[128 + 16];
    for (int i = 0; i < 128; i++) text[i] = (char)i;
    memcpy(text + 128, "\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80\"\\/", 12);
    for (size_t from = 0; from < 128; from++) {
        buffer b = buffer_new(1 << 12);
        assert_true(buffer_json(&b, text + from, 128 + 12 - from));
        json_t *read = json_loadb(b.at, b.n, JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL);
        assert_true(json_is_string(read));
        assert_int_equal(json_string_length(read), 128 + 12 - from);
        assert_memory_equal(json_string_value(read), text + from, 128 + 12 - from);
        json_decref(read);
        buffer_free(&b);
    }
    buffer b = buffer_new(8);
    assert_true(buffer_json(&b, "", 0));
    assert_string_equal(b.at, "\"\"");
    assert_false(buffer_json(&b, "\n\n\n", 3));
    buffer_free(&b);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(bounds), cmocka_unit_test(a_queue_of_bytes), cmocka_unit_test(json)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
