"""Weights of a GGUF file as arrays, read with numpy alone: what a second leg of training begins with."""

import struct

import numpy as np

SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
STRING, ARRAY = 8, 9
F32, F16, Q8_0 = 0, 1, 8
ALIGNMENT = 32  # of the tensors' data, as export.py writes it
BLOCK = np.dtype([("scale", "<f2"), ("values", "i1", 32)])  # of Q8_0


class _Cursor:
    def __init__(self, data):
        self.data, self.at = data, 0

    def scalar(self, letter):
        value = struct.unpack_from("<" + letter, self.data, self.at)[0]
        self.at += struct.calcsize("<" + letter)
        return value

    def string(self):
        n = self.scalar("Q")
        self.at += n
        return self.data[self.at - n : self.at].decode()

    def value(self, kind):
        if kind == STRING:
            return self.string()
        if kind == ARRAY:
            of, n = self.scalar("I"), self.scalar("Q")
            return [self.value(of) for _ in range(n)]
        return self.scalar(SCALARS[kind])


def _tensor(data, at, shape, kind):
    n = int(np.prod(shape))
    if kind == Q8_0:
        blocks = np.frombuffer(data, BLOCK, n // 32, at)
        return (blocks["scale"].astype(np.float32)[:, None] * blocks["values"]).reshape(shape)
    return np.frombuffer(data, {F32: "<f4", F16: "<f2"}[kind], n, at).astype(np.float32).reshape(shape)


def read(path):
    """({name: f32 array, rows first}, {key: value}) of a GGUF file with tensors in f32, f16 or Q8_0."""
    with open(path, "rb") as file:
        cursor = _Cursor(file.read())
    if cursor.scalar("I") != 0x46554747 or cursor.scalar("I") != 3:
        raise SystemExit(f"{path} is not a GGUF file of version 3")
    n_tensors, n_keys = cursor.scalar("Q"), cursor.scalar("Q")
    keys = {}
    for _ in range(n_keys):
        name = cursor.string()
        keys[name] = cursor.value(cursor.scalar("I"))
    listed = []
    for _ in range(n_tensors):
        name = cursor.string()
        shape = [cursor.scalar("Q") for _ in range(cursor.scalar("I"))][::-1]
        listed.append((name, shape, cursor.scalar("I"), cursor.scalar("Q")))
    data = -(-cursor.at // ALIGNMENT) * ALIGNMENT
    return {name: _tensor(cursor.data, data + at, shape, kind) for name, shape, kind, at in listed}, keys


def read_for(path, tokens):
    """Arrays whose embedding has a row for each of tokens, by their texts: ids may have changed since; a new token's row is
    the mean of all."""
    arrays, keys = read(path)
    held, row = arrays["token_embd.weight"], {text: i for i, text in enumerate(keys["tokenizer.ggml.tokens"])}
    arrays["token_embd.weight"] = np.stack([held[row[text]] if text in row else held.mean(0) for text in tokens])
    return arrays
