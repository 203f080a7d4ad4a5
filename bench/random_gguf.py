#!/usr/bin/env python3
"""A GGUF of a real model's shape with random weights and no vocabulary, for timing llama.cpp: the same bytes of work,
none of the download.

    random_gguf.py r1-distill-qwen-7b bf16|f16|q8_0|q4_0|q4_k_m FILE
"""
import os
import struct
import sys

import numpy

SHAPES = {  # layers, D, H, G, d, F, V, RoPE base
    "r1-distill-qwen-1.5b": (28, 1536, 12, 2, 128, 8960, 151936, 10000.0),
    "r1-distill-qwen-7b": (28, 3584, 28, 4, 128, 18944, 152064, 10000.0),
    "qwq-32b": (64, 5120, 40, 8, 128, 27648, 152064, 1000000.0),
    "small": (4, 512, 8, 2, 64, 1024, 1024, 10000.0),
}
F32, F16, Q4_0, Q8_0, Q4_K, Q6_K, BF16 = 0, 1, 2, 8, 12, 14, 30
# weights and bytes of a block, and where its f16 scales lie
BLOCKS = {F32: (1, 4, []), F16: (1, 2, []), BF16: (1, 2, []), Q4_0: (32, 18, [0]), Q8_0: (32, 34, [0]),
          Q4_K: (256, 144, [0, 2]), Q6_K: (256, 210, [208])}
ALIGN = 32


def tensors(shape, kind):
    """(name, dimensions as GGUF has them, type) of each tensor."""
    n_layers, D, H, G, d, F, V, _ = SHAPES[shape]
    base = {"bf16": BF16, "f16": F16, "q8_0": Q8_0, "q4_0": Q4_0, "q4_k_m": Q4_K}[kind]
    head = Q6_K if kind == "q4_k_m" else base
    yield "token_embd.weight", (D, V), base
    yield "output_norm.weight", (D,), F32
    yield "output.weight", (D, V), head
    for i in range(n_layers):
        # llama.cpp's quantiser gives half of these layers more bits.
        more = i < n_layers // 8 or i >= 7 * n_layers // 8 or (i - n_layers // 8) % 3 == 2
        best = Q6_K if kind == "q4_k_m" and more else base
        for name, size, t in (("attn_norm.weight", (D,), F32), ("attn_q.weight", (D, H * d), base),
                              ("attn_q.bias", (H * d,), F32), ("attn_k.weight", (D, G * d), base),
                              ("attn_k.bias", (G * d,), F32), ("attn_v.weight", (D, G * d), best),
                              ("attn_v.bias", (G * d,), F32), ("attn_output.weight", (H * d, D), base),
                              ("ffn_norm.weight", (D,), F32), ("ffn_gate.weight", (D, F), base),
                              ("ffn_up.weight", (D, F), base), ("ffn_down.weight", (F, D), best)):
            yield f"blk.{i}.{name}", size, t


def n_bytes(size, t):
    per, block, _ = BLOCKS[t]
    return int(numpy.prod(size)) // per * block


def text(s):
    return struct.pack("<Q", len(s)) + s.encode()


def pair(key, value):
    if isinstance(value, str):
        return text(key) + struct.pack("<I", 8) + text(value)
    if isinstance(value, float):
        return text(key) + struct.pack("<If", 6, value)
    return text(key) + struct.pack("<II", 4, value)


def patterns(rng):
    """For each type about 64 MB of blocks whose values are about 1/50: tensors take what they need, again and again."""
    made = {}
    for t, (_, block, scales) in BLOCKS.items():
        n = (64 << 20) // block
        if t == F32:
            made[t] = numpy.ones(n, "<f4").tobytes()
        elif t in (F16, BF16):  # sign and mantissa random, one exponent
            keep, exponent = (0x807F, 0x3C80) if t == BF16 else (0x83FF, 0x2400)
            made[t] = (rng.integers(0, 1 << 16, n, "<u2") & keep | exponent).astype("<u2").tobytes()
        else:
            blocks = rng.integers(0, 256, (n, block), numpy.uint8)
            scale = {Q4_0: 2**-8, Q8_0: 2**-12, Q4_K: 2**-14, Q6_K: 2**-17}[t]
            for at in scales:
                blocks[:, at:at + 2] = numpy.full((n, 1), scale, "<f2").view(numpy.uint8)
            made[t] = blocks.tobytes()
    return made


def main():
    if len(sys.argv) != 4 or sys.argv[1] not in SHAPES:
        sys.exit(__doc__)
    shape, kind, path = sys.argv[1:]
    n_layers, D, H, G, d, F, V, base = SHAPES[shape]
    pairs = [("general.architecture", "qwen2"), ("general.name", shape + " random"), ("qwen2.block_count", n_layers),
             ("qwen2.context_length", 131072), ("qwen2.embedding_length", D), ("qwen2.feed_forward_length", F),
             ("qwen2.attention.head_count", H), ("qwen2.attention.head_count_kv", G), ("qwen2.rope.freq_base", base),
             ("qwen2.attention.layer_norm_rms_epsilon", 1e-6), ("qwen2.vocab_size", V),
             ("tokenizer.ggml.model", "none")]
    every = list(tensors(shape, kind))
    head = b"GGUF" + struct.pack("<IQQ", 3, len(every), len(pairs)) + b"".join(pair(*p) for p in pairs)
    at = 0
    for name, size, t in every:
        head += text(name) + struct.pack("<I", len(size)) + struct.pack(f"<{len(size)}Q", *size)
        head += struct.pack("<IQ", t, at)
        at += -(-n_bytes(size, t) // ALIGN) * ALIGN
    made = patterns(numpy.random.default_rng(1))
    zeros = bytes(1 << 20)
    with open(path, "wb", buffering=0) as out:
        out.write(head + bytes(-len(head) % ALIGN))
        for name, size, t in every:
            left = n_bytes(size, t)
            pad = -left % ALIGN
            source = zeros if name.endswith(".bias") else made[t]
            while left > 0:
                piece = memoryview(source)[:left]
                out.write(piece)
                left -= len(piece)
            out.write(bytes(pad))
    print(f"{path}: {os.path.getsize(path)} bytes, {len(every)} tensors")


if __name__ == "__main__":
    main()
