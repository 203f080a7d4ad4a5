// The CUDA backend where it cannot run: not built in, or built in and no device. One status, one line, nothing left.
#include "t.h"

#include "counting.h"
#include "cuda/backend.h"

static const pith_geometry GEOMETRY = {.n_layers = 2, .n_heads = 4, .n_kv_heads = 2, .head_dim = 64, .elt_bytes = 2};

static void test_refusal(void **state) {
    (void)state;
    counting count = {0};
    const pith_allocator alloc = counting_allocator(&count);
    const pith_cuda_params params = {.max_rows = 128, .max_sequences = 1, .n_threads = 1, .alloc = &alloc};
    pith_backend *backend = (pith_backend *)(void *)&params; // must be overwritten
    pith_error err = {0};
    const pith_status status = pith_cuda_create(&GEOMETRY, &params, &backend, &err);
    if (status == PITH_OK) { // there is a device: tests/cuda is for that
        backend->ops->free(backend);
        skip();
    }
    assert_null(backend);
    assert_int_equal(status, PITH_E_UNSUPPORTED);
    assert_int_equal(err.status, PITH_E_UNSUPPORTED);
    printf("%s\n", err.msg);
    assert_int_equal(strncmp(err.msg, "cuda: ", 6), 0);
    assert_null(strchr(err.msg, '\n'));
    assert_int_equal(count.live_calls, 0);
#ifdef PITH_TEST_CUDA
    assert_true(strstr(err.msg, "driver") || strstr(err.msg, "device"));
#else
    assert_non_null(strstr(err.msg, "not built in"));
#endif
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_refusal)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
