"""Trains Pebble on one GPU for a given time: python3 train.py --minutes 19 --out DIR

Matrices by Muon (Jordan et al. 2024: momentum whose update is made orthogonal by a Newton-Schulz iteration), the rest by
AdamW. The rate is constant after a short warm-up and falls linearly over the last part. Puzzles grow with the curriculum.
Writes DIR/pebble.npz (f16) at the end and every few minutes, and DIR/log.json. --resume MODEL.gguf is a further leg: it begins
with the weights of an earlier one, but with an optimizer that has seen nothing.
"""

import argparse
import json
import math
import os
import queue
import threading
import time

import multiprocessing
import numpy as np
import torch

import stream
import weights
from model import Pebble, Shape, rope_tables
from vocabulary import Vocabulary

WARM_UP = 100  # steps
SHORTEST_LIMIT = 600  # tokens of trace that the curriculum begins with
LIMIT = 12000  # and ends with


def orthogonal(update):
    """The nearest orthogonal matrices, about: five Newton-Schulz steps with Muon's coefficients. update (n, rows, cols)."""
    x = update.bfloat16()
    tall = x.size(-2) > x.size(-1)
    x = x.mT if tall else x
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(5):
        a = x @ x.mT
        x = 3.4445 * x + (-4.7750 * a + 2.0315 * a @ a) @ x
    return x.mT if tall else x


class Muon:
    """Matrices of the same shape are updated together."""

    def __init__(self, matrices, decay=0.05, momentum=0.95):
        self.decay, self.momentum, by_shape = decay, momentum, {}
        for p in matrices:
            by_shape.setdefault(tuple(p.shape), []).append(p)
        self.groups = [(ps, torch.zeros(len(ps), *shape, device=ps[0].device)) for shape, ps in by_shape.items()]
        self.orthogonal = torch.compile(orthogonal) if matrices[0].is_cuda else orthogonal

    @torch.no_grad()
    def step(self, rate):
        for params, mean in self.groups:
            gradient = torch.stack([p.grad for p in params])
            mean.lerp_(gradient, 1 - self.momentum)
            update = self.orthogonal(torch.lerp(gradient, mean, self.momentum)).float()
            torch._foreach_mul_(params, 1 - rate * self.decay)  # 0.2 sqrt(max): steps as large as AdamW's
            torch._foreach_add_(params, list(update.unbind(0)), alpha=-rate * 0.2 * max(params[0].shape) ** 0.5)
            for p in params:
                p.grad = None


class Feed:
    """Batches on the device, fetched ahead by a thread through pinned memory."""

    SLOTS = 12

    def __init__(self, source, device):
        self.device, self.ready = device, queue.Queue(self.SLOTS - 4)  # a slot is reused when its copy is long done
        shapes = ((stream.ROW + 1, torch.int32), (stream.MOST + 1, torch.int32), (stream.ROW, torch.int64))
        self.slots = [[torch.zeros(n, dtype=kind) for n, kind in shapes] for _ in range(self.SLOTS)]
        if device == "cuda":
            self.slots = [[t.pin_memory() for t in slot] for slot in self.slots]
        threading.Thread(target=self._fill, args=(source,), daemon=True).start()

    def _fill(self, source):
        i = 0
        while True:
            slot = self.slots[i % self.SLOTS]
            for tensor, data, kind in zip(slot, source.get(), (np.uint16, np.int32, np.int8)):
                tensor.numpy()[:] = np.frombuffer(data, kind)
            self.ready.put(slot)
            i += 1

    def next(self):
        return [t.to(self.device, non_blocking=True) for t in self.ready.get()]


def save(net, path):
    arrays = {name: p.detach().half().cpu().numpy() for name, p in net.named_parameters()}
    np.savez(path + ".part.npz", **arrays)
    os.replace(path + ".part.npz", path)


def describe(step, tokens, seconds, counts, loss, rate, limit):
    n, wrong, numeric, wrong_numeric = counts
    groups = " ".join(f"{name} {1e4 * w / max(1, k):.1f}/{1e4 * wd / max(1, kd):.2f}" for name, k, w, kd, wd in
                      zip(stream.GROUPS, n, wrong, numeric, wrong_numeric))
    return (f"{step:6d} {seconds:4.0f} s {tokens / 1e6:5.1f} Mtok {tokens / max(1e-9, seconds) / 1e6:.2f} Mtok/s to {limit:5.0f} "
            f"rate {rate:.1e} loss {loss:.4f} digits {1e4 * sum(wrong_numeric) / max(1, sum(numeric)):.2f}  "
            f"wrong/digits in 10000: {groups}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=19)
    parser.add_argument("--out", required=True)
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--fall", type=float, default=0.35, help="part of the time in which the rate falls to zero")
    parser.add_argument("--grow", type=float, default=0.25, help="part of the time in which the puzzles grow")
    parser.add_argument("--workers", type=int, default=10)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--resume", help="a GGUF file of weights to begin with, in place of random ones")
    parser.add_argument("--save-every", type=float, default=4, help="minutes")
    options = parser.parse_args()
    os.makedirs(options.out, exist_ok=True)
    cuda = torch.cuda.is_available()
    device = "cuda" if cuda else "cpu"
    torch.manual_seed(options.seed)
    torch.set_float32_matmul_precision("high")

    limit = multiprocessing.Value("d", SHORTEST_LIMIT if options.grow > 0 else LIMIT, lock=False)
    batches, workers = stream.start(options.seed, options.workers, limit)
    vocabulary = Vocabulary()
    shape = Shape(vocabulary=len(vocabulary.tokens))
    digits = torch.tensor([t.lstrip("Ġ").isdigit() and t.isascii() or t[:1] == "Ġ" and t[1:].isdigit()
                           for t in vocabulary.tokens], device=device)
    net = Pebble(shape).to(device)
    if options.resume:
        held = weights.read_for(options.resume, vocabulary.tokens)
        net.load_state_dict({name: torch.from_numpy(held[name]) for name in net.state_dict()})
    print(f"{sum(p.numel() for p in net.parameters()) / 1e6:.1f} M parameters", flush=True)

    matrices = [p for name, p in net.named_parameters() if p.dim() == 2 and "embd" not in name]
    others = [p for name, p in net.named_parameters() if p.dim() != 2 or "embd" in name]
    muon, adam = Muon(matrices), torch.optim.AdamW(others, betas=(0.9, 0.95), weight_decay=0, fused=cuda)
    model = torch.compile(net, dynamic=False) if cuda else net
    tables, feed = rope_tables(shape, device), Feed(batches, device)
    n_groups = len(stream.GROUPS)
    counts, losses = torch.zeros(4, n_groups, device=device), torch.zeros((), device=device)

    log, flying, step, since, waited = [], [], 0, 0, 0.0
    begun = saved = None
    while True:
        clock = time.time()
        batch = feed.next()
        waited += time.time() - clock
        part = 0 if begun is None else (time.time() - begun) / (60 * options.minutes)
        if part >= 1:
            break
        rate = options.rate * min(1, (step + 1) / WARM_UP) * min(1, (1 - part) / options.fall)
        for group in adam.param_groups:
            group["lr"] = rate
        if options.grow > 0:
            limit.value = SHORTEST_LIMIT * (LIMIT / SHORTEST_LIMIT) ** min(1, part / options.grow)
        with torch.autocast(device, torch.bfloat16, enabled=cuda):
            loss, sums = model(*batch, tables, n_groups, digits)
        loss.backward()
        muon.step(rate)
        torch.nn.utils.clip_grad_norm_(others, 1.0)
        adam.step()
        adam.zero_grad(set_to_none=True)
        counts += sums
        losses += loss.detach()
        step, since = step + 1, since + 1
        if cuda:  # the host runs at most four steps ahead, so that pinned slots are not overwritten while copied
            flying.append(torch.cuda.Event())
            flying[-1].record()
            if len(flying) > 4:
                flying.pop(0).synchronize()
        if step == 3:  # compiled: the clock starts
            begun = saved = time.time()
            waited = 0.0
        if step % 100 == 0 or not cuda and step % 10 == 0:
            seconds = time.time() - begun
            tokens = (step - 3) * stream.ROW
            c, mean = counts.tolist(), (losses / since).item()
            log.append({"step": step, "seconds": seconds, "tokens": tokens, "loss": mean, "counts": c, "waited": waited})
            if step % 500 == 0 or not cuda or step < 300:
                print(describe(step, tokens, seconds, c, mean, rate, limit.value) + f"  waited {waited:.0f} s", flush=True)
            counts.zero_()
            losses.zero_()
            since = 0
            if not math.isfinite(mean):
                raise SystemExit("the loss is not a number")
            if time.time() - saved > 60 * options.save_every:
                saved = time.time()
                save(net, os.path.join(options.out, "pebble.npz"))
    save(net, os.path.join(options.out, "pebble.npz"))
    with open(os.path.join(options.out, "log.json"), "w") as file:
        json.dump(log, file)
    for worker in workers:
        worker.terminate()
    batches.cancel_join_thread()


if __name__ == "__main__":
    main()
