#!/bin/sh
# Puts the pinned source of llama.cpp (v0.5.0, MIT) into third_party/llama.cpp. It travels as a git bundle inside an npm
# package; without npm it comes from its GitHub repository. Either way the commit's tree id is what counts.
#
# PITH_LLAMA_CPP=DIR names a tree that is already there; then nothing is fetched.
set -eu
cd "$(dirname "$0")/.."
. scripts/fetch_lib.sh

tree=fd570ef54b10ec5fecb739e7e04c8ce44a6f415a
package=node-llama-cpp@3.22.1
sha512=bltIipuWmc123H7tMIgDGKSsSrhmhlQYeVUC48XTjVW7XGJJiJJyCdlTMzQ/LiWoPkGDpcL4FviDpgw7qfTiDw==
dest=third_party/llama.cpp

# The tree id of a checkout without local changes, else "changed".
tree_of() {
    git -C "$1" diff --quiet HEAD 2> /dev/null && git -C "$1" rev-parse 'HEAD^{tree}' || echo changed
}

if [ -n "${PITH_LLAMA_CPP-}" ]; then
    [ -f "$PITH_LLAMA_CPP/include/llama.h" ] || die "PITH_LLAMA_CPP=$PITH_LLAMA_CPP: no include/llama.h there"
    [ "$(tree_of "$PITH_LLAMA_CPP")" = $tree ] ||
        echo "fetch: PITH_LLAMA_CPP=$PITH_LLAMA_CPP is not the pinned tree $tree; going on with it" >&2
    exit 0
fi

if [ -d $dest ]; then
    [ "$(tree_of $dest)" = $tree ] || die "$dest is not the pinned tree $tree; remove it to have it fetched again"
    exit 0
fi

begin_fetch third_party llama
rm -rf "$work/clone"
if command -v npm > /dev/null; then
    fetch_npm $package $sha512 llama.tgz
    tar -xzf "$work/llama.tgz" -C "$work" package/llama/gitRelease.bundle
    from=$work/package/llama/gitRelease.bundle
    git clone -q -c core.autocrlf=false -c advice.detachedHead=false "$from" "$work/clone" 2> "$work/git.log" ||
        die "git clone of $from failed: $(tail -n 1 "$work/git.log")"
else
    from=https://github.com/ggml-org/llama.cpp
    echo "fetch: $from"
    git clone -q -c core.autocrlf=false -c advice.detachedHead=false --depth 1 --branch v0.5.0 "$from" "$work/clone" \
        2> "$work/git.log" || die "git clone of $from failed: $(tail -n 1 "$work/git.log")"
fi
[ "$(tree_of "$work/clone")" = $tree ] || die "$from: its tree is not $tree; nothing was kept"
[ -d $dest ] || mv "$work/clone" $dest # another run may have been first
end_fetch
