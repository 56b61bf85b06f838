#!/usr/bin/env python3
"""Compiles every kernel for sm_80, sm_90a and sm_100 with NVRTC, warnings as errors, and prints registers, spills and shared memory.

Needs no GPU. NVRTC comes from the Python package nvidia-cuda-nvrtc, headers from nvidia-cuda-runtime and nvidia-cuda-crt, installed with pip into
target/nvrtc (or the folder in METATAPE_NVRTC). Fails on a warning, on an error, and on a spill in a convolution.

Usage: kernels/check.py [file.cu ...]
"""

import ctypes
import os
import pathlib
import re
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor

KERNELS = pathlib.Path(__file__).resolve().parent
FOLDER = pathlib.Path(os.environ.get("METATAPE_NVRTC", KERNELS.parent / "target" / "nvrtc"))
PACKAGES = ["nvidia-cuda-nvrtc", "nvidia-cuda-runtime", "nvidia-cuda-crt"]
# As nvrtc.rs says it: of 9.0 with what only that has.
ARCHITECTURES = ["sm_80", "sm_90a", "sm_100"]
# Files that have kernels for one card alone.
NOTHING = [("conv_wgmma.cu", "sm_80"), ("conv_wgmma.cu", "sm_10")]
# Those of src/backend/cuda/compile.rs, and the report.
OPTIONS = ["--std=c++17", "--ptxas-options=-v"]


def install():
    """The path of NVRTC's library, installed if it is not there yet."""
    found = sorted(FOLDER.glob("nvidia/**/libnvrtc.so.*"))
    if not found:
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--root-user-action=ignore", "--target", str(FOLDER)]
        subprocess.run(pip + PACKAGES, check=True)
        found = sorted(FOLDER.glob("nvidia/**/libnvrtc.so.*"))
    if not found:
        sys.exit(f"check.py: no libnvrtc.so in {FOLDER} after pip install {' '.join(PACKAGES)}")
    return found[0]


def expand(path, seen):
    """The text of a file with its includes put in."""
    lines = []
    for line in path.read_text(encoding="utf-8").splitlines():
        include = re.fullmatch(r'\s*#include "(.+)"\s*', line)
        if include and include[1] in seen:
            continue
        if include:
            seen.add(include[1])
            lines.append(expand(path.parent / include[1], seen))
        elif line.strip() != "#pragma once":
            lines.append(line)
    return "\n".join(lines)


def compile_one(job):
    """(file, architecture) to (error text or None, [(kernel, registers, spill bytes, static shared bytes, stack bytes)])."""
    library, name, arch = job
    nvrtc = ctypes.CDLL(str(library))
    source = expand(KERNELS / name, set()).encode()
    program = ctypes.c_void_p()
    if nvrtc.nvrtcCreateProgram(ctypes.byref(program), source, name.encode(), 0, None, None) != 0:
        return "nvrtcCreateProgram failed", []
    options = [o.encode() for o in OPTIONS + [f"--gpu-architecture={arch}"]]
    status = nvrtc.nvrtcCompileProgram(program, len(options), (ctypes.c_char_p * len(options))(*options))
    size = ctypes.c_size_t()
    nvrtc.nvrtcGetProgramLogSize(program, ctypes.byref(size))
    log = ctypes.create_string_buffer(size.value + 1)
    nvrtc.nvrtcGetProgramLog(program, log)
    nvrtc.nvrtcDestroyProgram(ctypes.byref(program))
    text = log.value.decode("utf-8", "replace")
    # NVRTC has no option that makes warnings errors.
    # What makes products of warpgroups wait for each other is information to it, and a defect here.
    if status != 0 or re.search(r"\bwarning\b|\(C75\d\d\)", text):
        return text, []
    report, kernel, stack, spill = [], None, 0, 0
    for line in text.splitlines():
        if found := re.search(r"Function properties for (\w+)", line):
            kernel = found[1]
        if found := re.search(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", line):
            stack, spill = int(found[1]), int(found[2]) + int(found[3])
        if found := re.search(r"Used (\d+) registers(.*)", line):
            shared = re.search(r"(\d+) bytes smem", found[2])
            report.append((kernel, int(found[1]), spill, int(shared[1]) if shared else 0, stack))
    if not report and (name, arch[:5]) not in NOTHING:
        return "no register report in the log of NVRTC:\n" + text, []
    return None, report


def main():
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="replace")
    library = install()
    names = [pathlib.Path(n).name for n in sys.argv[1:]] or sorted(p.name for p in KERNELS.glob("*.cu"))
    if not names:
        sys.exit("check.py: no kernels")
    jobs = [(library, name, arch) for name in names for arch in ARCHITECTURES]
    failed = False
    rows = {}
    with ProcessPoolExecutor() as pool:
        for (_, name, arch), (error, report) in zip(jobs, pool.map(compile_one, jobs)):
            if error:
                print(f"{name} for {arch}:\n{error}", file=sys.stderr)
                failed = True
            for kernel, registers, spill, shared, stack in report:
                rows.setdefault((name, kernel), {})[arch] = (registers, spill, shared, stack)
                if spill and name.startswith("conv"):
                    print(f"{name} for {arch}: {kernel} spills {spill} bytes", file=sys.stderr)
                    failed = True
    print(f"{'kernel':44}" + "".join(f"{arch:>26}" for arch in ARCHITECTURES))
    print(f"{'':44}" + "  regs spill shared stack" .rjust(26) * len(ARCHITECTURES))
    for (name, kernel), by_arch in sorted(rows.items()):
        cells = ["{:>8}{:6}{:7}{:5}".format(*by_arch[a]) if a in by_arch else " " * 26 for a in ARCHITECTURES]
        print(f"{name.removesuffix('.cu') + ' ' + kernel:44}" + "".join(cells))
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
