# Shared by the fetch_*.sh scripts, which source it from the repository root. POSIX sh.
#
# How a fetch stays honest: everything is made in $work, which no build reads; what is complete and checked moves to its
# place by one rename. A run that was killed leaves only files in $work, and those are used again or thrown away
# according to their checksum.

# Git exports its repository to hooks; the clones made here must not mistake it for theirs.
unset $(git rev-parse --local-env-vars 2> /dev/null) || true

die() {
    echo "$(basename "$0"): $*" >&2
    exit 1
}

# Makes $work ("<folder>/.fetch/<name>") and holds its lock until this process ends: two runs at once take turns.
begin_fetch() { # folder name
    work=$1/.fetch/$2
    mkdir -p "$work"
    exec 9> "$1/.fetch/$2.lock"
    flock 9
}

end_fetch() {
    rm -rf "$work"
}

# Is the file's sha512 the given one, in base64 as npm writes it?
sha512_is() { # file base64
    [ -f "$1" ] || return 1
    want=$(printf %s "$2" | base64 -d | od -An -v -tx1 | tr -d ' \n')
    [ "$(sha512sum "$1" | cut -d ' ' -f 1)" = "$want" ]
}

# Leaves the tarball of an npm package in $work/<file>, checked against its sha512.
fetch_npm() { # package@version sha512-base64 file
    if sha512_is "$work/$3" "$2"; then return; fi
    rm -rf "$work/$3" "$work/npm"
    mkdir "$work/npm"
    echo "fetch: $1"
    npm pack --silent --ignore-scripts --pack-destination "$work/npm" "$1" > "$work/npm.log" 2>&1 ||
        die "npm pack $1 failed: $(grep . "$work/npm.log" | tail -n 1)"
    mv "$work"/npm/*.tgz "$work/$3"
    if ! sha512_is "$work/$3" "$2"; then
        rm "$work/$3"
        die "$1: the tarball's sha512 is not the expected one; nothing was kept"
    fi
}
