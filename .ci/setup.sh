# SPDX-License-Identifier: Apache-2.0
# setup - what ./run, ./test and .ci/run have in common: packages, tools, builds. Sourced by bash,
# from the root of the checkout.
#
# Nothing is installed that is there already, nothing is started, no service is added: Redis comes
# from redis-tools, and smtp-source, smtp-sink, exim4 and haproxy are unpacked from their packages
# into build/tools without installing them.

TOOLS=$PWD/build/tools
PATH=$TOOLS/bin:$PATH
export PATH

say() { printf '== %s\n' "$*" >&2; }
die() { printf 'error: %s\n' "$*" >&2; exit 1; }

# packages_of SECTION...: the names in those sections of .ci/packages
packages_of() {
    awk -v want=" $* " '/^\[/ { s = " " substr($1, 2, length($1) - 2) " "; next }
        /^[^#]/ && NF && index(want, s) { print $1 }' .ci/packages
}

is_installed() {
    [ "$(dpkg-query -W -f='${db:Status-Status}' "$1" 2>/dev/null)" = installed ]
}

as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo "$@"
    else
        die "needs root to install packages: run as root, or install them yourself: $MISSING"
    fi
}

# need_packages SECTION...: installs what is missing of those sections
need_packages() {
    command -v dpkg-query >/dev/null ||
        die "this is made for Debian 12; elsewhere install the like of .ci/packages and use meson"
    MISSING=
    local name
    for name in $(packages_of "$@"); do
        is_installed "$name" || MISSING="$MISSING $name"
    done
    [ -z "$MISSING" ] && return
    say "installing$MISSING"
    local log=build/apt.log
    mkdir -p build
    { as_root apt-get -q update &&
        as_root env DEBIAN_FRONTEND=noninteractive apt-get -qy install --no-install-recommends \
            $MISSING; } >"$log" 2>&1 </dev/null ||
        { tail -20 "$log" >&2; die "apt-get failed, see $log"; }
}

# The server is the same file as redis-check-rdb, which looks at the name it was called by.
need_redis() {
    command -v redis-server >/dev/null && return
    local program
    program=$(command -v redis-check-rdb) || die "no redis-server and no redis-tools"
    mkdir -p "$TOOLS/bin"
    ln -sf "$(readlink -f "$program")" "$TOOLS/bin/redis-server"
}

# smtp-source and smtp-sink, from the postfix package, unpacked and not installed
need_postfix_tools() {
    [ -x "$TOOLS/bin/smtp-sink" ] && [ -x "$TOOLS/bin/smtp-source" ] && return
    say "unpacking smtp-source and smtp-sink into build/tools"
    local deb=$TOOLS/deb name
    rm -rf "$deb" && mkdir -p "$deb" "$TOOLS/bin" "$TOOLS/postfix"
    (cd "$deb" && { apt-get -q download postfix || { as_root apt-get -q update &&
        apt-get -q download postfix; }; }) >"$TOOLS/postfix.log" 2>&1 </dev/null ||
        { cat "$TOOLS/postfix.log" >&2; die "cannot download the postfix package"; }
    dpkg -x "$deb"/postfix_*.deb "$TOOLS/postfix"
    for name in smtp-source smtp-sink; do
        printf '#!/bin/sh\nLD_LIBRARY_PATH=%s exec %s "$@"\n' \
            "$TOOLS/postfix/usr/lib/postfix" "$TOOLS/postfix/usr/sbin/$name" >"$TOOLS/bin/$name"
        chmod 755 "$TOOLS/bin/$name"
    done
}

# need_unpacked PACKAGE PROGRAM...: programs of a package, in build/tools/bin, and not installed:
# these packages would add accounts and services.
need_unpacked() {
    local package=$1 name=${2##*/} program
    shift
    [ -x "$TOOLS/bin/$name" ] && return
    say "unpacking $name into build/tools"
    local deb=$TOOLS/deb-$package
    rm -rf "$deb" && mkdir -p "$deb" "$TOOLS/bin" "$TOOLS/$package"
    (cd "$deb" && { apt-get -q download "$package" || { as_root apt-get -q update &&
        apt-get -q download "$package"; }; }) >"$TOOLS/$package.log" 2>&1 </dev/null ||
        { cat "$TOOLS/$package.log" >&2; die "cannot download the $package package"; }
    dpkg -x "$deb/$package"_*.deb "$TOOLS/$package"
    for program in "$@"; do
        ln -sf "../$package/$program" "$TOOLS/bin/${program##*/}"
    done
}

# build DIR TARGETS -- MESON OPTIONS...: configures the folder when it is not, then builds
build() {
    local dir=$1 targets=$2
    shift 3
    mkdir -p build
    if [ ! -f "$dir/build.ninja" ]; then
        say "configuring $dir"
        meson setup "$dir" "$@" >"build/setup-$(basename "$dir").log" 2>&1 ||
            { tail -20 "build/setup-$(basename "$dir").log" >&2; die "meson setup $dir failed"; }
    fi
    say "building $dir"
    # shellcheck disable=SC2086 # several targets
    local log=build/ninja-$(basename "$dir").log
    ninja -C "$dir" $targets >"$log" 2>&1 ||
        { grep -v '^\[' "$log" | head -60 >&2; die "building $dir failed"; }
}

RELEASE_OPTIONS="--buildtype=release -Doptimization=2 -Ddebug=true"
[ "${CI:-}" = true ] && WERROR=-Dwerror=true || WERROR=
