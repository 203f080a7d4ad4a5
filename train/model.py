"""Pebble in PyTorch: the Qwen2 architecture over packed rows of conversations. Parameters carry GGUF's names, with "_" for
"." and the layer in front."""

import dataclasses

import torch
from torch import nn
from torch.nn import functional as F

from stream import LONGEST, SILENT


@dataclasses.dataclass
class Shape:
    width: int = 512
    layers: int = 8
    heads: int = 8
    kv_heads: int = 2
    head: int = 64
    inner: int = 1536
    vocabulary: int = 1024
    rope_base: float = 1e6
    epsilon: float = 1e-6


def attention(q, k, v, starts, head_repeats):
    """Causal within each conversation. q (T, H, d); k, v (T, G, d); starts (n+1) int32, row offsets."""
    k, v = k.repeat_interleave(head_repeats, 1), v.repeat_interleave(head_repeats, 1)
    if q.is_cuda:
        from torch.nn.attention.varlen import varlen_attn

        return varlen_attn(q, k, v, starts, starts, LONGEST, LONGEST, window_size=(-1, 0))
    rows = torch.arange(q.shape[0])  # the same, plainly, for small tests on a CPU
    owner = torch.bucketize(rows, starts.long(), right=True)
    seen = (owner[:, None] == owner[None]) & (rows[:, None] >= rows[None])
    weights = torch.einsum("thd,shd->hts", q, k) * q.shape[-1] ** -0.5
    return torch.einsum("hts,shd->thd", weights.masked_fill(~seen, float("-inf")).softmax(-1), v)


def rope_tables(shape, device):
    """cos and sin of every position, (LONGEST, head): pairs (i, i + head/2) as in Qwen2."""
    frequency = shape.rope_base ** -(torch.arange(0, shape.head, 2, device=device).double() / shape.head)
    angle = torch.arange(LONGEST, device=device).double()[:, None] * frequency
    angle = torch.cat([angle, angle], 1)
    return angle.cos().float(), angle.sin().float()


def rotate(x, cos, sin):
    half = x.shape[-1] // 2
    return (x * cos + torch.cat([-x[..., half:], x[..., :half]], -1) * sin).type_as(x)


class Norm(nn.Module):
    def __init__(self, shape):
        super().__init__()
        self.weight, self.epsilon = nn.Parameter(torch.ones(shape.width)), shape.epsilon

    def forward(self, x):
        y = x.float()
        return (y * torch.rsqrt(y.pow(2).mean(-1, keepdim=True) + self.epsilon) * self.weight).type_as(x)


class Layer(nn.Module):
    def __init__(self, shape):
        super().__init__()
        self.shape, queries, keys = shape, shape.heads * shape.head, shape.kv_heads * shape.head
        self.attn_norm, self.ffn_norm = Norm(shape), Norm(shape)
        self.attn_q, self.attn_k = nn.Linear(shape.width, queries), nn.Linear(shape.width, keys)
        self.attn_v, self.attn_output = nn.Linear(shape.width, keys), nn.Linear(queries, shape.width, bias=False)
        self.ffn_gate = nn.Linear(shape.width, shape.inner, bias=False)
        self.ffn_up = nn.Linear(shape.width, shape.inner, bias=False)
        self.ffn_down = nn.Linear(shape.inner, shape.width, bias=False)

    def forward(self, x, starts, cos, sin):
        s, y, T = self.shape, self.attn_norm(x), x.shape[0]
        q = rotate(self.attn_q(y).view(T, s.heads, s.head), cos, sin)
        k = rotate(self.attn_k(y).view(T, s.kv_heads, s.head), cos, sin)
        v = self.attn_v(y).view(T, s.kv_heads, s.head)
        x = x + self.attn_output(attention(q, k, v, starts, s.heads // s.kv_heads).reshape(T, -1))
        y = self.ffn_norm(x)
        return x + self.ffn_down(F.silu(self.ffn_gate(y)) * self.ffn_up(y))


class Pebble(nn.Module):
    def __init__(self, shape):
        super().__init__()
        self.shape = shape
        self.token_embd = nn.Embedding(shape.vocabulary, shape.width)
        self.blk = nn.ModuleList(Layer(shape) for _ in range(shape.layers))
        self.output_norm = Norm(shape)
        for name, p in self.named_parameters():
            if p.dim() == 2:  # what writes into the residual stream starts smaller, as there are 2 * layers such
                into = name.endswith(("attn_output.weight", "ffn_down.weight"))
                nn.init.normal_(p, std=0.02 / (2 * shape.layers) ** 0.5 if into else 0.02)
            elif name.endswith("bias"):
                nn.init.zeros_(p)

    def forward(self, row, starts, groups, tables, n_groups, digits):
        """Loss of one row and, per group, counts (4, n_groups): tokens, wrong ones, digits, wrong ones.

        row (T+1) int32 with flags; starts (n+1) int32; groups (T) int64; tables: rope_tables; digits (vocabulary) bool.
        """
        tokens, target, taught = row[:-1] & (SILENT - 1), (row[1:] & (SILENT - 1)).long(), (row[1:] < SILENT).float()
        index = torch.arange(tokens.shape[0], device=row.device, dtype=torch.int32)
        owner = torch.bucketize(index, starts, right=True) - 1
        pos = (index - starts[owner]).clamp(max=LONGEST - 1).long()
        cos, sin = tables[0][pos][:, None], tables[1][pos][:, None]
        x = self.token_embd(tokens)
        if torch.is_autocast_enabled():
            x = x.to(torch.bfloat16)
        for layer in self.blk:
            x = layer(x, starts, cos, sin)
        logits = F.linear(self.output_norm(x), self.token_embd.weight.type_as(x)).float()
        loss = (F.cross_entropy(logits, target, reduction="none") * taught).sum() / taught.sum()
        wrong = (logits.argmax(-1) != target).float() * taught
        numeric = digits[target].float()
        counts = torch.stack([taught, wrong, taught * numeric, wrong * numeric])
        sums = torch.zeros(4, n_groups, device=row.device).index_add_(1, groups, counts)
        return loss, sums.detach()
