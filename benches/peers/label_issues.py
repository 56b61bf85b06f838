"""Which finds wrong labels better: the suspects of metatape, or cleanlab?

    pip install torch cleanlab scikit-learn
    cargo build --release && python benches/peers/label_issues.py [BINARY] > benches/results/label_issues.txt

For each noise and seed, `metatape train` trains mwnet-soft, its default method, and mwnet, once each, and
either ranks all training samples in `suspects.csv`. cleanlab gets the same images with the same labels,
and out-of-sample probabilities of the same network (784-256-10, same schedule and optimiser, uniform weights) from 5-fold cross-validation
in PyTorch; its ranking is `get_label_quality_scores` (normalised margin and self confidence; the better
counts) and its choice is `find_label_issues`. Area under the ROC curve, and precision among the first n,
n being the number of wrong labels; cleanlab's own choice with its precision and recall.
"""
import csv
import gzip
import json
import subprocess
import sys
import tempfile

import numpy as np
import torch
from cleanlab.filter import find_label_issues
from cleanlab.rank import get_label_quality_scores
from sklearn.metrics import roc_auc_score

NOISES = ["uniform:0.6", "flip2:0.4", "uniform:0.1"]
SEEDS = range(1, 6)
METHODS = {"mwnet-soft": [], "mwnet": ["--clip-grad", "none"]}
BINARY = sys.argv[1] if len(sys.argv) > 1 else "target/release/metatape"
EPOCHS, BATCH, LR, FOLDS = 20, 100, 0.05, 5

data = "datasets/fashion-mnist-mini/train-images-idx3-ubyte.gz"
images = np.frombuffer(gzip.open(data).read(), np.uint8, offset=16).reshape(-1, 784) / 255.0
images = torch.tensor((images - images.mean()) / images.std(), dtype=torch.float32)
torch.set_num_threads(1)


def probabilities(x, y, held, seed):
    """Of the held-out samples, by a network trained on the others."""
    torch.manual_seed(seed)
    net = torch.nn.Sequential(torch.nn.Linear(784, 256), torch.nn.ReLU(), torch.nn.Linear(256, 10))
    sgd = torch.optim.SGD(net.parameters(), LR, momentum=0.9, weight_decay=5e-4)
    for epoch in range(EPOCHS):
        for group in sgd.param_groups:
            group["lr"] = LR * 0.1 ** sum(epoch >= m for m in (EPOCHS * 66 // 100, EPOCHS * 85 // 100))
        for batch in torch.randperm(len(x)).split(BATCH)[: len(x) // BATCH]:
            sgd.zero_grad()
            torch.nn.functional.cross_entropy(net(x[batch]), y[batch]).backward()
            sgd.step()
    with torch.no_grad():
        return torch.softmax(net(held), 1).numpy()


def figures(score, wrong):
    first = np.argsort(-score, kind="stable")[: wrong.sum()]
    return roc_auc_score(wrong, score), wrong[first].mean()


def trained(method, noise, seed):
    """What a run found, as `figures`; the samples' numbers, their labels as numbers, and which are wrong."""
    with tempfile.TemporaryDirectory() as folder:
        command = [BINARY, "train", "--noise", noise, "--seed", str(seed), "--no-baseline", "--method", method, *METHODS[method]]
        subprocess.run([*command, "--out", folder + "/run"], check=True, capture_output=True)
        finding = json.load(open(folder + "/run/summary.json"))["finding"]
        rows = list(csv.DictReader(open(folder + "/run/samples.csv")))
    names = sorted({row["given_label"] for row in rows})
    given = np.array([names.index(row["given_label"]) for row in rows])
    wrong = np.array([row["given_label"] != row["true_label"] for row in rows])
    found = figures(np.array([float(row["score"]) for row in rows]), wrong)
    assert abs(found[0] - finding["auc"]) < 1e-9 and abs(found[1] - finding["precision"]) < 1e-9
    return found, [int(row["sample"]) for row in rows], given, wrong


table = {}
for noise in NOISES:
    for seed in SEEDS:
        runs = [trained(method, noise, seed) for method in METHODS]
        _, samples, given, wrong = runs[0]
        assert samples == runs[1][1] and (given == runs[1][2]).all()
        x, y = images[samples], torch.tensor(given)
        folds = np.random.default_rng(seed).permutation(len(x)) % FOLDS
        out = np.empty((len(x), 10))
        for fold in range(FOLDS):
            held = folds == fold
            out[held] = probabilities(x[~held], y[~held], x[held], seed)
        theirs = [figures(-get_label_quality_scores(given, out, method=m), wrong) for m in ("normalized_margin", "self_confidence")]
        issues = find_label_issues(given, out)
        chosen = (wrong[issues].mean(), issues[wrong].mean())
        table.setdefault(noise, []).append([*(v for run in runs for v in run[0]), *np.max(theirs, 0), *chosen])
        print(noise, seed, *(f"{v:.4f}" for v in table[noise][-1]), file=sys.stderr)

print(f"means over seeds 1 to 5{'mwnet-soft':>19}{'mwnet':>30}{'cleanlab':>33}{'find_label_issues':>39}")
print("noise          " + "AUC, precision@n of wrong labels   " + "AUC, precision@n                  " * 2 + "precision, recall")
for noise, rows in table.items():
    m, s = np.mean(rows, 0), np.std(rows, 0, ddof=1)
    print(f"{noise:12}  " + "   ".join(f"{a:.4f} ± {b:.4f}" for a, b in zip(m, s)))
