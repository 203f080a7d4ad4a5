// What a decode step asks of the C library: ggml allocates a little inside every compute call, so the promise is not
// "nothing" but "the same in every step, however many rows the cache has" (and the same in every compression).
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "pith.h"
#include "tiny.h"

#ifdef __has_feature
#define SANITIZED __has_feature(address_sanitizer)
#elif defined(__SANITIZE_ADDRESS__)
#define SANITIZED 1
#else
#define SANITIZED 0
#endif
#define OWN_MALLOC !SANITIZED // a sanitizer has its own

#if OWN_MALLOC
static size_t n_calls;
void *__libc_malloc(size_t);
void *__libc_calloc(size_t, size_t);
void *__libc_realloc(void *, size_t);
void *__libc_memalign(size_t, size_t);

void *malloc(size_t n) { return n_calls++, __libc_malloc(n); }
void *calloc(size_t n, size_t size) { return n_calls++, __libc_calloc(n, size); }
void *realloc(void *p, size_t n) { return n_calls++, __libc_realloc(p, n); }
void *aligned_alloc(size_t align, size_t n) { return n_calls++, __libc_memalign(align, n); }
int posix_memalign(void **p, size_t align, size_t n) {
    n_calls++;
    return (*p = __libc_memalign(align, n)) ? 0 : 12; // ENOMEM
}

static pith_error err;

static void calls_per_step_are_constant(void **state) {
    (void)state;
    char path[64];
    snprintf(path, sizeof path, "test_steady.%d.gguf", (int)getpid());
    tiny_spec spec = tiny_default("qwen2", GGML_TYPE_Q8_0);
    assert_true(tiny_model_write(path, &spec));
    pith_model *model;
    assert_int_equal(pith_model_load(path, NULL, &model, &err), PITH_OK);
    remove(path);
    pith_engine_params p;
    pith_engine_params_init(&p);
    p.n_threads = 1;
    pith_engine *engine;
    assert_int_equal(pith_engine_new(model, &p, &engine, &err), PITH_OK);
    pith_sequence_params sp;
    pith_sequence_params_init(&sp);
    sp.policy = "rpc:p=256,r=16,c=2", sp.max_new = 1500, sp.ignore_end = true;
    pith_sequence *seq;
    assert_int_equal(pith_sequence_new(engine, &sp, &seq, &err), PITH_OK);
    const pith_token prompt[3] = {1, 2, 3};
    assert_int_equal(pith_sequence_prompt(seq, prompt, 3, &err), PITH_OK);

    uint32_t n_active;
    pith_sequence_info info;
    do {
        assert_int_equal(pith_engine_step(engine, &n_active, &err), PITH_OK);
        pith_sequence_describe(seq, &info);
    } while (info.phase != PITH_DECODE);
    size_t first[2] = {SIZE_MAX, SIZE_MAX}, steps = 0; // of a step without and with a compression
    uint32_t n_compressions = 0;
    while (n_active > 0) {
        const size_t before = n_calls;
        assert_int_equal(pith_engine_step(engine, &n_active, &err), PITH_OK);
        const size_t calls = n_calls - before;
        pith_sequence_describe(seq, &info);
        if (info.phase != PITH_DECODE) break; // the last step draws and reads nothing
        size_t *expected = &first[info.n_compressions > n_compressions];
        if (*expected == SIZE_MAX) *expected = calls;
        assert_int_equal(calls, *expected);
        n_compressions = info.n_compressions;
        steps++;
    }
    print_message("%zu calls in each of %zu steps, %zu where one of %u compressions fell\n", first[0], steps, first[1],
                  info.n_compressions);
    assert_true(steps > 1400 && info.n_compressions == 5);
    pith_engine_free(engine);
    pith_model_free(model);
}
#endif

int main(void) {
#if OWN_MALLOC
    const struct CMUnitTest tests[] = {cmocka_unit_test(calls_per_step_are_constant)};
    return cmocka_run_group_tests(tests, NULL, NULL);
#else
    return 0;
#endif
}
