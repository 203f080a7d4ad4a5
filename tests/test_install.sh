#!/bin/sh
# `make install`, into an empty folder, and then what somebody does who embeds Pith: the README's example program,
# compiled with nothing but the installed pkg-config file, run on a tiny model.
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT

cmake --install "$PITH_TEST_BIN/.." --prefix "$dir/prefix" > /dev/null
"$dir/prefix/bin/pith" --version

# The first C block of the README.
awk '/^```/ { if (inside) exit; inside = ($0 == "```c"); next } inside' "$PITH_ROOT/README.md" > "$dir/example.c"
[ -s "$dir/example.c" ] || { echo "README.md has no C example"; exit 1; }

flags=$(PKG_CONFIG_PATH=$dir/prefix/lib/pkgconfig pkg-config --cflags --libs --static pith)
cc -std=c11 -Wall -Wextra -Werror "$dir/example.c" $flags -o "$dir/example"

"$PITH_TEST_BIN/tiny_model_main" --arch llama --type f32 --out "$dir/tiny.gguf"
"$dir/example" "$dir/tiny.gguf" "Why is the sky blue?" > "$dir/text"
[ -s "$dir/text" ] || { echo "the example printed nothing"; exit 1; }
