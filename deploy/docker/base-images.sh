#!/bin/sh
# Makes the two base images that the Dockerfile names, on a machine that can reach Debian's packages but no image registry.
#
#   deploy/docker/base-images.sh
#
# Where a registry can be reached this script is not needed: `docker build` pulls the official images.
# An image that exists is never replaced. What is made here stands in for the official images in builds and tests: the same
# distribution, the same layout of the Rust toolchain (this machine's own, since Debian's is too old), no security updates.
set -eu

root=$(cd "$(dirname "$0")/../.." && pwd)

fail() {
    echo "base-images: $*" >&2
    exit 1
}
missing() { ! docker image inspect "$1" >/dev/null 2>&1; }

# The names are the Dockerfile's business; read there, they cannot drift apart.
builder=$(sed -n 's/^FROM \(rust:[^ ]*\).*/\1/p' "$root/Dockerfile")
final=$(sed -n 's/^FROM \(debian:[^ ]*\).*/\1/p' "$root/Dockerfile")
rust=${builder#rust:} rust=${rust%%-*}
suite=${builder##*-}

command -v docker >/dev/null || fail "docker is missing; on Debian: apt-get install docker.io"
docker info >/dev/null 2>&1 || fail "the docker engine does not answer; start it, or join its group"
if ! missing "$builder" && ! missing "$final"; then exit 0; fi

by_hand="or, where an image registry can be reached: docker pull $builder && docker pull $final"
[ "$(id -u)" = 0 ] || fail "making base images needs root (debootstrap); run this as root, $by_hand"
command -v apt-get >/dev/null || fail "making base images needs a Debian machine, $by_hand"
if ! command -v debootstrap >/dev/null; then
    { apt-get update && apt-get install -y --no-install-recommends debootstrap; } >&2 ||
        fail "debootstrap is missing and could not be installed: apt-get install debootstrap"
fi

# debootstrap fetches with wget, from the mirror and through the proxy that apt is set up for. No address is written here.
# shellcheck disable=SC2016 # $(SITE) is apt's, not the shell's
mirror=$(apt-get indextargets --format '$(SITE)' 'Created-By: Packages' "Release: $suite" 'Component: main' | head -n 1)
[ -n "$mirror" ] || fail "apt has no source for $suite, $by_hand"
eval "$(apt-config shell http_proxy Acquire::http::Proxy https_proxy Acquire::https::Proxy)"
[ -z "${http_proxy:-}" ] || export http_proxy
[ -z "${https_proxy:-}" ] || export https_proxy

work=$(mktemp -d)
# debootstrap mounts /proc into the tree while it works, and may have been interrupted there.
trap 'rm -rf --one-file-system "$work"' EXIT
trap 'exit 1' HUP INT TERM
mkdir "$work/debs"

# bootstrap NAME PACKAGE... - a minimal system in $work/NAME, without what no container reads (as in the "slim" images).
bootstrap() {
    tree=$work/$1
    shift
    packages=$(echo "$*" | tr ' ' ',')
    # Both trees share the downloaded packages.
    debootstrap --variant=minbase --cache-dir="$work/debs" ${packages:+--include="$packages"} "$suite" "$tree" "$mirror" \
        >"$work/log" 2>&1 || { tail -n 20 "$work/log" >&2; fail "debootstrap did not finish"; }
    rm -rf "$tree"/var/cache/apt/* "$tree"/var/lib/apt/lists/* "$tree"/var/log/* \
        "$tree"/usr/share/doc/* "$tree"/usr/share/man/* "$tree"/usr/share/locale/* "$tree"/usr/share/info/*
}

if missing "$final"; then
    echo "making $final" >&2
    bootstrap final
    tar -C "$work/final" -c . | docker import --change 'CMD ["bash"]' - "$final" >/dev/null
fi

if missing "$builder"; then
    command -v rustc >/dev/null || fail "Rust $rust is missing on this machine; its toolchain goes into $builder"
    case $(rustc --version) in
        "rustc $rust."*) ;;
        *) fail "$builder needs Rust $rust, this machine has $(rustc --version); rustup default $rust" ;;
    esac
    echo "making $builder" >&2
    bootstrap builder build-essential ca-certificates pkg-config python3 python3-pip python3-venv

    # The official image's layout: toolchain under /usr/local/rustup, commands under /usr/local/cargo/bin.
    toolchain=usr/local/rustup/toolchains/$rust
    mkdir -p "$work/builder/$toolchain" "$work/builder/usr/local/cargo/bin"
    tar -C "$(rustc --print sysroot)" --exclude=./share --exclude=./lib/rustlib/src -c . |
        tar -C "$work/builder/$toolchain" --no-same-owner -x
    for tool in cargo rustc rustdoc; do
        ln -s "/$toolchain/bin/$tool" "$work/builder/usr/local/cargo/bin/$tool"
    done
    tar -C "$work/builder" -c . | docker import \
        --change 'ENV PATH=/usr/local/cargo/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin' \
        --change 'ENV CARGO_HOME=/usr/local/cargo' --change 'CMD ["bash"]' - "$builder" >/dev/null
fi
