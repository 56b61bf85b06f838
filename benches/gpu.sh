#!/usr/bin/env bash
# Everything that a GPU is needed for, in one command and under 8 minutes: the tests on the card, the sanitizer, times of meta steps, the same of
# PyTorch, convolutions beside cuDNN's, a short training run. Writes one JSON and one table to benches/results/.
#
#     cargo build --release && cargo test --release --no-run && cargo bench --no-run    (once, on any machine of the same kind)
#     benches/gpu.sh [python]
#
# Needs the built binaries and NVIDIA's driver, NVRTC and cuBLAS. compute-sanitizer, and a python with PyTorch (the argument, or python3), are
# used where they are there and left out by name where they are not. Exit code 1 if a test or the sanitizer failed.
set -uo pipefail
cd "$(dirname "$0")/.."

python=${1:-python3}
deps=${METATAPE_DEPS:-target/release/deps}
metatape=${METATAPE:-target/release/metatape}
results=benches/results
failed=0
began=$SECONDS
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# The newest executable of a test or bench.
binary() { ls -t "$deps/$1"-* 2>/dev/null | while read -r f; do [[ -x $f && ! -d $f && ${f##*/} != *.* ]] && echo "$f" && break; done; }
note() { echo "[$((SECONDS - began)) s] $*" >&2; }
# Runs a command for at most so many seconds, and for no longer than is left of the eight minutes (ten seconds are for the table).
within() {
    local most=$1 left=$((470 - SECONDS + began))
    shift
    ((left > 0)) || { echo "the eight minutes are over" >&2; return 124; }
    timeout $((most < left ? most : left)) "$@"
}
# A text as a JSON string.
quoted() { sed -e 's/\\/\\\\/g' -e 's/"/\\"/g' -e 's/\t/ /g' | tr -d '\r' | awk '{ printf "%s%s", sep, $0; sep = "\\n" } BEGIN { printf "\"" } END { printf "\"" }'; }
# The files' contents, separated by commas.
joined() { local sep=; for f in "$@"; do [[ -s $f ]] && { printf '%s' "$sep"; cat "$f"; sep=,; }; done; }
# The number of a field, after the line of an outer one.
number() { awk -v outer="\"$2\":" -v inner="\"$3\":" 'index($0, outer) { seen = 1 } seen && index($0, inner) { gsub(/[^0-9.eE+-]/, "", $2); print $2; exit }' "$1"; }

[[ -x $metatape ]] || { echo "gpu.sh: no binary at $metatape; build it first: cargo build --release" >&2; exit 1; }
# PyTorch brings NVRTC and cuBLAS in folders that the loader does not know.
torch_version=$("$python" -c 'import torch; assert torch.cuda.is_available(); print(torch.__version__)' 2>/dev/null)
if [[ -n $torch_version ]]; then
    folders=$("$python" -c 'import glob, os, torch; print(":".join(glob.glob(os.path.dirname(os.path.dirname(torch.__file__)) + "/nvidia/*/lib")))')
    export LD_LIBRARY_PATH=${LD_LIBRARY_PATH:+$LD_LIBRARY_PATH:}$folders
fi
card=$("$metatape" info | sed -n 's/^GPUs *cuda:0 \([^;]*\), [0-9]* GiB.*/\1/p')
[[ -n $card ]] || { echo "gpu.sh: $("$metatape" info | grep '^GPUs'); an NVIDIA GPU with its driver is needed" >&2; exit 1; }
note "card: $card"

# 1. Tests of all operations, all kernels and whole meta steps.
for test in backends cuda_kernels convolutions cuda_steps methods; do
    run=$(binary "$test")
    if [[ -z $run ]]; then
        echo "gpu.sh: no test program $test in $deps; build it first: cargo test --release --no-run" >&2
        exit 1
    fi
    if CARGO_MANIFEST_DIR=$PWD within 200 "$run" card --ignored --nocapture >"$work/log" 2>&1; then outcome=passed; else outcome=failed failed=1; fi
    count=$(sed -n 's/^running \([0-9]*\) tests\{0,1\}$/\1/p' "$work/log" | head -1)
    [[ ${count:-0} -gt 0 ]] || { outcome="failed: it has no test of a card"; failed=1; }
    note "tests on the card: $test $outcome"
    [[ $outcome == passed ]] || grep -E 'panicked|error' -A2 "$work/log" | head -20 >&2
    printf '{"name": "%s", "outcome": "%s", "tests": %s, "errors": %s}' "$test" "$outcome" "${count:-0}" "$(grep -E ': .*\* error' "$work/log" | quoted)" >"$work/test-$test"
done

# 2. The sanitizer on one small meta step in every precision.
if command -v compute-sanitizer >/dev/null; then
    for tool in memcheck racecheck initcheck; do
        if within 100 compute-sanitizer --tool "$tool" --error-exitcode 9 "$(binary cuda_steps)" card_one_small_step --ignored --exact >"$work/log" 2>&1; then
            outcome=clean
        else
            outcome=failed failed=1
            tail -20 "$work/log" >&2
        fi
        note "compute-sanitizer $tool: $outcome"
        printf '{"tool": "%s", "outcome": "%s"}' "$tool" "$outcome" >"$work/sanitizer-$tool"
    done
else
    note "compute-sanitizer is not on the PATH: left out"
fi

# 3. Meta steps.
bench() { # model precision graph
    local flag=; [[ $3 == off ]] && flag=--no-graph
    # shellcheck disable=SC2086
    within 60 "$metatape" bench --model "$1" --batch 100 --steps 20 --device cuda --precision "$2" $flag --json >"$work/bench-$1-$2-$3" 2>"$work/log" ||
        { rm -f "$work/bench-$1-$2-$3"; note "bench $1 $2, graph $3: $(tail -1 "$work/log")"; failed=1; }
}
models="mlp lenet resnet32 wrn28-10"
for model in $models; do
    for precision in f32 tf32 bf16; do
        for graph in on off; do bench "$model" "$precision" "$graph"; done
    done
done
note "bench done"

# 4. PyTorch and cuDNN.
torch() { # model runs: one process for all of a model's, one line each
    within 100 "$python" benches/peers/torch_meta.py --device cuda --model "$1" --batch 100 --steps 10 --json --runs "${@:2}" >"$work/lines" 2>"$work/log"
    grep -h "left out" "$work/log" >&2
    while read -r line; do
        echo "$line" >"$work/torch-$1-$(sed -n 's/.*"mode": "\([^"]*\)", "precision": "\([^"]*\)".*/\1-\2/p' <<<"$line")"
    done <"$work/lines"
}
if [[ -n $torch_version ]]; then
    for model in mlp lenet; do torch "$model" official:f32 jvp:f32 jvp:f32:graph; done
    for model in resnet32 wrn28-10; do
        torch "$model" official:f32 jvp:f32 jvp:f32:graph official:tf32 jvp:tf32:graph jvp:bf16:graph
    done
    note "PyTorch $torch_version done"
else
    note "$python has no PyTorch that sees a GPU: left out"
fi
convolutions=$(binary cuda_convolutions)
if [[ -n $convolutions ]] && within 90 "$convolutions" >"$work/convolutions" 2>"$work/log"; then
    if [[ -n $torch_version ]]; then
        if within 90 "$python" benches/peers/cudnn_convolutions.py <"$work/convolutions" >"$work/beside" 2>"$work/log"; then
            mv "$work/beside" "$work/convolutions"
        else
            note "cuDNN left out: $(tail -1 "$work/log")"
        fi
    fi
else
    note "convolutions left out: $(tail -1 "$work/log" 2>/dev/null)"
    failed=1
fi
note "convolutions done"

# 5. A short training run.
if within 60 "$metatape" train --device cuda --model lenet --epochs 2 --no-baseline --out "$work/run" --json >"$work/train" 2>"$work/log"; then
    note "training: test accuracy $(number "$work/train" final_test_accuracy final_test_accuracy) %"
else
    note "training failed: $(tail -1 "$work/log")"
    failed=1
    rm -f "$work/train"
fi

mkdir -p "$results"
name="gpu-$(echo "$card" | tr -c 'A-Za-z0-9\n' '-' | tr 'A-Z' 'a-z')-$(date +%Y-%m-%d)"
{
    printf '{"card": %s, "date": "%s", "metatape": %s,' "$(echo "$card" | quoted)" "$(date +%Y-%m-%d)" "$("$metatape" --version | quoted)"
    printf '"pytorch": %s, "seconds": %s,\n' "$(echo "${torch_version:-none}" | quoted)" $((SECONDS - began))
    printf '"tests": [%s],\n' "$(joined "$work"/test-*)"
    printf '"sanitizer": [%s],\n' "$(joined "$work"/sanitizer-*)"
    printf '"bench": [%s],\n' "$(joined "$work"/bench-*)"
    printf '"torch": [%s],\n' "$(joined "$work"/torch-*)"
    printf '"convolutions": [%s],\n' "$([[ -s $work/convolutions ]] && paste -sd, "$work/convolutions")"
    printf '"train": %s}\n' "$(if [[ -s $work/train ]]; then cat "$work/train"; else echo null; fi)"
} >"$results/$name.json"

{
    echo "$card, $(date +%Y-%m-%d), batch 100, milliseconds a meta step (median)"
    printf '\n%-10s %9s %9s %9s %9s %9s %9s' model f32 tf32 bf16 "f32 -g" "tf32 -g" "bf16 -g"
    printf ' %14s %9s %11s %12s %12s\n' "torch official" "torch jvp" "jvp + graph" "of official" "of the best"
    ms() { [[ -s $work/$1 ]] && number "$work/$1" "$2" median || echo -; }
    # PyTorch's results are one line each.
    line_ms() { if [[ -s $work/$1 ]]; then sed -n 's/.*"median": \([0-9.e-]*\).*/\1/p' "$work/$1"; else echo -; fi; }
    for model in $models; do
        row=("$model")
        for graph in on off; do for p in f32 tf32 bf16; do row+=("$(ms "bench-$model-$p-$graph" meta_ms)"); done; done
        for t in official-f32 jvp-f32 jvp+graph-f32; do row+=("$(line_ms "torch-$model-$t")"); done
        echo "${row[@]}" | awk '{
            best = ""; for (i = 8; i <= 10; i++) if ($i != "-" && (best == "" || $i < best)) best = $i
            printf "%-10s", $1; for (i = 2; i <= 7; i++) printf ($i == "-" ? " %9s" : " %9.2f"), $i
            printf ($8 == "-" ? " %14s" : " %14.2f"), $8; printf ($9 == "-" ? " %9s" : " %9.2f"), $9; printf ($10 == "-" ? " %11s" : " %11.2f"), $10
            printf " %12s", ($8 == "-" || $2 == "-") ? "-" : sprintf("%.2fx", $8 / $2)
            printf " %12s\n", (best == "" || $2 == "-") ? "-" : sprintf("%.2fx", best / $2)
        }'
    done
    echo "-g: without a graph. Factors: our f32 with a graph against PyTorch in f32."
    if [[ -s $work/convolutions ]]; then
        printf '\n%-10s %-34s %-16s %-5s %9s %9s %9s %9s\n' net convolution role "" ms TFLOP/s "cuDNN ms" "of cuDNN"
        # Fields in any order, so each is looked for by name.
        awk '
            function field(name,    at, rest) {
                at = match($0, "\"" name "\": ?\"?[^,\"}]*"); if (!at) return "-"
                rest = substr($0, RSTART, RLENGTH); sub(/^[^:]*: ?"?/, "", rest); return rest
            }
            {
                shape = field("side") "x" field("side") " " field("ci") " to " field("co") ", " field("kernel") "x" field("kernel") " stride " field("stride")
                cudnn = field("cudnn_ms"); of = field("of_cudnn")
                printf "%-10s %-34s %-16s %-5s %9.4f %9.1f %9s %9s\n", field("net"), shape, field("role"), field("precision"), field("ms"), field("tflops"), (cudnn == "-" ? "-" : sprintf("%.4f", cudnn)), (of == "-" ? "-" : sprintf("%.2f", of))
            }' "$work/convolutions"
    fi
    echo
    for f in "$work"/test-* "$work"/sanitizer-*; do
        [[ -s $f ]] && { cat "$f"; echo; } | sed -n 's/.*"\(name\|tool\)": "\([^"]*\)", "outcome": "\([^"]*\)".*/\2: \3/p'
    done
    echo "all in $((SECONDS - began)) s"
} | tee "$results/$name.txt"
note "written: $results/$name.json and $results/$name.txt"
exit $failed
