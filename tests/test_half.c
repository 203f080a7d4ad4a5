// Conversions to and from f16 and bf16, in portable C.
#include "t.h"

#include "base/half.h"

// All f16 numbers by the definition of the format.
static double value_of_f16(uint16_t h) {
    const int exponent = h >> 10 & 0x1f, mantissa = h & 0x3ff;
    const double magnitude = exponent == 0    ? ldexp(mantissa, -24)
                             : exponent == 31 ? (mantissa ? (double)NAN : (double)INFINITY)
                                              : ldexp(1024 + mantissa, exponent - 25);
    return h & 0x8000 ? -magnitude : magnitude;
}

static void every_f16_has_its_value(void **state) {
    (void)state;
    for (uint32_t h = 0; h < 0x10000; h++) {
        const double want = value_of_f16((uint16_t)h);
        const float got = pith_f16_to_f32((uint16_t)h);
        if (isnan(want)) assert_true(isnan(got));
        else assert_true((double)got == want && !signbit(got) == !signbit(want));
    }
}

static void every_f16_survives(void **state) {
    (void)state;
    for (uint32_t h = 0; h < 0x10000; h++) {
        const bool nan = (h & 0x7c00) == 0x7c00 && (h & 0x3ff);
        assert_int_equal(pith_f32_to_f16(pith_f16_to_f32((uint16_t)h)), nan ? h | 0x200 : h);
    }
}

// Between each two neighbours: the middle goes to the even one, and its own neighbours to the nearer.
static void f16_rounds_to_nearest_even(void **state) {
    (void)state;
    for (uint32_t h = 0; h < 0x7c00; h++)
        for (uint32_t sign = 0; sign < 2; sign++) {
            const double next = h + 1 == 0x7c00 ? 65536 : value_of_f16((uint16_t)(h + 1)); // where infinity would be
            const float middle = (float)((value_of_f16((uint16_t)h) + next) / 2), s = sign ? -1.0f : 1.0f;
            const uint32_t high = sign << 15;
            assert_int_equal(pith_f32_to_f16(s * middle), high | (h + (h & 1)));
            assert_int_equal(pith_f32_to_f16(s * nextafterf(middle, 0)), high | h);
            assert_int_equal(pith_f32_to_f16(s * nextafterf(middle, INFINITY)), high | (h + 1));
        }
}

static void f16_at_the_ends(void **state) {
    (void)state;
    const struct {
        float x;
        uint16_t h;
    } cases[] = {
        {0.0f, 0x0000},         {-0.0f, 0x8000},           {1.0f, 0x3c00},      {65504.0f, 0x7bff},
        {65519.996f, 0x7bff},   {65520.0f, 0x7c00},        {-65520.0f, 0xfc00}, {3e38f, 0x7c00},
        {INFINITY, 0x7c00},     {-INFINITY, 0xfc00},       {0x1p-24f, 0x0001},  {0x1p-25f, 0x0000},
        {-0x1p-25f, 0x8000},    {0x1.000002p-25f, 0x0001}, {1e-45f, 0x0000},    {0x1p-14f, 0x0400},
        {0x1.ff8p-15f, 0x03ff}, {0x1.ffcp-15f, 0x0400},
    };
    for (size_t i = 0; i < T_COUNT(cases); i++) assert_int_equal(pith_f32_to_f16(cases[i].x), cases[i].h);
    // NaN: quiet, with its sign and the high bits of its payload.
    assert_int_equal(pith_f32_to_f16(pith_f32_from_bits(0x7f800001u)), 0x7e00);
    assert_int_equal(pith_f32_to_f16(pith_f32_from_bits(0xffaaa000u)), 0xff55);
}

static void bf16_rounds_to_nearest_even(void **state) {
    (void)state;
    for (uint32_t b = 0; b < 0x7f80; b++)
        for (uint32_t sign = 0; sign < 0x10000; sign += 0x8000) {
            const uint32_t low = (sign | b) << 16;
            assert_int_equal(pith_f32_to_bf16(pith_f32_from_bits(low)), sign | b);
            assert_int_equal(pith_f32_to_bf16(pith_f32_from_bits(low + 0x7fff)), sign | b);
            assert_int_equal(pith_f32_to_bf16(pith_f32_from_bits(low + 0x8000)), sign | (b + (b & 1)));
            assert_int_equal(pith_f32_to_bf16(pith_f32_from_bits(low + 0x8001)), sign | (b + 1));
        }
}

static void bf16_at_the_ends(void **state) {
    (void)state;
    assert_int_equal(pith_f32_to_bf16(INFINITY), 0x7f80);
    assert_int_equal(pith_f32_to_bf16(-INFINITY), 0xff80);
    assert_int_equal(pith_f32_to_bf16(pith_f32_from_bits(0x7f800001u)), 0x7fc0); // would be infinity if truncated
    assert_int_equal(pith_f32_to_bf16(pith_f32_from_bits(0xffffffffu)), 0xffff);
    assert_true(pith_bf16_to_f32(0x3f80) == 1.0f);
    assert_true(pith_bf16_round(0x1.018p0f) == 0x1.02p0f); // 1 + 3/512 is nearer to 1 + 4/512 than to 1
    assert_true(pith_bf16_round(0x1.01p0f) == 1.0f);       // 1 + 1/256: a tie, to the even one
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_f16_has_its_value),     cmocka_unit_test(every_f16_survives),
        cmocka_unit_test(f16_rounds_to_nearest_even),  cmocka_unit_test(f16_at_the_ends),
        cmocka_unit_test(bf16_rounds_to_nearest_even), cmocka_unit_test(bf16_at_the_ends),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
