#!/bin/sh
# Puts the npm packages that tests/test_clients.py drives the server with into build/clients, as tests/clients/package-lock.json
# pins them. Does nothing when they are there.
set -eu
cd "$(dirname "$0")/.."
from=tests/clients to=build/clients
if cmp -s $from/package-lock.json $to/done 2> /dev/null; then exit 0; fi
echo "fetch: npm packages of the server's tests"
mkdir -p $to
cp $from/package.json $from/package-lock.json $to
if ! npm ci --prefix $to --ignore-scripts --no-audit --no-fund > $to/log 2>&1; then
    cat $to/log >&2
    echo "fetch: npm could not install $from/package-lock.json" >&2
    exit 1
fi
cp $to/package-lock.json $to/done
