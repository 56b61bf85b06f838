"""Runs metatape's own bench and the peers side by side, in one go, and prints the ratios.

    cargo build --release
    python benches/peers/compare.py --model mlp lenet resnet32 --json compare.json

Each contender runs in a process of its own, with the same batch, step count and threads. The contenders take turns, for
several rounds, so that a slow spell of the machine hits all of them; the figure of a contender is the median of its rounds'
medians, and its ratio is of those. Nothing else should be running.

Peers that are not installed are left out, by name. Standard library only; the peers need requirements.txt.
"""

import argparse
import json
import pathlib
import statistics
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
REFERENCE = "torch official"


def run(command, name):
    """What a contender prints (or the last line of it), as JSON; None (and a line on stderr) when it fails."""
    try:
        done = subprocess.run([str(c) for c in command], capture_output=True, text=True)
    except OSError as e:
        print(f"{name}: left out, {command[0]} does not start: {e}", file=sys.stderr)
        return None
    lines = done.stdout.strip().splitlines()
    if done.returncode or not lines:
        reason = (done.stderr.strip().splitlines() or ["it printed nothing"])[-1]
        print(f"{name}: left out, exit code {done.returncode}: {reason}", file=sys.stderr)
        return None
    for text in (done.stdout, lines[-1]):
        try:
            return json.loads(text)
        except json.JSONDecodeError:
            continue
    print(f"{name}: left out, what it prints is no JSON: {lines[-1][:100]}", file=sys.stderr)
    return None


def contenders(args, model):
    """name -> command"""
    common = ["--model", model, "--batch", args.batch, "--steps", args.steps, "--threads", args.threads, "--json"]
    out = {}
    for route in args.route:
        out[f"metatape {route}"] = [args.metatape, "bench", *common, "--route", route, "--device", args.device]
    for mode in ("plain", "official", "jvp"):
        out[f"torch {mode}"] = [args.python, HERE / "torch_meta.py", *common, "--device", args.device, "--mode", mode]
    out["torch official+reuse"] = [*out[REFERENCE], "--reuse-forward"]
    if args.jax and model != "wrn28-10":
        for mode in ("plain", "official", "jvp"):
            out[f"jax {mode}"] = [args.python, HERE / "jax_meta.py", *common, "--device", args.device, "--mode", mode]
    return out


def rows_of(name, results):
    """[(row name, milliseconds, peak bytes, library bytes)] of a contender's rounds."""
    def median(pick):
        values = [pick(r) for r in results]
        return None if None in values else statistics.median(values)

    if name.startswith("metatape"):
        peak = median(lambda r: r["peak_memory_bytes"])
        return [(f"{name}, plain step", median(lambda r: r["plain_ms"]["median"]), peak, None),
                (f"{name}, meta step", median(lambda r: r["meta_ms"]["median"]), peak, None)]
    return [(name, median(lambda r: r["ms"]["median"]), median(lambda r: r["peak_memory_bytes"]),
             median(lambda r: r["library_memory_bytes"]))]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", nargs="+", default=["mlp", "lenet", "resnet32"], choices=["mlp", "lenet", "resnet32", "wrn28-10"])
    parser.add_argument("--batch", type=int, default=100)
    parser.add_argument("--steps", type=int, default=20, help="timed steps a round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--route", nargs="+", default=["layerwise"], help="metatape's routes")
    parser.add_argument("--metatape", default=ROOT / "target/release/metatape", help="the binary")
    parser.add_argument("--python", default=sys.executable, help="the interpreter that has the peers")
    parser.add_argument("--jax", action="store_true", help="JAX too")
    parser.add_argument("--json", metavar="FILE", help="write everything that was measured")
    args = parser.parse_args()

    if not pathlib.Path(args.metatape).is_file():
        sys.exit(f"no binary at {args.metatape}: build it (cargo build --release) or name it with --metatape")
    measured = []
    for model in args.model:
        results = {}
        commands = contenders(args, model)
        for _ in range(args.rounds):
            for name in list(commands):
                result = run(commands[name], name)
                if result is None:
                    del commands[name]  # said once; not tried again
                    results.pop(name, None)
                else:
                    results.setdefault(name, []).append(result)
        rows = [row for name, r in results.items() for row in rows_of(name, r)]
        times = {name: ms for name, ms, _, _ in rows}
        against = {"plain": times.get("torch plain"), "meta": times.get(REFERENCE)}

        print(f"\n{model}, batch {args.batch}, {args.threads} threads, {args.device}: "
              f"median of {args.rounds} rounds of {args.steps} steps")
        print(f"{'':38}{'ms/step':>10}{'speed against':>16}{'peak MiB':>11}{'of it library':>15}")
        for name, ms, peak, library in rows:
            kind = "plain" if "plain" in name else "meta"
            ratio = f"{against[kind] / ms:.2f}x {kind}" if against[kind] else "-"
            mib = lambda b: "-" if b is None else f"{b / 2**20:.0f}"
            print(f"{name:38}{ms:10.2f}{ratio:>16}{mib(peak):>11}{mib(library):>15}")
            measured.append({"model": model, "name": name, "median_ms": ms, "peak_memory_bytes": peak,
                             "library_memory_bytes": library, "speed_against_torch": against[kind] / ms if against[kind] else None,
                             "against": f"torch {'plain' if kind == 'plain' else 'official'}"})
        if args.json:
            report = {"batch": args.batch, "steps": args.steps, "rounds": args.rounds, "threads": args.threads,
                      "device": args.device, "rows": measured}
            pathlib.Path(args.json).write_text(json.dumps(report, indent=1))
    if args.json:
        print(f"\nwritten to {args.json}")


if __name__ == "__main__":
    main()
