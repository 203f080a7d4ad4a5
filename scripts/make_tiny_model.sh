#!/bin/sh
# Tiny seeded random models, whole GGUF files, for tests and for trying things out; tests/tiny.h says what is in them.
#
#   scripts/make_tiny_model.sh --arch qwen2 --type q4_K --out tiny.gguf [--seed N --layers N ...]   (none: all options)
#   scripts/make_tiny_model.sh --all DIR      one of each architecture and type
set -eu
program=$(dirname "$0")/../build/release/tests/tiny_model_main
if [ ! -x "$program" ]; then
    echo "$program is missing: 'make check' builds it" >&2
    exit 1
fi
if [ "${1-}" != --all ]; then exec "$program" "$@"; fi
dir=${2:?"--all needs a folder"}
mkdir -p "$dir"
for arch in qwen2 qwen3 llama; do
    for type in f32 f16 bf16 q1_0 q2_0 q4_0 q4_1 q5_0 q5_1 q8_0 q2_K q3_K q4_K q5_K q6_K tq1_0 tq2_0 mxfp4 nvfp4 \
        iq1_s iq1_m iq2_xxs iq2_xs iq2_s iq3_xxs iq3_s iq4_nl iq4_xs; do
        "$program" --arch $arch --type $type --out "$dir/$arch-$type.gguf"
    done
done
