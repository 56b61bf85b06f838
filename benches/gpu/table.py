"""The tables of files like results.jsonl that `run.sh` has written; the meta steps' is the last.

    python3 table.py gpu-results/results.jsonl...

A result that was measured twice stands with its last value; stand-ins of dry runs have no times.
"""

import json
import sys


def read(path):
    """All whole lines; a run that was cut may have left half of one."""
    results = []
    with open(path, encoding="utf-8") as file:
        for text in file:
            try:
                results.append(json.loads(text))
            except json.JSONDecodeError:
                print(f"passed over half a line: {text[:60]!r}", file=sys.stderr)
    return results


def show(title, heading, rows):
    """A table whose first column is of words, the others of numbers."""
    if not rows:
        return
    cells = [heading, *[[c if isinstance(c, str) else "-" if c is None else f"{c:.4g}" for c in row] for row in rows]]
    widths = [max(len(row[i]) for row in cells) for i in range(len(heading))]
    print(f"\n{title}")
    for row in cells:
        print("  ".join(c.ljust(w) if i == 0 else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths))).rstrip())


def ratio(a, b):
    return f"{a / b:.2f}x" if a and b else None


def tests(results):
    rows = {}
    for r in (r for r in results if "test" in r and "program" in r):
        rows[r["program"], r["test"]] = r["outcome"]
    show("Tests", ["test", "outcome"], [[f"{p} {t}", o] for (p, t), o in rows.items()])
    errors = [e for r in results if r.get("outcome") == "failed" for e in r.get("errors") or []]
    print(*["", "Deviations of what failed", *errors] if errors else [], sep="\n", end="\n" if errors else "")
    tools = {r["tool"]: r["outcome"] for r in results if "tool" in r}
    show("Sanitizer", ["tool", "outcome"], [list(row) for row in tools.items()])


def kernels(results):
    by = {(r["model"], r["precision"]): r for r in results if r["part"] == "profile" and "profile" in r}
    for (model, precision), r in by.items():
        rows = [[k["kernel"], k["ms"], str(k["launches"])] for k in r["profile"]]
        show(f"Kernels of a meta step: {model}, {precision}", ["kernel", "ms", "launches"], rows)


def convolutions(results):
    rows = {}
    for r in (r for r in results if r["part"] in ("convolutions", "cudnn") and "role" in r):
        shape = f"{r['net']} {r['side']}x{r['side']} {r['ci']} to {r['co']}, {r['kernel']}x{r['kernel']} stride {r['stride']}, {r['role']}"
        rows[shape, r["precision"]] = [r["ms"], r["tflops"], r.get("cudnn_ms"), r.get("of_cudnn")]
    heading = ["convolution, batch 100", "", "ms", "TFLOP/s", "cuDNN ms", "of cuDNN"]
    show("Convolutions", heading, [[shape, p, *row] for (shape, p), row in rows.items()])


def others(results):
    for r in results:
        if r["part"] == "train" and "final_test_accuracy" in r:
            print(f"\nTraining: test accuracy {r['final_test_accuracy']:.2f}%, {r['meta_steps_per_second']:.0f} meta steps a second")
    cells = [r for r in results if r["part"] == "paper-flip2-40" and "methods" in r]
    if cells:
        departs = cells[-1]["departures"]
        times = cells[-1].get("ms_per_step", {})
        rows = [[m["name"], m["final_mean"], m["best_mean"], m["paper"], m.get("ms_per_step", times.get(m["name"]))]
                for m in cells[-1]["methods"]]
        show("flip2 0.4 on CIFAR-10, ResNet-32, one seed" + (f" (not as published: {', '.join(departs)})" if departs else ""),
             ["method", "final %", "best %", "paper %", "ms a step"], rows)


def ungated(results):
    rows = [[r["model"], r["precision"], r["meta_ms"]["median"]] for r in results if r["part"] == "ungated" and "meta_ms" in r]
    show("The same without gates: milliseconds a meta step", ["batch 100", "", "meta"], rows)


def left_out(results):
    lines = [f"{r['run']} {r['part']}: {r['reason']}" for r in results if r.get("outcome") in ("left out", "failed") and r.get("reason")]
    lines += [f"{r['run']} {r['part']} {r.get('model', '')} {r.get('precision', '')}: {r['error']}" for r in results if "error" in r]
    if lines:
        print("\nLeft out or failed", *lines, sep="\n")


def meta_steps(results):
    ours, torch = {}, {}
    for r in results:
        if r["part"] == "bench" and "meta_ms" in r:
            ours[r["model"], r["precision"], r["graph"]] = r
        if r["part"] == "torch" and "ms" in r:
            torch[r["model"], r["mode"], r["precision"]] = r["ms"]["median"]
    rows = []
    for model, precision in dict.fromkeys((m, p) for m, p, _ in ours):
        graph, plain = (ours.get((model, precision, g), {}) for g in (True, False))
        ms = graph.get("meta_ms", {}).get("median")
        official = torch.get((model, "official", "f32"))
        same = {mode: torch.get((model, mode, precision)) for mode in ("official", "official+graph", "jvp", "jvp+graph")}
        best = min((t for t in same.values() if t), default=None)
        rows.append([model, precision, graph.get("plain_ms", {}).get("median"), ms, plain.get("meta_ms", {}).get("median"),
                     graph.get("floor_ms"), official, same["official+graph"], same["jvp+graph"], ratio(official, ms), ratio(best, ms)])
    heading = ["batch 100", "", "plain", "meta", "no graph", "floor", "torch official f32", "official graph", "jvp graph", "of official", "of best"]
    show("Milliseconds a step (medians); torch's graphs are in the same precision as ours", heading, rows)


def main():
    results = [result for path in sys.argv[1:] for result in read(path)]
    machines = [r for r in results if r["part"] == "machine" and "card" in r]
    if machines:
        m = machines[-1]
        print(f"{m['card']}; driver {m['driver']}; PyTorch {m['torch']}; metatape {m['metatape']}")
    for table in (tests, kernels, convolutions, others, left_out, ungated, meta_steps):
        table(results)


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    main()
