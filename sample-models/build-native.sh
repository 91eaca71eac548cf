#!/bin/sh
# Builds the native models: OUT_FOLDER/iris.so, the bundle OUT_FOLDER/spikes, and OUT_FOLDER/hostile/*.so for the tests.
# What is newer than its sources stays.
set -eu
if [ $# -ne 1 ]; then
    echo "usage: $0 OUT_FOLDER" >&2
    exit 2
fi
mkdir -p "$1/hostile"
out=$(cd "$1" && pwd)
cd "$(dirname "$0")/.."
include=model-abi/include
sinners=sample-models/hostile/c

# c NAME SOURCE [OPTION...]: OUT_FOLDER/NAME.so from SOURCE.
c() {
    library=$out/$1.so source=$2
    shift 2
    for file in "$source" "$include/baton_model.h" "$sinners/hostile.h" sample-models/build-native.sh; do
        if [ ! "$library" -nt "$file" ]; then
            # Renamed when it is complete: a test may look at the folder while another one builds.
            ${CC:-cc} -O2 -Wall -Wextra -shared -fPIC -fvisibility=hidden -I "$include" \
                -o "$library.$$" "$source" "$@" -lm
            mv "$library.$$" "$library"
            return
        fi
    done
}

# sin NAME [OPTION...]: a sinner that is the only one of its source.
sin() {
    name=$1
    shift
    c "hostile/$name" "$sinners/$name.c" "$@"
}

c iris sample-models/iris/c/iris.c

for name in abort segv fpe overflow loop memory exit \
    ctor_exit ctor_sleep ctor_crash dies_at_create fails_at_create \
    wrong_abi no_note two_notes no_symbol short_table null_functions undefined_symbol \
    bad_status bad_size bad_rank bad_datatype bad_pointer negative_shape wrong_shape bad_text \
    more_forever more_of_nothing huge_more \
    close_fds fork_child chatter signals; do
    sin "$name"
done
c hostile/wrong_table_abi "$sinners/wrong_abi.c" -DHONEST_NOTE
c hostile/overrun "$sinners/overrun.c" -DBYTES=4096
c hostile/overrun_small "$sinners/overrun.c" -DBYTES=4
for variant in not_json datatype twice not_utf8 no_outputs shape many endless size crash; do
    c "hostile/bad_description_$variant" "$sinners/bad_description.c" "-DVARIANT=$variant"
done
for start in 0 1000 2000; do
    c "hostile/counter_$start" "$sinners/counter.c" "-DSTART=$start"
done
for factor in 2 3; do
    c "hostile/globals_$factor" "$sinners/globals.c" "-DFACTOR=$factor"
    c "hostile/unique_$factor" "$sinners/globals.c" "-DFACTOR=$factor" -DUNIQUE
done

# The library that missing_library needs is there only while that is linked.
stub=$(mktemp -d)
trap 'rm -rf "$stub"' EXIT
${CC:-cc} -shared -Wl,-soname,libdoesnotexist.so.1 -o "$stub/libdoesnotexist.so" -x c /dev/null
sin missing_library -Wl,--no-as-needed -L"$stub" -ldoesnotexist -Wl,--as-needed

# The sample in Rust, as a bundle.
cargo build --quiet --release --locked -p baton-sample-spikes
mkdir -p "$out/spikes"
cp sample-models/spikes/v1/* "$out/spikes/"
cp "${CARGO_TARGET_DIR:-target}/release/libbaton_sample_spikes.so" "$out/spikes/model.so.$$"
mv "$out/spikes/model.so.$$" "$out/spikes/model.so"

# The sinners that need Rust.
manifest=sample-models/hostile/Cargo.toml
target=${CARGO_TARGET_DIR:-target}/hostile
CARGO_TARGET_DIR=$target cargo build --quiet --release --locked --examples --manifest-path "$manifest"
for source in sample-models/hostile/rust/*.rs; do
    name=$(basename "$source" .rs)
    cp "$target/release/examples/lib$name.so" "$out/hostile/$name.so.$$"
    mv "$out/hostile/$name.so.$$" "$out/hostile/$name.so"
done
