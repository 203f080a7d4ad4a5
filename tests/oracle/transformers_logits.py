#!/usr/bin/env python3
"""Pith's logits against those of transformers, for the same small random checkpoints.

    transformers_logits.py LOGITS_MAIN LLAMA_CPP [DEVICE]

LOGITS_MAIN is the program of tests/logits_main.c, LLAMA_CPP the source tree with the converter, DEVICE Pith's (cuda).
Needs torch, transformers, safetensors, and what the converter imports.

Each checkpoint is made by transformers, saved as safetensors, converted to GGUF by the converter, and run by both over
the same 256 tokens, as a prompt of 200 and then one by one, and one by one from the first. The reference is transformers
in f32. Its own run in bf16 tells what a run in 16 bits may differ by: Pith's root mean square may not be larger, and
where the reference's best two logits are further apart than the bf16 run's largest difference, Pith's best must be the
same. Exits with 1 where that fails. Differences are in units of the standard deviation of the reference's logits.
"""
import os
import subprocess
import sys
import tempfile

import numpy as np
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, Qwen2Config, Qwen3Config

N_TOKENS, N_VOCAB = 256, 512
PROMPTS = (1, 200)
SIZES = dict(vocab_size=N_VOCAB, hidden_size=256, intermediate_size=512, num_hidden_layers=3, num_attention_heads=4,
             num_key_value_heads=2, max_position_embeddings=1024, bos_token_id=256, eos_token_id=256)
PLAIN = dict(rope_type="default", rope_theta=1e6)
LLAMA3 = dict(rope_type="llama3", rope_theta=5e5, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
              original_max_position_embeddings=128)
CONFIGS = {
    "qwen2": Qwen2Config(**SIZES, rope_parameters=PLAIN, tie_word_embeddings=False),
    "qwen2, tied": Qwen2Config(**SIZES, rope_parameters=PLAIN, tie_word_embeddings=True),
    "qwen3": Qwen3Config(**SIZES, rope_parameters=PLAIN, head_dim=128, tie_word_embeddings=False),
    "llama": LlamaConfig(**SIZES, rope_parameters=dict(PLAIN, rope_theta=1e4), tie_word_embeddings=False),
    "llama, llama3 rope": LlamaConfig(**SIZES, rope_parameters=LLAMA3, tie_word_embeddings=False),
}
TYPES = {"f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}


def random_checkpoint(config, dtype):
    """Weights with which every layer matters and the logits are spread."""
    torch.manual_seed(7)
    model = AutoModelForCausalLM.from_config(config).float()
    with torch.no_grad():
        for name, p in model.named_parameters():
            if "norm" in name:
                p.copy_(1 + 0.2 * torch.randn_like(p))
            elif p.dim() == 1:
                p.copy_(0.3 * torch.randn_like(p))
            else:
                p.copy_(torch.randn_like(p) * 1.5 / p.shape[1] ** 0.5)
    return model.to(dtype)


def byte_vocabulary(self):
    """In place of the converter's own: token ids are given here, so any vocabulary that loads will do."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = iter(range(256, 512))
    names = [chr(b) if b in printable else chr(next(others)) for b in range(256)]
    writer = self.gguf_writer
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(names + ["<|end|>"] + [f"[PAD{i}]" for i in range(257, N_VOCAB - 1)] + ["th"])
    writer.add_token_types([1] * 256 + [3] + [5] * (N_VOCAB - 258) + [1])
    writer.add_token_merges(["t h"])
    writer.add_bos_token_id(256)
    writer.add_eos_token_id(256)


def convert(llama_cpp, folder, kind, out):
    sys.path[:0] = [llama_cpp, os.path.join(llama_cpp, "gguf-py")]
    import convert_hf_to_gguf
    from conversion.llama import LlamaModel
    from conversion.qwen import Qwen2Model, Qwen3Model

    for known in (LlamaModel, Qwen2Model, Qwen3Model):
        known.set_vocab = byte_vocabulary
    arguments, sys.argv = sys.argv, ["convert", folder, "--outtype", kind, "--outfile", out]
    try:
        convert_hf_to_gguf.main()
    finally:
        sys.argv = arguments


def run_reference(folder, tokens, dtype, device):
    """The checkpoint as loaded in this type: converted with .to(), a model would round its rope frequencies too."""
    with torch.inference_mode():
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).to(device).eval()
        return model(torch.tensor(tokens, device=device)[None]).logits[0].double().cpu().numpy()


def run_pith(program, gguf, tokens, n_prompt, device, folder):
    given, out = os.path.join(folder, "tokens"), os.path.join(folder, "logits")
    with open(given, "w", encoding="ascii") as f:
        f.write(" ".join(map(str, tokens)))
    subprocess.run([program, gguf, given, str(n_prompt), device, out], check=True)
    return np.fromfile(out, "<f4").reshape(-1, N_VOCAB).astype(np.float64)


def distance(a, b):
    d = np.abs(a - b) / b.std(1, keepdims=True)
    return np.sqrt((d**2).mean()), d.max()


def check(name, kind, program, llama_cpp, device):
    where = "cuda" if torch.cuda.is_available() else "cpu"
    tokens = np.random.default_rng(11).integers(0, 256, N_TOKENS).tolist()
    good = True
    with tempfile.TemporaryDirectory() as folder:
        random_checkpoint(CONFIGS[name], TYPES[kind]).save_pretrained(folder)
        gguf = os.path.join(folder, "model.gguf")
        convert(llama_cpp, folder, kind, gguf)
        reference = run_reference(folder, tokens, torch.float32, where)
        near_rms, near_max = distance(run_reference(folder, tokens, torch.bfloat16, where), reference)
        for n_prompt in PROMPTS:
            expected = reference[n_prompt - 1 :]
            ours = run_pith(program, gguf, tokens, n_prompt, device, folder)
            assert ours.shape == expected.shape, (ours.shape, expected.shape)
            rms, most = distance(ours, expected)
            best = np.sort(expected, 1)
            clear = best[:, -1] - best[:, -2] > near_max * expected.std(1)
            same = ours.argmax(1) == expected.argmax(1)
            fine = rms <= near_rms and bool(same[clear].all())
            good &= fine
            print(f"| {name} | {kind} | {n_prompt} | {rms:.2e} | {most:.2e} | {near_rms:.2e} | {near_max:.2e} |"
                  f" {same[clear].sum()} of {clear.sum()}, {same.sum()} of {same.size} | {'' if fine else 'FAILED'} |",
                  flush=True)
    return good


def main(program, llama_cpp, device="cuda"):
    print("| model | weights | prompt | Pith, rms | max | transformers in bf16, rms | max | same best: clear, all | |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    results = [check(name, kind, os.path.abspath(program), os.path.abspath(llama_cpp), device)
               for name in CONFIGS for kind in TYPES]
    return 0 if all(results) else 1


if __name__ == "__main__":
    if len(sys.argv) not in (3, 4):
        sys.exit(__doc__)
    sys.exit(main(*sys.argv[1:]))
