#!/usr/bin/env python3
"""Seeds of fuzz/corpus/gguf: whole models of a few hundred bytes (y_*: accepted) and damaged ones (n_*: refused).

    python3 fuzz/make_gguf_corpus.py

Files named by a hash beside them were found by `make fuzz` and kept by merging (-merge=1).
"""

import pathlib
import struct

OUT = pathlib.Path(__file__).parent / "corpus" / "gguf"
U8, I8, U16, I16, U32, I32, F32, BOOL, STRING, ARRAY, U64, I64, F64 = range(13)
FORMAT = {U8: "B", I8: "b", U16: "H", I16: "h", U32: "I", I32: "i", F32: "f", BOOL: "?", U64: "Q", I64: "q", F64: "d"}
T_F32, T_F16, T_Q4_0, T_Q8_0 = 0, 1, 2, 8
ROW_BYTES = {T_F32: lambda n: 4 * n, T_F16: lambda n: 2 * n, T_Q4_0: lambda n: n // 32 * 18, T_Q8_0: lambda n: n // 32 * 34}


def text(s):
    raw = s.encode()
    return struct.pack("<Q", len(raw)) + raw


def value(kind, v):
    return text(v) if kind == STRING else struct.pack("<" + FORMAT[kind], v)


def key(name, kind, v):
    head = text(name)
    if isinstance(v, list):
        return head + struct.pack("<IIQ", ARRAY, kind, len(v)) + b"".join(value(kind, x) for x in v)
    return head + struct.pack("<I", kind) + value(kind, v)


def gguf(keys, tensors=(), version=3, alignment=32):
    infos, data = b"", b""
    for name, kind, shape in tensors:
        rows = 1
        for n in shape[1:]:
            rows *= n
        infos += text(name) + struct.pack("<I", len(shape)) + struct.pack(f"<{len(shape)}Q", *shape)
        infos += struct.pack("<IQ", kind, len(data))
        data += b"\1" * (ROW_BYTES[kind](shape[0]) * rows)
        data += b"\0" * (-len(data) % alignment)
    head = b"GGUF" + struct.pack("<IQQ", version, len(tensors), len(keys)) + b"".join(keys) + infos
    return head + b"\0" * (-len(head) % alignment) + data


def vocabulary(n=5):
    tokens = ["a", "b", "ab", "\u0120", "<|end|>", "c", "d", "e"][:n]
    return [
        key("tokenizer.ggml.model", STRING, "gpt2"),
        key("tokenizer.ggml.pre", STRING, "qwen2"),
        key("tokenizer.ggml.tokens", STRING, tokens),
        key("tokenizer.ggml.token_type", I32, [1] * n),
        key("tokenizer.ggml.merges", STRING, ["a b"]),
        key("tokenizer.ggml.eos_token_id", U32, n - 1),
    ]


def sentencepiece():
    tokens = ["<unk>", "<s>", "</s>"] + [f"<0x{b:02X}>" for b in range(256)]
    return [
        key("tokenizer.ggml.model", STRING, "llama"),
        key("tokenizer.ggml.tokens", STRING, tokens),
        key("tokenizer.ggml.token_type", I32, [2, 3, 3] + [6] * 256),
        key("tokenizer.ggml.scores", F32, [0.0] * 259),
    ]


def shape(arch, d=8, ff=8, heads=1, extra=()):
    return [
        key("general.architecture", STRING, arch),
        key(f"{arch}.block_count", U32, 1),
        key(f"{arch}.context_length", U32, 64),
        key(f"{arch}.embedding_length", U32, d),
        key(f"{arch}.feed_forward_length", U32, ff),
        key(f"{arch}.attention.head_count", U32, heads),
        key(f"{arch}.attention.layer_norm_rms_epsilon", F32, 1e-6),
        *extra,
    ]


def tensors(arch, d=8, ff=8, head=8, vocab=5, kind=T_F32, tied=True, biases=False):
    layer = [("attn_norm", T_F32, [d]), ("attn_q", kind, [d, d]), ("attn_k", kind, [d, d]), ("attn_v", kind, [d, d]),
             ("attn_output", kind, [d, d]), ("ffn_norm", T_F32, [d]), ("ffn_gate", kind, [d, ff]),
             ("ffn_up", kind, [d, ff]), ("ffn_down", kind, [ff, d])]
    if arch == "qwen3":
        layer += [("attn_q_norm", T_F32, [head]), ("attn_k_norm", T_F32, [head])]
    out = [("token_embd.weight", kind, [d, vocab]), ("output_norm.weight", T_F32, [d])]
    out += [(f"blk.0.{name}.weight", t, s) for name, t, s in layer]
    if biases:
        out += [(f"blk.0.attn_{c}.bias", T_F32, [d]) for c in "qkv"]
    return out if tied else out + [("output.weight", kind, [d, vocab])]


def main():
    OUT.mkdir(parents=True, exist_ok=True)
    every_type = [key(f"k{t}", t, "x" if t == STRING else 1) for t in range(13) if t != ARRAY]
    every_type += [key(f"a{t}", t, ["x", ""] if t == STRING else [1, 0]) for t in range(13) if t != ARRAY]
    yarn = [key("qwen2.rope.scaling.type", STRING, "yarn"), key("qwen2.rope.scaling.factor", F32, 4.0),
            key("qwen2.rope.scaling.original_context_length", U32, 64), key("qwen2.rope.freq_base", F32, 1e6)]
    lengths = [key("qwen3.attention.key_length", U32, 8), key("qwen3.attention.value_length", U32, 8),
               key("qwen3.attention.head_count_kv", U32, 1)]
    qwen2 = gguf(shape("qwen2", extra=yarn) + vocabulary(), tensors("qwen2", biases=True))
    files = {
        "y_empty": gguf([]),
        "y_version_2": gguf([], version=2),
        "y_types": gguf(every_type),
        "y_alignment": gguf([key("general.alignment", U32, 64)], [("t", T_F32, [3]), ("u", T_Q8_0, [32, 2])], alignment=64),
        "y_shapes": gguf([], [("a", T_F32, [1]), ("b", T_F16, [3, 2]), ("c", T_Q4_0, [64, 2, 2]), ("d", T_F32, [1, 2, 1, 2])]),
        "y_vocabulary": gguf(vocabulary(8)),
        "y_sentencepiece": gguf(sentencepiece()),
        "y_qwen2": qwen2,
        "y_qwen3": gguf(shape("qwen3", extra=lengths) + vocabulary(), tensors("qwen3", tied=False)),
        "y_llama": gguf(shape("llama") + vocabulary(), tensors("llama") + [("rope_freqs.weight", T_F32, [4])]),
        "y_llama_q4_0": gguf(shape("llama", d=32, ff=32, heads=2) + vocabulary(), tensors("llama", 32, 32, kind=T_Q4_0)),
        "n_no_bytes": b"",
        "n_magic": b"GGML" + gguf([])[4:],
        "n_version": gguf([], version=4),
        "n_counts": b"GGUF" + struct.pack("<IQQ", 3, 1 << 63, 1 << 63),
        "n_twice": gguf([key("a", U8, 1), key("a", U8, 2)]),
        "n_long_array": gguf([text("a") + struct.pack("<IIQ", ARRAY, U64, 1 << 61)]),
        "n_overlap": gguf([], [("a", T_F32, [8]), ("b", T_F32, [8])]).replace(struct.pack("<IQ", T_F32, 32), struct.pack("<IQ", T_F32, 0)),
        "n_cut_metadata": qwen2[:200],
        "n_cut_infos": qwen2[:1100],
        "n_cut_data": qwen2[:-40],
        "n_same_tokens": gguf(vocabulary()).replace(text("b"), text("a"), 1),
        "n_unused_tensor": gguf(shape("llama") + vocabulary(), tensors("llama") + [("blk.0.more", T_F32, [4])]),
        "n_wrong_shape": gguf(shape("llama", ff=16) + vocabulary(), tensors("llama")),
        "n_experts": gguf(shape("llama", extra=[key("llama.expert_count", U32, 8)]) + vocabulary(), tensors("llama")),
    }
    for name, raw in files.items():
        (OUT / name).write_bytes(raw)


main()
