#!/bin/sh
# A GPU where there is none, or a program without CUDA: one line that says so, nothing on standard output, exit 1.
# Skipped where a GPU is there.
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
"$PITH_TEST_BIN/tiny_model_main" --arch llama --type f32 --heads 4 --kv-heads 2 --head-dim 64 --d 256 \
    --out "$dir/tiny.gguf"

for device in cuda cuda:1; do
    code=0
    "$PITH_PROGRAM" run --model "$dir/tiny.gguf" --device $device --raw --prompt x --max-tokens 1 \
        > "$dir/out" 2> "$dir/err" || code=$?
    if [ $code = 0 ]; then exit 77; fi
    cat "$dir/err"
    [ $code = 1 ] || { echo "exit $code, expected 1"; exit 1; }
    [ ! -s "$dir/out" ] || { echo "something on standard output"; exit 1; }
    [ "$(wc -l < "$dir/err")" = 1 ] || { echo "expected one line"; exit 1; }
    grep -Eq '^pith: cuda(:[0-9]+)?: (.*no NVIDIA driver.*|no device|not built in.*|expected a device below.*)$' \
        "$dir/err" || { echo "expected what is missing"; exit 1; }
done
