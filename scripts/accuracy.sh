#!/bin/sh
# What `make accuracy` runs once everything is built: Pebble's answers under the policies that docs/accuracy.md compares,
# and its tables. Goes on where it was stopped. ACCURACY_DEVICE (cpu), ACCURACY_BATCH (16), ACCURACY_OUT (build/accuracy)
# and PITH (build/pith) choose where; ACCURACY_SAMPLES (4) and ACCURACY_FACTOR_SAMPLES (1) how many answers to a problem;
# ACCURACY_LIMIT (all) how many problems, and only with all of them the tables are kept.
set -eu
cd "$(dirname "$0")/.."
out=${ACCURACY_OUT:-build/accuracy}
report=docs/accuracy.md
mkdir -p "$out"

# table SECTION ARGUMENTS: what pith eval says with them, in the place of what stands between the section's marks.
table() {
    section=$1
    shift
    "${PITH:-build/pith}" eval pebble --data eval --model models/pebble.gguf --device "${ACCURACY_DEVICE:-cpu}" \
        --batch "${ACCURACY_BATCH:-16}" --max-tokens 14000 --out "$out" --limit "$limit" --markdown "$@" > "$out/$section.md"
    cat "$out/$section.md"
    [ "$limit" = "$all" ] || return 0
    awk -v begin="<!-- $section: begin -->" -v end="<!-- $section: end -->" -v table="$out/$section.md" '
        $0 == end { skip = 0 }
        !skip { print }
        $0 == begin { skip = 1; while ((getline line < table) > 0) print line }' "$report" > "$out/report.md"
    cat "$out/report.md" > "$report"
}

all=$(cat eval/pebble/*.jsonl | wc -l)
limit=${ACCURACY_LIMIT:-$all}
samples=${ACCURACY_SAMPLES:-4}

factors="full;rpc"
for option in p=256 c=2 c=8 r=1 r=8 r=128 agg=group agg=head sel=new sel=prompt; do factors="$factors;rpc:$option"; done
# Other ratios hold other numbers of bytes, and so need rivals of their own.
for option in c=2 c=8; do factors="$factors;window:$option;random:$option"; done

compared="full;rpc;window;random"
table policies --policy "$compared" --samples "$samples"
table kinds --policy "$compared" --samples "$samples" --by kind
table factors --policy "$factors" --samples "${ACCURACY_FACTOR_SAMPLES:-1}"
