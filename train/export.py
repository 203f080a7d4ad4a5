#!/usr/bin/python3
"""Makes models/pebble.gguf from trained weights: python3 train/export.py --weights DIR/pebble.npz --out models/pebble.gguf

Needs numpy, and gguf-py of the pinned llama.cpp tree. Matrices in Q8_0 (or --type f16, f32), norms and biases in f32.
"""

import argparse
import os
import pathlib
import sys

import numpy as np

from vocabulary import SPECIAL, Vocabulary

ROOT = pathlib.Path(__file__).resolve().parent.parent
HEADS, KV_HEADS, HEAD, POSITIONS, ROPE_BASE, EPSILON = 8, 2, 64, 16384, 1e6, 1e-6

# Thinking of earlier turns is dropped, as R1-Distill's template does; the answer begins inside a thought.
CHAT_TEMPLATE = (
    "{% for message in messages %}{% set content = message['content'] %}"
    "{% if message['role'] == 'assistant' and '</think>' in content %}"
    "{% set content = content.split('</think>')[-1].lstrip('\\n') %}{% endif %}"
    "<|im_start|>{{ message['role'] }}\n{{ content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n{% endif %}"
)


def add_shape(writer, weights):
    width, inner = weights["token_embd.weight"].shape[1], weights["blk.0.ffn_up.weight"].shape[0]
    writer.add_name("Pebble")
    writer.add_description("A small model that solves puzzles by long written reasoning")
    writer.add_license("mit")
    writer.add_block_count(1 + max(int(name.split(".")[1]) for name in weights if name.startswith("blk.")))
    writer.add_context_length(POSITIONS)
    writer.add_embedding_length(width)
    writer.add_feed_forward_length(inner)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_rope_freq_base(ROPE_BASE)
    writer.add_layer_norm_rms_eps(EPSILON)


def add_vocabulary(writer, gguf):
    vocabulary, kind = Vocabulary(), gguf.TokenType
    think = ("<think>", "</think>")  # text that a reader sees; the other special tokens are not

    def kind_of(token):
        if token.startswith("<|unused_"):
            return kind.UNUSED
        return kind.USER_DEFINED if token in think else kind.CONTROL if token in SPECIAL else kind.NORMAL

    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(vocabulary.tokens)
    writer.add_token_types([kind_of(token) for token in vocabulary.tokens])
    writer.add_token_merges([" ".join(pair) for pair in vocabulary.merges])
    writer.add_bos_token_id(vocabulary.special("<|endoftext|>"))
    writer.add_eos_token_id(vocabulary.special("<|im_end|>"))
    writer.add_add_bos_token(False)
    writer.add_chat_template(CHAT_TEMPLATE)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", type=pathlib.Path, required=True)
    parser.add_argument("--llama-cpp", type=pathlib.Path,
                        default=pathlib.Path(os.environ.get("PITH_LLAMA_CPP", ROOT / "third_party" / "llama.cpp")))
    parser.add_argument("--type", choices=["f32", "f16", "q8_0"], default="q8_0")
    parser.add_argument("--out", type=pathlib.Path, required=True)
    options = parser.parse_args()
    sys.path.insert(0, str(options.llama_cpp / "gguf-py"))
    import gguf

    with np.load(options.weights) as held:
        weights = {name: held[name].astype(np.float32) for name in held.files}
    partial = options.out.with_name(options.out.name + ".part")  # a file of the final name is a whole one
    writer = gguf.GGUFWriter(partial, "qwen2")
    add_shape(writer, weights)
    add_vocabulary(writer, gguf)
    kind = gguf.GGMLQuantizationType[options.type.upper()]
    for name, w in weights.items():
        stored = kind if w.ndim == 2 else gguf.GGMLQuantizationType.F32
        writer.add_tensor(name, gguf.quants.quantize(w, stored), raw_dtype=stored)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    partial.rename(options.out)


if __name__ == "__main__":
    main()
