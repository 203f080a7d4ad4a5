#!/bin/sh
# Installs the Debian packages that are missing: `setup.sh build` for what building needs, `setup.sh test` for what the
# tests need too. As root, or where sudo asks no password; otherwise it prints the one line to type and exits 1. When
# nothing is missing it prints nothing and needs no network.
#
# Taken as given: gcc, g++, make, cmake, git, npm (or a network that reaches GitHub), python3.
set -eu

build="pkg-config libjansson-dev libmicrohttpd-dev"
test="libcmocka-dev python3-numpy python3-jinja2 curl chromium
      clang libclang-rt-dev
      gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user"
# clang and its runtime: second compiler, fuzz targets. aarch64 and qemu: the NEON kernels. curl, chromium: the server.

case "${1-}" in
build) wanted=$build ;;
test) wanted="$build $test" ;;
*) echo "usage: setup.sh build|test" >&2; exit 2 ;;
esac

if ! command -v dpkg-query > /dev/null; then
    echo "setup: not a Debian system; the tools behind these packages must be there already:" $wanted
    exit 0
fi

missing=
for package in $wanted; do
    case $(dpkg-query -W -f='${db:Status-Status}' "$package" 2> /dev/null || true) in
    installed) ;;
    *) missing="$missing $package" ;;
    esac
done
[ -n "$missing" ] || exit 0

if [ "$(id -u)" = 0 ]; then
    sudo=
elif sudo -n true 2> /dev/null; then
    sudo=sudo
else
    echo "setup: packages are missing; type this, then run make again:" >&2
    echo "  sudo apt-get install --no-install-recommends$missing" >&2
    exit 1
fi

echo "setup: installing$missing"
log=$(mktemp)
trap 'rm -f "$log"' EXIT
apt="$sudo env DEBIAN_FRONTEND=noninteractive apt-get -qq -o Dpkg::Use-Pty=0 -o DPkg::Lock::Timeout=300"
if ! { $apt update && $apt install -y --no-install-recommends $missing; } > "$log" 2>&1; then
    cat "$log" >&2
    echo "setup: apt-get could not install$missing" >&2
    exit 1
fi
