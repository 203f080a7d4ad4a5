#!/bin/sh
# llama.cpp on a GPU, for the tables of docs/bench-gpu.md:
#
#   peer_cuda.sh pack     what its benchmarks need of the pinned tree, as build/peer-cuda/llama.tar.xz: 2 MB
#   peer_cuda.sh build    compiles them from that archive into build/peer-cuda/bin, for CUDA=90
#   peer_cuda.sh run      makes models of random weights in PEER_MODELS (/dev/shm) and measures them
#
# `pack` where the tree is, `build` where nvcc is, `run` where the device is; build/peer-cuda may be carried between them.
# PEER_KINDS (bf16 q8_0 q4_k_m), PEER_SHAPE (r1-distill-qwen-7b), PEER_ROWS (1024 9216) and PEER_BATCHES (1 8 16) choose.
set -eu
cd "$(dirname "$0")/.."
tree=${PITH_LLAMA_CPP:-third_party/llama.cpp}
here=build/peer-cuda
mkdir -p $here

pack() {
    git -C "$tree" ls-files | grep -E '^(CMakeLists.txt|LICENSE|cmake/|include/|src/|common/|vendor/|ggml/CMakeLists.txt|ggml/cmake/|ggml/include/|ggml/src/[^/]*$|ggml/src/ggml-(cpu|cuda)/|tools/(llama-bench|batched-bench)/)' |
        tar -cf - -C "$tree" -T - | xz -6 > $here/llama.tar.xz
    du -h $here/llama.tar.xz
}

build() {
    rm -rf $here/source
    mkdir $here/source
    tar -xJf $here/llama.tar.xz -C $here/source
    printf 'find_package(Threads REQUIRED)\nadd_subdirectory(llama-bench)\nadd_subdirectory(batched-bench)\n' \
        > $here/source/tools/CMakeLists.txt # the others are not in the archive
    cmake -S $here/source -B $here/objects -DCMAKE_BUILD_TYPE=Release -DBUILD_SHARED_LIBS=OFF -DGGML_CUDA=ON \
        -DCMAKE_CUDA_ARCHITECTURES="${CUDA:-90}" -DGGML_CUDA_NCCL=OFF -DGGML_NATIVE=OFF -DGGML_OPENMP=OFF \
        -DGGML_CCACHE=OFF -DLLAMA_OPENSSL=OFF -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF \
        -DLLAMA_BUILD_SERVER=OFF -DLLAMA_BUILD_APP=OFF -DLLAMA_ALL_WARNINGS=OFF ${PEER_CMAKE-} > $here/configure.log
    cmake --build $here/objects -j "${JOBS:-$(nproc)}" --target llama-bench llama-batched-bench > $here/build.log 2>&1 || {
        tail -n 30 $here/build.log
        exit 1
    }
    mkdir -p $here/bin
    cp $here/objects/bin/llama-bench $here/objects/bin/llama-batched-bench $here/bin/
    strip $here/bin/*
    du -h $here/bin/*
}

# Tokens per second of decoding behind so many rows: llama-bench for one sequence, llama-batched-bench for more.
run() {
    shape=${PEER_SHAPE:-r1-distill-qwen-7b}
    rows=${PEER_ROWS:-1024 9216}
    models=${PEER_MODELS:-/dev/shm}
    for dir in /usr/local/cuda/lib64 $(python3 -c 'import nvidia; print(*(p + "/cu13/lib" for p in nvidia.__path__))' \
        2> /dev/null); do
        [ ! -d "$dir" ] || LD_LIBRARY_PATH=${LD_LIBRARY_PATH:+$LD_LIBRARY_PATH:}$dir
    done
    export LD_LIBRARY_PATH
    nvidia-smi --query-gpu=name,driver_version --format=csv,noheader
    for kind in ${PEER_KINDS:-bf16 q8_0 q4_k_m}; do
        model=$models/$shape-$kind.gguf
        [ -f "$model" ] || python3 bench/random_gguf.py "$shape" "$kind" "$model"
        for batch in ${PEER_BATCHES:-1 8 16}; do
            echo "--- $shape $kind, batch $batch"
            for n in $rows; do
                if [ "$batch" = 1 ]; then
                    timeout 120 $here/bin/llama-bench -m "$model" -ngl 99 -fa 1 -p 0 -n 64 -d "$n" -r 3 -o csv |
                        tail -n 1
                else
                    timeout 120 $here/bin/llama-batched-bench -m "$model" -ngl 99 -fa on -b 4096 -ub 1024 \
                        -c $((batch * (n + 128))) -npp "$n" -ntg 64 -npl "$batch" 2> /dev/null | grep '^| *[0-9]'
                fi || echo "no result"
            done
        done
        rm -f "$model"
    done
}

case ${1-} in
pack) pack ;;
build) build ;;
run) run ;;
*)
    sed -n '2,/^set/s/^# \{0,1\}//p' "$0"
    exit 2
    ;;
esac
