#!/bin/sh
# Builds llama.cpp's share of Pith once, into build/llama: `build_llama.sh SOURCE-TREE`. Later runs do nothing until the
# source, the options, the compiler or the CPU is another one (ggml is compiled for the CPU it finds; PITH_NATIVE=OFF
# makes a build for any x86-64-v3). An interrupted build goes on where it was.
set -eu
source=$(cd "$1" && pwd)
cd "$(dirname "$0")/.."
build=build/llama
native=${PITH_NATIVE-ON}

# Everything that the objects depend on, as one word.
key=$({
    echo "$PWD $source $native"
    git --git-dir="$source/.git" rev-parse 'HEAD^{tree}' 2> /dev/null || true
    cat cmake/llama/CMakeLists.txt
    "${CC-cc}" --version
    "${CXX-c++}" --version
    [ "$native" != ON ] || grep -m 1 -E '^(flags|Features)' /proc/cpuinfo || true
} | sha256sum | cut -d ' ' -f 1)

mkdir -p $build
exec 9> $build.lock
flock 9
if [ -z "${PITH_LLAMA_CPP-}" ] && [ "$(cat $build/done 2> /dev/null)" = "$key" ]; then exit 0; fi
# (In a tree of the user's own, files may have changed without notice: make decides.)

if [ "$(cat $build/key 2> /dev/null)" != "$key" ]; then
    rm -rf $build
    mkdir $build
    echo "$key" > $build/key
fi
echo "build: llama.cpp, once; a minute or two (log: $build/log)"
if ! {
    cmake -S cmake/llama -B $build -DCMAKE_BUILD_TYPE=Release -DPITH_NATIVE="$native" -DPITH_LLAMA_CPP="$source" &&
        cmake --build $build -j "$(nproc)"
} > $build/log 2>&1; then
    tail -n 30 $build/log >&2
    echo "build: llama.cpp did not build; the whole log is $build/log" >&2
    exit 1
fi
echo "$key" > $build/done
