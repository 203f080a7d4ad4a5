# Pith. `make help` lists what can be asked for. CMake compiles, scripts/ fetch and set up; this file says in which order.
#
# Variants never share objects: build/release, build/cuda, build/asan, build/clang, build/fuzz. All share build/llama.
#
# CUDA=90 with build, demo, check or install: with the CUDA backend for a Hopper card; CUDA="80;90" for Ampere as well.

JOBS         ?= $(shell nproc)
PREFIX       ?= /usr/local
CUDA         ?=
FUZZ_SECONDS ?= 60
LLAMA        := $(abspath $(or $(PITH_LLAMA_CPP),third_party/llama.cpp))
TINYLLAMA    := models/tinyllama-1.1b-chat.gguf

VARIANT      := build/$(if $(CUDA),cuda,release)
CONFIGURE    := cmake -S . -DPITH_LLAMA_CPP=$(LLAMA)
COMPILE      := env -u MAKEFLAGS -u MAKELEVEL cmake --build
PEER         := -DCMAKE_BUILD_TYPE=Release -DBUILD_SHARED_LIBS=OFF -DGGML_OPENMP=OFF -DGGML_CCACHE=OFF \
    -DLLAMA_OPENSSL=OFF -DLLAMA_BUILD_APP=OFF -DLLAMA_BUILD_SERVER=ON -DLLAMA_USE_PREBUILT_UI=OFF -DLLAMA_BUILD_TESTS=OFF -DLLAMA_ALL_WARNINGS=OFF
NEON_FLAGS   := -std=gnu11 -O3 -Wall -Wextra -Wshadow -Wconversion -Werror -ffp-contract=off -fno-math-errno \
    -fno-trapping-math -static -Iinclude -Isrc -Itests -Itests/neon
TESTS        := ctest --output-on-failure --no-tests=error -j $(JOBS) --test-dir

.PHONY: all build demo accuracy test check test-isa test-neon asan lint fuzz bench install clean distclean help \
        ready-to-build ready-to-test
.NOTPARALLEL:

all: build ## the same as build

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' Makefile

build: ready-to-build ## build/pith, after whatever set-up is missing
	@$(CONFIGURE) -B $(VARIANT) -DPITH_CUDA="$(CUDA)" > build/configure.log
	@$(COMPILE) $(VARIANT) -j $(JOBS) --target pith_program
	@ln -sfn $(notdir $(VARIANT))/pith build/pith

demo: build ## Pebble solves a puzzle, with the full cache and with a compressed one side by side
	@scripts/demo.py

accuracy: build ## Pebble's answers under every policy and option; writes docs/accuracy.md, takes hours without a GPU
	@scripts/accuracy.sh

test: lint check test-isa test-neon asan check-cuda ## all of these, after whatever set-up is missing:

lint: ready-to-test ## compiled by clang too, with all warnings as errors
	@CC=clang CXX=clang++ $(CONFIGURE) -B build/clang -DPITH_TESTS=ON > build/configure.log
	@$(COMPILE) build/clang -j $(JOBS) --target all pith_bench

check: ready-to-test build ## the test suite, as released
	@$(CONFIGURE) -B $(VARIANT) -DPITH_CUDA="$(CUDA)" -DPITH_TESTS=ON > build/configure.log
	@$(COMPILE) $(VARIANT) -j $(JOBS)
	@$(TESTS) $(VARIANT) -LE emulated

test-isa: check ## the suite again without AVX-512, then without AVX2; not servers, which know no instructions, nor Pebble at last (minutes)
	PITH_TEST_QUICK=1 PITH_DISABLE_CPU=avx512 $(TESTS) $(VARIANT) -LE emulated -E '^test_(serve|structured|clients)$$'
	PITH_TEST_QUICK=1 PITH_DISABLE_CPU=avx512,avx2,neon $(TESTS) $(VARIANT) -LE emulated -E '^test_(serve|structured|clients|pebble)$$'

test-neon: ready-to-test ## the kernels' test, compiled for 64-bit ARM, in an emulator
	@mkdir -p build/neon
	aarch64-linux-gnu-gcc $(NEON_FLAGS) src/base/*.c src/cpu/kernels*.c src/cpu/cpuid.c \
	    src/cpu/rows.c src/cpu/attend.c src/cpu/events.c tests/test_kernels.c -o build/neon/test_kernels -lm
	qemu-aarch64 build/neon/test_kernels

asan: ready-to-test ## the suite with AddressSanitizer and UndefinedBehaviorSanitizer
	@$(CONFIGURE) -B build/asan -DPITH_TESTS=ON -DPITH_SANITIZE=address,undefined > build/configure.log
	@$(COMPILE) build/asan -j $(JOBS)
	PITH_TEST_QUICK=1 $(TESTS) build/asan

check-cuda: ready-to-test ## the CUDA kernels in an emulator; with nvcc also that the backend compiles, links, says what is missing
	@$(CONFIGURE) -B build/release -DPITH_CUDA= -DPITH_TESTS=ON > build/configure.log
	@$(COMPILE) build/release -j $(JOBS) --target emulated_tests
	@$(TESTS) build/release -L emulated
	@command -v nvcc > /dev/null || { echo "CUDA backend not compiled: no nvcc"; exit 0; }; \
	set -e; clang $(filter-out -static,$(NEON_FLAGS)) -fsyntax-only -DPITH_CUDA_LIBRARY_DIR='""' \
	    -isystem "$$(nvcc --dryrun -E -x cu /dev/null 2>&1 | sed -n 's/^#$$ TOP=//p')/include" -isystem $(LLAMA)/ggml/include src/cuda/*.c; \
	$(CONFIGURE) -B build/cuda -DPITH_CUDA="$(or $(CUDA),90)" -DPITH_TESTS=ON > build/configure.log; \
	$(COMPILE) build/cuda -j $(JOBS) --target cuda_tests; \
	$(TESTS) build/cuda -L cuda; \
	[ -e /dev/nvidiactl ] || echo "GPU tests skipped: no device"

test-cuda: ready-to-test ## the tests of the CUDA kernels and of the engine on a device
	@command -v nvcc > /dev/null || { echo "test-cuda: skipped, no nvcc"; exit 0; }; \
	CUDA="$(or $(CUDA),90)" tests/cuda/run.sh build && tests/cuda/run.sh check && \
	$(CONFIGURE) -B build/cuda -DPITH_CUDA="$(or $(CUDA),90)" -DPITH_TESTS=ON > build/configure.log && \
	$(COMPILE) build/cuda -j $(JOBS) --target test_device test_rpc_device && \
	build/cuda/tests/test_device && PITH_ROOT=. build/cuda/tests/test_rpc_device || { [ $$? = 77 ] && echo "test-cuda: skipped, no device"; }

fuzz: ready-to-test ## each fuzz target for FUZZ_SECONDS (60); finds go to build/fuzz
	@CC=clang CXX=clang++ $(CONFIGURE) -B build/fuzz -DPITH_FUZZ=ON -DPITH_SANITIZE=address,undefined > build/configure.log
	@$(COMPILE) build/fuzz -j $(JOBS)
	@set -e; for target in build/fuzz/tests/fuzz_*; do \
	    name=$${target##*/fuzz_}; finds=build/fuzz/finds/$$name; mkdir -p $$finds; \
	    $$target -max_total_time=$(FUZZ_SECONDS) -artifact_prefix=$$finds/ $$finds fuzz/corpus/$$name; \
	done

bench: build ## Pith and llama.cpp measured in turn; writes docs/bench.md
	@cmake -S $(LLAMA) -B build/peer $(PEER) > build/configure.log
	@$(COMPILE) build/peer -j $(JOBS) --target llama-bench llama-batched-bench \
	    $(if $(findstring serve,$(BENCH_ROWS)),llama-server)
	@$(COMPILE) build/release -j $(JOBS) --target pith_bench
	bench/run.sh

install: build ## program, library, header and pkg-config file into PREFIX (/usr/local)
	@cmake --install $(VARIANT) --prefix $(PREFIX)

clean: ## removes our objects; what was fetched and llama.cpp's build stay
	rm -rf build/release build/cuda build/cuda-* build/asan build/clang build/fuzz build/neon build/pith

distclean: ## removes everything that was built or fetched
	rm -rf build third_party models/.fetch $(TINYLLAMA)

ready-to-build:
	@scripts/setup.sh build
	@scripts/fetch_llama.sh
	@scripts/build_llama.sh $(LLAMA)

ready-to-test:
	@scripts/setup.sh test
	@scripts/fetch_llama.sh
	@scripts/build_llama.sh $(LLAMA)
	@scripts/fetch_minimind.sh
	@scripts/fetch_tinyllama.sh
	@scripts/fetch_clients.sh
