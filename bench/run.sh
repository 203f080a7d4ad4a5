#!/bin/sh
# What `make bench` runs once everything is built. BENCH_ROUNDS, BENCH_ROWS and BENCH_THREADS choose; the defaults are
# three rounds of everything but the long generation (BENCH_ROWS=long) and the servers (serve, serve8k), and two threads.
set -eu
cd "$(dirname "$0")/.."
mkdir -p build/bench

commit=$(git rev-parse --short HEAD 2> /dev/null || echo unknown)
if ! git diff --quiet HEAD -- include src bench 2> /dev/null; then commit="$commit with changes"; fi

exec build/release/pith_bench --model build/bench/qwen2-0.5b-q8_0.gguf --peer build/peer/bin \
    --program build/release/pith --served models/pebble.gguf \
    --rows "${BENCH_ROWS:-decode,depth,prefill,batch,compete}" --rounds "${BENCH_ROUNDS:-3}" \
    --threads "${BENCH_THREADS:-2}" --report docs/bench.md --commit "$commit"
