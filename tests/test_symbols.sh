#!/bin/sh
# Everything that libpith.a defines for the linker begins with pith_, and is defined once: it can be linked into any
# program, in any order. (Weak symbols are C++ templates of the shim, the same in every program. nvcc makes the names of a
# file's own namespace unique, but global.)
set -eu
nm -g --defined-only "$PITH_TEST_BIN/../libpith.a" > symbols.txt
awk '$2 == "T" { n++ }
     $2 ~ /^[A-U]$/ && $3 !~ /^(pith_|_Z.*(NK?4pith|_GLOBAL__N_))/ { print "not ours by name:", $3; bad = 1 }
     $2 ~ /^[A-U]$/ && seen[$3]++ { print "defined twice:", $3; bad = 1 }
     END { print n, "functions"; exit bad || n < 50 }' symbols.txt
