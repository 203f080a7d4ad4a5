#!/bin/sh
# The tests of the CUDA backend's kernels, on a machine with a device:
#
#   run.sh [check]    every test, side by side, each with a minute; nothing is timed
#   run.sh time       what the tests measure, one after the other
#   run.sh all        check, then time
#   run.sh sanitize   fewer cases under compute-sanitizer: memcheck, racecheck, synccheck, initcheck
#   run.sh build      compiles the programs into build/cuda-tests; CUDA=90 names the architectures
#
# After each verb names of tests may follow, for these alone. Programs that are in build/cuda-tests are run as they are;
# where one is missing all are built first, with CMake and nvcc and nothing else. The folder may be carried from a
# machine that has the compiler to one that has the device: its programs need the driver, and one needs cuBLASLt.
#
# A table at the end, the last lines of what failed above it, each program's output in build/cuda-out, all of them in
# one file $OUT/cuda-VERB.log if OUT is set. Exits 1 when a test failed, 77 when there is no device.
set -u
cd "$(dirname "$0")/../.." || exit 2
self=$PWD/tests/cuda/run.sh
programs=build/cuda-tests
out=build/cuda-out
jobs=${JOBS:-$(nproc)}

build() {
    cmake -S tests/cuda -B build/cuda-objects -DPITH_CUDA="${CUDA:-90}" > build/cuda-build.log 2>&1 &&
        cmake --build build/cuda-objects -j "$jobs" >> build/cuda-build.log 2>&1 || {
        tail -n 30 build/cuda-build.log
        exit 1
    }
    mkdir -p $programs
    for name in $tests; do cp build/cuda-objects/"$name" $programs/ || exit 1; done
}

# One run, in a process of its own: its output, and its row of the table.
one() { # name limit-in-seconds command...
    name=$1 limit=$2
    shift 2
    begin=$(date +%s)
    timeout -k 5 "$limit" "$@" > "$out/$name.log" 2>&1
    code=$?
    case $code in
    0) verdict=passed ;;
    77) verdict=skipped ;;
    124 | 137) verdict="FAILED, over its $limit s" ;;
    *) verdict="FAILED, exit $code" ;;
    esac
    printf '%-32s %4d s  %s\n' "$name" $(($(date +%s) - begin)) "$verdict" > "$out/$name.row"
}

# The rows of runs that were just made, in order; what failed first, with the end of its output.
table() { # names...
    for name; do
        grep -q FAILED "$out/$name.row" || continue
        echo "--- $name"
        grep -aE 'FAIL|rror|Invalid|Uninit|hazard|Barrier|ERROR SUMMARY' "$out/$name.log" | head -n 12
        tail -n 6 "$out/$name.log"
    done
    echo "---"
    for name; do cat "$out/$name.row"; done
    for name; do ! grep -q FAILED "$out/$name.row" || return 1; done
    for name; do ! grep -q skipped "$out/$name.row" || return 77; done
}

check() {
    for name in $tests; do echo "$name 60 $programs/$name check"; done | xargs -P "$jobs" -L 1 sh "$self" one
    table $tests
}

timing() {
    for name in $tests; do
        [ "$name" != test_product_pack ] || continue
        sh "$self" one "$name.time" 240 $programs/"$name" time # in a process of its own: a function shares its names
        echo "--- $name"
        cat "$out/$name.time.log"
    done
}

sanitize() {
    command -v compute-sanitizer > /dev/null || { echo "compute-sanitizer is not there"; exit 2; }
    export PITH_TEST_QUICK=1
    names=
    for tool in memcheck racecheck synccheck initcheck; do
        for name in $tests; do
            [ "$name" = test_product_pack ] || names="$names $name.$tool" # which asks nothing of a device
        done
    done
    for run in $names; do
        echo "$run 240 compute-sanitizer --tool ${run#*.} --error-exitcode 9 --print-limit 20 $programs/${run%.*} check"
    done | xargs -P "$jobs" -L 1 sh "$self" one
    table $names
}

verb=${1:-check}
[ $# = 0 ] || shift
if [ "$verb" = one ]; then
    one "$@"
    exit 0
fi

tests="test_product test_append test_compact test_events test_attend_decode test_attend_prefill test_sample"
for source in tests/cuda/test_*.cu; do # others behind these
    name=$(basename "$source" .cu)
    case " $tests " in *" $name "*) ;; *) tests="$tests $name" ;; esac
done
mkdir -p "$out"
if [ "$verb" = build ]; then
    build
    exit 0
fi
for name in $tests; do [ -x $programs/"$name" ] || { build; break; }; done
tests=${*:-$tests}

# cuBLASLt where no loader looks: in a toolkit, or in the packages that PyTorch brings.
wheels=$(python3 -c 'import nvidia; print(*(p + "/cu13/lib" for p in nvidia.__path__))' 2> /dev/null)
for dir in /usr/local/cuda/lib64 $wheels; do
    [ ! -d "$dir" ] || LD_LIBRARY_PATH=${LD_LIBRARY_PATH:+$LD_LIBRARY_PATH:}$dir
done
export LD_LIBRARY_PATH
! command -v nvidia-smi > /dev/null || nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader

rm -f "$out"/*.log "$out"/*.row
case $verb in
check) check ;;
time) timing ;;
all)
    check
    timing
    table $tests
    ;;
sanitize) sanitize ;;
*)
    sed -n '2,/^set/s/^# \{0,1\}//p' "$self"
    exit 2
    ;;
esac
code=$?
[ -z "${OUT-}" ] || tail -n +1 "$out"/*.log > "$OUT/cuda-$verb.log"
exit $code
