#!/usr/bin/env bash
# libFuzzer on each target in its turn: tests/fuzz/run.sh [SECONDS [TARGET...]]. What it learns, and
# what it finds, lies in target/fuzz; a finding becomes a file of tests/fuzz/corpus, which is read
# and never written. Needs the nightly compiler and `cargo install cargo-fuzz`.
set -euo pipefail
cd "$(dirname "$0")/../.."

seconds=${1:-3600}
targets=("${@:2}")
if ((${#targets[@]} == 0)); then
    mapfile -t targets < <(cargo +nightly fuzz list --fuzz-dir tests/fuzz)
fi
cargo +nightly fuzz build --fuzz-dir tests/fuzz --target-dir target/fuzz
for target in "${targets[@]}"; do
    learnt=target/fuzz/learnt/$target
    mkdir -p "$learnt"
    "target/fuzz/x86_64-unknown-linux-gnu/release/$target" "$learnt" "tests/fuzz/corpus/$target" -max_total_time="$seconds" \
        -max_len=16384 -timeout=30 -rss_limit_mb=4096 -artifact_prefix="target/fuzz/$target-" -print_final_stats=1
done
