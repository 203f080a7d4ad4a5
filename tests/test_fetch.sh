#!/bin/sh
# What is fetched is whole or not there (scripts/fetch_lib.sh), with a stand-in for npm that brings what it is told to.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
work_folder=$(mktemp -d)
trap 'rm -rf "$work_folder"' EXIT
cd "$work_folder"
mkdir bin
echo "what the package holds" > right
head -c 9 right > cut
sum=$(python3 -c 'import base64, hashlib
print(base64.b64encode(hashlib.sha512(open("right", "rb").read()).digest()).decode())')

cat > bin/npm <<'END'
#!/bin/sh
echo called >> calls
[ "$BRINGS" != nothing ] || { echo "npm error: no network" >&2; exit 1; }
while [ "$1" != --pack-destination ]; do shift; done
cp "$BRINGS" "$2/package-1.0.0.tgz"
END
chmod +x bin/npm

cat > fetch.sh <<END
set -eu
. "$root/scripts/fetch_lib.sh"
begin_fetch place thing
fetch_npm package@1.0.0 "$sum" thing.tgz
END

fetch() { # what npm brings -> output, status, calls
    rm -f calls
    status=0
    output=$(PATH="$work_folder/bin:$PATH" BRINGS=$1 sh fetch.sh 2>&1) || status=$?
    calls=$(cat calls 2> /dev/null | wc -l)
}

expect() { # what condition...
    what=$1
    shift
    "$@" || { echo "test_fetch: $what: status $status, $calls calls, \"$output\""; exit 1; }
}

fetch nothing
expect "no network is told" [ $status = 1 ]
expect "npm's reason is there" test -z "${output##*no network*}"
fetch cut
expect "a cut tarball is refused" [ $status = 1 ]
expect "and said to be" test -z "${output##*sha512*nothing was kept*}"
expect "and gone" [ ! -e place/.fetch/thing/thing.tgz ]
cp cut place/.fetch/thing/thing.tgz # as a killed run may have left it
fetch right
expect "what a killed run left is fetched again" [ $status = 0 -a "$calls" = 1 ]
expect "whole" cmp -s right place/.fetch/thing/thing.tgz
fetch nothing
expect "what is whole is not fetched again" [ $status = 0 -a "$calls" = 0 ]
