"""Do the defaults hold? Methods side by side over data sets, networks, noises, long tails, batches and meta sets, each by one `metatape compare`.

    cargo build --release
    python benches/grid/grid.py --out runs/grid --fashion-mnist DIR --cifar10 DIR [--only REGEX] [--seeds 3]

Around the centre of each data set and network (uniform:0.4, batch 100, 1,000 meta samples) one thing changes at a time. Finished cells are kept:
started again, it goes on. CIFAR-10 is a folder of images (train/CLASS/*, test/CLASS/*); a tenth of it is made as links. The table is printed
row by row; with --table nothing is run, and it has what is there. Columns: final accuracy, mean over the seeds; V at a loss of 0 and of 6 of mwnet-soft.
Standard library only. A cell on the built-in images takes a minute on 2 cores, on all of CIFAR-10 with a convolutional network hours.
"""

import argparse, json, pathlib, re, statistics, subprocess, sys

METHODS = ["uniform", "clean-only", "mixed", "mwnet-published", "mwnet-soft"]
HERE = pathlib.Path(__file__).parent
NOISES = ["none", "uniform:0.2", "uniform:0.4", "uniform:0.6", "uniform:0.8", "flip2:0.2", "flip2:0.4"]
# Batches and meta sets beside 100 and 1,000, and long tails.
OTHERS = {"batch 20": ["--batch", "20"], "meta 10": ["--meta-size", "10"], "meta 100": ["--meta-size", "100"]}
TAILS = {f"tail {factor}": ["--noise", "none", "--imbalance", str(factor)] for factor in (10, 100)}
EPOCHS = {"mini": 20, "cifar10-tenth": 20, "fashion-mnist": 10, "cifar10": 10}


def tenth(cifar, out):
    """Every tenth training image of each class, and the whole test set."""
    if not out.exists():
        for folder in (cifar / "train").iterdir():
            (out / "train" / folder.name).mkdir(parents=True)
            for image in sorted(folder.iterdir())[::10]:
                (out / "train" / folder.name / image.name).symlink_to(image.resolve())
        (out / "test").symlink_to((cifar / "test").resolve())
    return out


def cells():
    conditions = {noise: ["--noise", noise] for noise in NOISES} | TAILS
    conditions |= {name: ["--noise", "uniform:0.4", *flags] for name, flags in OTHERS.items()}
    for data in EPOCHS:
        for model in ("mlp", "lenet", "resnet8"):
            for condition, flags in conditions.items():
                yield f"{data}/{model}/{condition}", data, model, flags


def row(folder):
    found = {}
    for method in METHODS:
        runs = [json.load(open(cell)) for cell in sorted(folder.glob(f"cells/{method}-seed*/cell.json"))]
        done = [run for run in runs if not run["error"]]
        if not done:
            return None
        found[method] = statistics.mean(run["history"]["rows"][-1]["test_accuracy"] for run in done)
        if method == "mwnet-soft":
            curves = [dict(map(tuple, run["history"]["pictures"][-1]["curve"])) for run in done]
            found["V"] = [statistics.mean(curve[loss] for curve in curves) for loss in (0, 6)]
        found["failed"] = found.get("failed", 0) + len(runs) - len(done)
    return found


def main():
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--out", type=pathlib.Path, required=True)
    flags.add_argument("--binary", default="target/release/metatape")
    flags.add_argument("--fashion-mnist", type=pathlib.Path, help="folder with the four IDX files")
    flags.add_argument("--cifar10", type=pathlib.Path, help="folder with train/ and test/")
    flags.add_argument("--only", default="", help="cells whose name DATA/MODEL/CONDITION matches")
    flags.add_argument("--seeds", type=int, default=3)
    flags.add_argument("--table", action="store_true", help="run nothing, print what there is")
    given = flags.parse_args()
    print(f"{'':38}" + "".join(f"{method:>16}" for method in METHODS) + "      gain   V(0)  V(6)", flush=True)
    for name, data, model, extra in cells():
        folder = given.out / name.replace(":", "-").replace(" ", "-")
        if not re.search(given.only, name):
            continue
        if not given.table and not (folder / "summary.json").exists():
            if data == "fashion-mnist" and given.fashion_mnist:
                source = ["--dataset", "fashion-mnist", "--data-dir", given.fashion_mnist]
            elif data == "cifar10" and given.cifar10:
                source = ["--dataset", "folder", "--data-dir", given.cifar10]
            elif data == "cifar10-tenth" and given.cifar10:
                source = ["--dataset", "folder", "--data-dir", tenth(given.cifar10, given.out / "cifar10-tenth-images")]
            elif data == "mini":
                source = []
            else:
                continue
            network = HERE / "resnet8.toml" if model == "resnet8" else model
            command = [given.binary, "compare", "--methods", ",".join(METHODS), "--seeds", str(given.seeds), "--model", network]
            command += ["--epochs", str(EPOCHS[data]), *source, *extra, "--out", folder] + ["--resume"] * (folder / "compare.toml").exists()
            run = subprocess.run([str(part) for part in command], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
            if run.returncode:
                print(f"{name}: {run.stderr.strip().splitlines()[-1]}", file=sys.stderr)
        found = row(folder)
        if found:
            gain = found["mwnet-soft"] - found["uniform"]
            line = "".join(f"{found[method]:16.2f}" for method in METHODS)
            print(f"{name:38}{line}{gain:+10.2f}  {found['V'][0]:5.2f} {found['V'][1]:5.2f}" + f"  {found['failed']} failed" * (found["failed"] > 0), flush=True)


main()
