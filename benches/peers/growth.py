"""How a meta step's time grows with the batch and with the threads, beside PyTorch: a table, and a plot of it.

    cargo build --release
    python benches/peers/growth.py --model resnet32 --plot growth.svg --json growth.json

Batches vary at the most threads, threads at a batch of 100. Contenders take turns as in compare.py, whose options these are; the figure is the
median over the rounds of a round's median. The plot needs matplotlib.
"""

import argparse
import json
import pathlib
import statistics
import sys
from types import SimpleNamespace

from compare import ROOT, contenders, rows_of, run

KINDS = ["metatape plain", "metatape meta", "torch plain", "torch official", "torch jvp"]


def measure(args, batch, threads):
    """{kind: milliseconds}; what fails is left out, by name."""
    given = SimpleNamespace(batch=batch, steps=args.steps, threads=threads, device="cpu", route=["layerwise"], jax=False,
                            metatape=args.metatape, python=args.python)
    commands = {name: c for name, c in contenders(given, args.model).items() if not name.endswith("+reuse")}
    results = {}
    for _ in range(args.rounds):
        for name, command in commands.items():
            if (result := run(command, f"{name}, batch {batch}, {threads} threads")) is not None:
                results.setdefault(name, []).append(result)
    times = {}
    for name, r in results.items():
        for row, ms, *_ in rows_of(name, r):
            kind = row if row.startswith("torch") else f"metatape {row.split(', ')[1].split()[0]}"
            times[kind] = ms
    return times


def table(title, rows):
    print(f"\n{title:10}" + "".join(f"{kind:>16}" for kind in KINDS) + "   official/meta  jvp/meta")
    for value, times in rows:
        line = "".join(f"{times[kind]:16.2f}" if kind in times else f"{'-':>16}" for kind in KINDS)
        ratios = [times[kind] / times["metatape meta"] if kind in times else None for kind in ("torch official", "torch jvp")]
        print(f"{value:<10}{line}" + "".join(f"{ratio:>14.2f}x" if ratio else f"{'-':>15}" for ratio in ratios), flush=True)


def plot(path, model, batches, threads):
    import matplotlib
    matplotlib.use("Agg")
    from matplotlib import pyplot
    figure, axes = pyplot.subplots(1, 2, figsize=(10, 4))
    for axis, label, rows in zip(axes, ("batch", "threads"), (batches, threads)):
        for kind in KINDS:
            points = [(value, times[kind]) for value, times in rows if kind in times]
            axis.plot(*zip(*points), marker="o", label=kind, linestyle="-" if kind.startswith("metatape") else "--")
        axis.set(xlabel=label, ylabel="ms a step", yscale="log")
        axis.grid(alpha=0.3)
    axes[0].set_xscale("log")
    axes[1].set_xticks([value for value, _ in threads])
    axes[0].set_title(model)
    axes[0].legend()
    figure.tight_layout()
    figure.savefig(path)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="resnet32", choices=["mlp", "lenet", "resnet32", "wrn28-10"])
    parser.add_argument("--batches", type=int, nargs="+", default=[10, 20, 50, 100, 200, 500, 1000])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--metatape", default=ROOT / "target/release/metatape")
    parser.add_argument("--python", default=sys.executable)
    parser.add_argument("--plot", metavar="FILE")
    parser.add_argument("--json", metavar="FILE")
    args = parser.parse_args()
    batches = [(batch, measure(args, batch, max(args.threads))) for batch in args.batches]
    table("batch", batches)
    threads = [(count, measure(args, 100, count)) for count in args.threads]
    table("threads", threads)
    if args.json:
        report = {"model": args.model, "steps": args.steps, "rounds": args.rounds, "batches": batches, "threads": threads}
        pathlib.Path(args.json).write_text(json.dumps(report, indent=1))
    if args.plot:
        plot(args.plot, args.model, batches, threads)


if __name__ == "__main__":
    main()
