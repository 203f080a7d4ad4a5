// Shapes known by name. Sources: config.json of each model's repository on Hugging Face, whose name stands above the
// line. The number of parameters that follows from a line is the published one: tests/test_shape.c.
#include "pith.h"

#include <string.h>

static const pith_model_shape shapes[] = {
    // name, architecture, layers, D, H, G, d, F, V, context, rope base, eps, tied, llama3
    // deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B
    {"r1-distill-qwen-1.5b", "qwen2", 28, 1536, 12, 2, 128, 8960, 151936, 131072, 1e4f, 1e-6f, false, false},
    // deepseek-ai/DeepSeek-R1-Distill-Qwen-7B
    {"r1-distill-qwen-7b", "qwen2", 28, 3584, 28, 4, 128, 18944, 152064, 131072, 1e4f, 1e-6f, false, false},
    // deepseek-ai/DeepSeek-R1-Distill-Qwen-14B
    {"r1-distill-qwen-14b", "qwen2", 48, 5120, 40, 8, 128, 13824, 152064, 131072, 1e6f, 1e-5f, false, false},
    // deepseek-ai/DeepSeek-R1-Distill-Qwen-32B
    {"r1-distill-qwen-32b", "qwen2", 64, 5120, 40, 8, 128, 27648, 152064, 131072, 1e6f, 1e-5f, false, false},
    // deepseek-ai/DeepSeek-R1-Distill-Llama-8B
    {"r1-distill-llama-8b", "llama", 32, 4096, 32, 8, 128, 14336, 128256, 131072, 5e5f, 1e-5f, false, true},
    // Qwen/QwQ-32B
    {"qwq-32b", "qwen2", 64, 5120, 40, 8, 128, 27648, 152064, 40960, 1e6f, 1e-5f, false, false},
    // Qwen/Qwen3-0.6B, -1.7B, -4B, -8B, -14B, -32B
    {"qwen3-0.6b", "qwen3", 28, 1024, 16, 8, 128, 3072, 151936, 40960, 1e6f, 1e-6f, true, false},
    {"qwen3-1.7b", "qwen3", 28, 2048, 16, 8, 128, 6144, 151936, 40960, 1e6f, 1e-6f, true, false},
    {"qwen3-4b", "qwen3", 36, 2560, 32, 8, 128, 9728, 151936, 40960, 1e6f, 1e-6f, true, false},
    {"qwen3-8b", "qwen3", 36, 4096, 32, 8, 128, 12288, 151936, 40960, 1e6f, 1e-6f, false, false},
    {"qwen3-14b", "qwen3", 40, 5120, 40, 8, 128, 17408, 151936, 40960, 1e6f, 1e-6f, false, false},
    {"qwen3-32b", "qwen3", 64, 5120, 64, 8, 128, 25600, 151936, 40960, 1e6f, 1e-6f, false, false},
    // Qwen/Qwen2-0.5B
    {"qwen2-0.5b", "qwen2", 24, 896, 14, 2, 64, 4864, 151936, 131072, 1e6f, 1e-6f, true, false},
    // Ours, to try things with.
    {"tiny", "qwen2", 2, 256, 4, 2, 64, 512, 512, 131072, 1e4f, 1e-6f, false, false},
};
enum { N_SHAPES = sizeof shapes / sizeof *shapes };

const pith_model_shape *pith_model_shape_at(size_t i) { return i < N_SHAPES ? &shapes[i] : NULL; }

const pith_model_shape *pith_model_shape_find(const char *name) {
    for (size_t i = 0; i < N_SHAPES; i++)
        if (!strcmp(shapes[i].name, name)) return &shapes[i];
    return NULL;
}
