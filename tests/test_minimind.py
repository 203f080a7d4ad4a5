"""What scripts/convert_minimind.py makes of MiniMind2-Small: logits are those of the export that it read, computed here
as the model's authors define it (pairs (i, i + d/2) rotated, matrices (in, out)), and it answers questions.

Skipped where third_party/minimind2 is missing (`make test` fetches it).
"""
import json
import os
import pathlib
import runpy
import subprocess
import sys
import tempfile
import unittest

import numpy as np

ROOT, PITH, BIN = pathlib.Path(os.environ["PITH_ROOT"]), os.environ["PITH_PROGRAM"], os.environ["PITH_TEST_BIN"]
SOURCE = ROOT / "third_party" / "minimind2"
FOLDER = tempfile.TemporaryDirectory()
MODEL = os.path.join(FOLDER.name, "minimind.gguf")
QUESTION = "中国的首都是哪里?"
N_PROMPT, MOST = 20, 0.03  # standard deviations of the logits: weights and cache are in f16


def convert():
    """Runs the script; its functions."""
    sys.argv = ["convert_minimind.py", "--out", MODEL]
    sys.dont_write_bytecode = True
    return runpy.run_path(str(ROOT / "scripts" / "convert_minimind.py"), run_name="__main__")


class Export:
    """The model in f32, straight from the export."""

    def __init__(self, read_onnx):
        self.config = json.loads((SOURCE / "config.json").read_text())
        self.tensors, self.products = read_onnx(SOURCE / "onnx" / "model_quantized.onnx")
        self.embedding = self.matrix("model.embed_tokens.weight")

    def matrix(self, name):
        scale, zero = self.tensors[name + "_scale"].item(), self.tensors[name + "_zero_point"].item()
        return (self.tensors[name + "_quantized"].astype(np.float32) - zero) * np.float32(scale)

    def product(self, x, layer, role):
        return x @ self.matrix(self.products[f"/model/layers.{layer}/{role}"])

    def norm(self, x, name):
        return x / np.sqrt((x * x).mean(-1, keepdims=True) + self.config["rms_norm_eps"]) * self.tensors[name]

    def rotate(self, x):  # (heads, n, d)
        half = x.shape[-1] // 2
        angles = np.outer(np.arange(x.shape[1]), self.config["rope_theta"] ** (-np.arange(half) / half))
        a, b = x[..., :half], x[..., half:]
        return np.concatenate([a * np.cos(angles) - b * np.sin(angles), b * np.cos(angles) + a * np.sin(angles)], -1)

    def heads(self, x, layer, role):
        return self.product(x, layer, "self_attn/" + role).reshape(len(x), -1, self.config["head_dim"]).swapaxes(0, 1)

    def attention(self, x, layer):
        q, k = (self.rotate(self.heads(x, layer, role)) for role in ("q_proj", "k_proj"))
        shared = len(q) // len(k)
        k, v = np.repeat(k, shared, 0), np.repeat(self.heads(x, layer, "v_proj"), shared, 0)
        scores = q @ k.swapaxes(1, 2) / np.sqrt(q.shape[-1]) + np.triu(np.full((len(x), len(x)), -np.inf), 1)
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        mixed = (weights / weights.sum(-1, keepdims=True)) @ v
        return self.product(mixed.swapaxes(0, 1).reshape(len(x), -1), layer, "self_attn/o_proj")

    def logits(self, tokens):
        x = self.embedding[tokens]
        for layer in range(self.config["num_hidden_layers"]):
            name = f"model.layers.{layer}."
            x = x + self.attention(self.norm(x, name + "input_layernorm.weight"), layer)
            y = self.norm(x, name + "post_attention_layernorm.weight")
            gate = self.product(y, layer, "mlp/gate_proj")
            y = gate / (1 + np.exp(-gate)) * self.product(y, layer, "mlp/up_proj")
            x = x + self.product(y, layer, "mlp/down_proj")
        return self.norm(x, "model.norm.weight") @ self.embedding.T


def logits_of_pith(tokens, n_prompt):
    listed, out = os.path.join(FOLDER.name, "tokens"), os.path.join(FOLDER.name, "logits")
    with open(listed, "w") as f:
        f.write(" ".join(map(str, tokens)))
    command = [os.path.join(BIN, "logits_main"), MODEL, listed, str(n_prompt), "cpu", out]
    subprocess.run(command, check=True, timeout=120)
    return np.fromfile(out, np.float32).reshape(len(tokens) - n_prompt + 1, -1)


class MiniMind(unittest.TestCase):
    def test_logits_are_those_of_the_export(self):
        tokens = [1] + [(i * i * 37 + 11 * i) % 6000 + 300 for i in range(59)]
        ours, want = logits_of_pith(tokens, N_PROMPT), EXPORT.logits(tokens)[N_PROMPT - 1:]
        self.assertEqual(ours.shape, want.shape)
        difference = np.abs(ours - want).max(-1) / want.std(-1)
        print(f"largest difference {difference.max():.4f} of {MOST} standard deviations")
        self.assertLessEqual(difference.max(), MOST)

    def test_it_answers(self):
        done = subprocess.run([PITH, "run", "-m", MODEL, "-p", QUESTION, "--greedy", "-n", "24", "--json"], timeout=120,
                              check=True, capture_output=True)
        answer = json.loads(done.stdout)
        self.assertIn("北京", answer["text"])
        self.assertEqual(answer["finish_reason"], "stop")


if __name__ == "__main__":
    if not SOURCE.is_dir():
        print(f"skipped: no {SOURCE}")
        sys.exit(77)
    EXPORT = Export(convert()["read_onnx"])
    unittest.main(argv=["test_minimind.py"])
