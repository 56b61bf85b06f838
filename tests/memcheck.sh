#!/usr/bin/env bash
# Valgrind's memcheck on plain and meta steps of each network, on two threads: tests/memcheck.sh
# [NETWORK...] Valgrind has no AVX-512, so what runs is the code for AVX2.
set -euo pipefail
cd "$(dirname "$0")/.."

networks=("$@")
if ((${#networks[@]} == 0)); then
    networks=(mlp lenet resnet32 wrn28-10)
fi
for network in "${networks[@]}"; do
    extents=28x28x1
    case $network in resnet32 | wrn28-10) extents=8x8x3 ;; esac
    echo "memcheck: $network on $extents"
    valgrind --quiet --error-exitcode=9 --suppressions=tests/memcheck.supp target/release/metatape bench \
        --model "$network" --input "$extents" --batch 2 --steps 1 --threads 2 > /dev/null
done
