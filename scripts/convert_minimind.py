#!/usr/bin/python3
"""Makes a GGUF of MiniMind2-Small from its quantised ONNX export.

    scripts/fetch_minimind.sh
    python3 scripts/convert_minimind.py --out minimind.gguf [--type f16|f32|q8_0]

Needs numpy, and gguf-py of the pinned llama.cpp tree. What is in the export: norms in f32; every matrix as int8 with one
scale, stored (in, out) for x @ W; the embedding as uint8 with zero point 128, and once more as int8 for the output head.
The model ties the two, so the second copy is left out.
GGUF wants matrices (out, in), and the rows of Q and K in the order of llama's rotary pairs: (2i, 2i+1) where the
export rotates (i, i + d/2).
"""

import argparse
import json
import os
import pathlib
import sys

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parent.parent


# ------------------------------------------------------------------------------------- the little of protobuf we need


def fields(message):
    """Yields (field number, value): an int for varints, bytes for everything else."""
    at = 0

    def varint():
        nonlocal at
        value = shift = 0
        while True:
            byte = message[at]
            at += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    while at < len(message):
        tag = varint()
        kind = tag & 7
        if kind == 0:
            yield tag >> 3, varint()
            continue
        size = {1: 8, 5: 4}[kind] if kind != 2 else varint()
        yield tag >> 3, message[at : at + size]
        at += size


FLOAT, UINT8, INT8 = 1, 2, 3  # onnx.TensorProto.DataType
DTYPE = {FLOAT: np.dtype("<f4"), UINT8: np.dtype("u1"), INT8: np.dtype("i1")}


def tensor(message):
    """(name, array) of an onnx.TensorProto; None in place of an array of a type that no weight has."""
    name, kind, shape, data, scalars = "", 0, [], None, []
    for field, value in fields(message):
        if field == 1:
            shape.append(value)
        elif field == 2:
            kind = value
        elif field == 4:  # float_data, packed
            data = value
        elif field == 5:  # int32_data: how single int8 and uint8 values are written
            scalars.append(value if isinstance(value, int) else next(fields(b"\x08" + bytes(value)))[1])
        elif field == 8:
            name = bytes(value).decode()
        elif field == 9:  # raw_data
            data = value
    if kind not in DTYPE:
        return name, None
    if data is None:
        return name, np.array(scalars or [0], np.int64)
    return name, np.frombuffer(data, DTYPE[kind]).reshape(shape)


def read_onnx(path):
    """Initialisers by name, and for each product node its weight's name."""
    tensors, products = {}, {}
    model = memoryview(path.read_bytes())
    graph = next(value for field, value in fields(model) if field == 7)
    for field, value in fields(graph):
        if field == 5:
            name, array = tensor(value)
            tensors[name] = array
        elif field == 1:
            node = list(fields(value))
            inputs = [bytes(v).decode() for f, v in node if f == 1]
            name = "".join(bytes(v).decode() for f, v in node if f == 3)
            if name.endswith("/MatMul_quant"):  # "/model/layers.0/self_attn/q_proj/MatMul_quant"
                products[name.removesuffix("/MatMul_quant")] = inputs[1].removesuffix("_quantized")
    return tensors, products


# ----------------------------------------------------------------------------------------------------------- the model

MATRICES = {
    "attn_q": "self_attn/q_proj",
    "attn_k": "self_attn/k_proj",
    "attn_v": "self_attn/v_proj",
    "attn_output": "self_attn/o_proj",
    "ffn_gate": "mlp/gate_proj",
    "ffn_up": "mlp/up_proj",
    "ffn_down": "mlp/down_proj",
}


def interleave(w, n_heads):
    """Rows of each head from (i, i + d/2) pairs to (2i, 2i + 1) pairs: (n_heads * d, D)."""
    rows, cols = w.shape
    return w.reshape(n_heads, 2, rows // n_heads // 2, cols).swapaxes(1, 2).reshape(rows, cols)


def read_weights(path, config):
    """GGUF's tensors by name, f32."""
    tensors, products = read_onnx(path)

    def dequantise(name):
        scale, zero = tensors[name + "_scale"], tensors[name + "_zero_point"]
        return (tensors[name + "_quantized"].astype(np.float32) - np.float32(zero.item())) * np.float32(scale.item())

    out = {"token_embd.weight": dequantise("model.embed_tokens.weight")}
    for layer in range(config["num_hidden_layers"]):
        old = f"model.layers.{layer}."
        out[f"blk.{layer}.attn_norm.weight"] = tensors[old + "input_layernorm.weight"]
        out[f"blk.{layer}.ffn_norm.weight"] = tensors[old + "post_attention_layernorm.weight"]
        for new, role in MATRICES.items():
            w = dequantise(products[f"/model/layers.{layer}/{role}"]).T
            if new == "attn_q":
                w = interleave(w, config["num_attention_heads"])
            if new == "attn_k":
                w = interleave(w, config["num_key_value_heads"])
            out[f"blk.{layer}.{new}.weight"] = np.ascontiguousarray(w)
    out["output_norm.weight"] = tensors["model.norm.weight"]
    return out


def add_shape(writer, config):
    writer.add_name("MiniMind2-Small")
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_rope_dimension_count(config["head_dim"])
    writer.add_rope_freq_base(config["rope_theta"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])


def add_vocabulary(writer, source, gguf):
    tokenizer = json.loads((source / "tokenizer.json").read_text())
    settings = json.loads((source / "tokenizer_config.json").read_text())
    control = {token["id"] for token in tokenizer["added_tokens"] if token["special"]}
    tokens = sorted(tokenizer["model"]["vocab"].items(), key=lambda item: item[1])
    assert [number for _, number in tokens] == list(range(len(tokens)))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")  # its pre-tokenizer is ByteLevel with GPT-2's expression
    writer.add_token_list([text for text, _ in tokens])
    kind = gguf.TokenType
    writer.add_token_types([kind.CONTROL if number in control else kind.NORMAL for _, number in tokens])
    merges = tokenizer["model"]["merges"]
    writer.add_token_merges([merge if isinstance(merge, str) else " ".join(merge) for merge in merges])
    writer.add_bos_token_id(tokenizer["model"]["vocab"][settings["bos_token"]])
    writer.add_eos_token_id(tokenizer["model"]["vocab"][settings["eos_token"]])
    writer.add_add_bos_token(False)
    writer.add_chat_template(settings["chat_template"])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--source", type=pathlib.Path, default=ROOT / "third_party" / "minimind2")
    parser.add_argument("--llama-cpp", type=pathlib.Path,
                        default=pathlib.Path(os.environ.get("PITH_LLAMA_CPP", ROOT / "third_party" / "llama.cpp")))
    parser.add_argument("--type", choices=["f32", "f16", "q8_0"], default="f16")
    parser.add_argument("--out", type=pathlib.Path, required=True)
    options = parser.parse_args()
    sys.path.insert(0, str(options.llama_cpp / "gguf-py"))
    import gguf

    config = json.loads((options.source / "config.json").read_text())
    weights = read_weights(options.source / "onnx" / "model_quantized.onnx", config)
    partial = options.out.with_name(options.out.name + ".part")  # a file of the final name is a whole one
    writer = gguf.GGUFWriter(partial, "llama")
    add_shape(writer, config)
    add_vocabulary(writer, options.source, gguf)
    kind = gguf.GGMLQuantizationType[options.type.upper()]
    for name, w in weights.items():
        stored = kind if w.ndim == 2 else gguf.GGMLQuantizationType.F32
        writer.add_tensor(name, gguf.quants.quantize(w, stored), raw_dtype=stored)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    partial.rename(options.out)


main()
