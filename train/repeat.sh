#!/bin/sh
# Everything about Pebble, from nothing: trains on the GPU of this machine, exports, writes the held-out set, evaluates.
# Afterwards `git diff --stat` shows what came out differently; a GPU's sums are not the same from run to run.
set -eu
cd "$(dirname "$0")/.."

make build
python3 train/train.py --minutes "${MINUTES:-8.8}" --grow 0.3 --fall 0.4 --out build/pebble/first
python3 train/export.py --weights build/pebble/first/pebble.npz --out build/pebble/first/pebble.gguf
python3 train/train.py --resume build/pebble/first/pebble.gguf --minutes "${MINUTES:-8.8}" --rate 1.5e-3 --grow 0 --fall 0.65 \
    --seed 2 --out build/pebble
python3 train/export.py --weights build/pebble/pebble.npz --out models/pebble.gguf
python3 train/heldout.py
build/pith eval pebble --model models/pebble.gguf --policy "full;rpc;window;random" --samples 4 --out build/pebble/eval \
    --html build/pebble/eval.html
