#!/usr/bin/env bash
# Everything that a GPU is needed for, from this folder alone: neither cargo nor NVRTC is needed on
# the machine, only NVIDIA's driver, cuBLAS and Python 3. `run.sh --help` says what A, B and C do;
# README.md how to make this folder and what comes out.
set -euo pipefail
exec python3 "$(dirname "$(readlink -f "$0")")/run.py" "$@"
