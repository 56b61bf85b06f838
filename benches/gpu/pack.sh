#!/usr/bin/env bash
# Fills one folder with all that a machine with a card needs: stripped programs, the kernels
# compiled for sm_90 (or for what METATAPE_ARCHS says, as sm_80,sm_90) as a ready cache, the
# scripts. Needs cargo, Python and pip (for NVRTC), and no card. Prints the total, which must be
# under 49 MiB: with the tracked files (11.3 MiB) it stays below 64.
#
#     benches/gpu/pack.sh [FOLDER]        [default: target/gpu]
set -euo pipefail
cd "$(dirname "$0")/../.."
out=${1:-target/gpu}
most=49
archs=${METATAPE_ARCHS:-sm_90}
# Of the kernels that are written for the tests, every so many-th: the card's machine compiles the
# others when they are first used.
every=${METATAPE_PACK_EVERY:-1}

cargo build --release
# Their messages say where each test program lies.
programs=$(mktemp)
trap 'rm -f "$programs"' EXIT
cargo test --release --no-run --message-format=json \
    --test backends --test cuda_kernels --test convolutions --test cuda_steps --test methods --bench cuda_convolutions >"$programs"

rm -rf "$out"
mkdir -p "$out/bin" "$out/cache"
cp target/release/metatape "$out/bin/"
python3 - "$programs" "$out/bin" <<'PY'
import json, pathlib, shutil, sys

messages = (json.loads(line) for line in open(sys.argv[1], encoding="utf-8") if line.startswith("{"))
for message in messages:
    if message.get("executable") and message["target"]["kind"] != ["bin"]:
        shutil.copy(message["executable"], pathlib.Path(sys.argv[2]) / message["target"]["name"])
PY
strip -s "$out"/bin/*
# NVRTC is a Python package; it needs no card.
nvrtc=${METATAPE_NVRTC:-$PWD/target/nvrtc}
[[ -d $nvrtc/nvidia ]] || python3 -m pip install --quiet --disable-pip-version-check --root-user-action=ignore --target "$nvrtc" nvidia-cuda-nvrtc
kernels() { CUDA_HOME=$nvrtc/nvidia "$out/bin/metatape" kernels --out "$out/cache" "$@"; }
# With what is written for the networks and for the tests, if these have run on the simulator here.
find target/tmp/simulator -name 'entrywise_*.cu' -print0 2>/dev/null | sort -z | awk -v RS='\0' -v ORS='\0' -v n="$every" 'NR % n == 0' | xargs -0 -n 100000 bash -c "$(declare -f kernels)"'
nvrtc='"$nvrtc"' out='"$out"' kernels --arch '"$archs"' --models mlp,lenet,resnet32,wrn28-10 "$@" | tail -4' kernels
# They would be most of the folder; run.py unpacks each where it is wanted.
gzip -9 "$out"/bin/*
tar -C "$out" -c cache | gzip -9 >"$out/cache.tar.gz"
rm -r "$out/cache"
cp benches/gpu/{run.sh,run.py,table.py,stand_in.py,README.md} benches/peers/{torch_meta,cudnn_convolutions}.py "$out/"

find "$out" -type f -printf '%s %P\n' | sort -rn | awk '{ total += $1; if ($2 !~ /^cache/) printf "%8.2f MiB  %s\n", $1 / 1048576, $2; else cache += $1 }
    END { printf "%8.2f MiB  cache\n%8.2f MiB  in all\n", cache / 1048576, total / 1048576 }'
total=$(find "$out" -type f -printf '%s\n' | awk '{ total += $1 } END { print total + 0 }')
if ((total >= most << 20)); then
    echo "pack.sh: $out has $total bytes; at most $most MiB were wanted" >&2
    exit 1
fi
echo "packed: $out/run.sh A"
