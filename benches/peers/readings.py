"""The comparison's main rows once more, in PyTorch, written from the papers alone: other code, other random numbers, the same setting.

    python benches/peers/readings.py [--seeds 5] [--lr 0.05] [--noise 0.6] [--methods uniform,mwnet-published]

Built-in images, MLP 784-256-10, uniform noise, 1,000 clean meta images (100 a class), batch 100, 20 epochs, SGD with momentum 0.9 and
weight decay 5e-4, rate ÷10 after 66% and 85% of the epochs, gradients no longer than 2. Final test accuracy: mean and deviation over
the seeds, and the gain over uniform with its 95% interval. Compare with `metatape compare --methods ... --seeds ... --lr ...`.
  gce              Zhang & Sabuncu 2018, (1 - p^0.7)/0.7
  l2rw             Ren et al. 2018, Algorithm 1: w = max(-dL_meta/deps, 0) at eps = 0, normalised
  mwnet-published  Shu et al. 2019: V(loss) 1-100-1, PyTorch's default initialisation, sum V loss / sum V, Adam 1e-3 with L2 1e-4
"""

import argparse, gzip, math, pathlib, statistics

import torch
from torch.nn import functional as F

DATA = pathlib.Path(__file__).parents[2] / "datasets" / "fashion-mnist-mini"
T95 = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306, 9: 2.262, 19: 2.093}


def idx(name):
    raw = gzip.open(DATA / f"{name}.gz").read()
    axes = [int.from_bytes(raw[4 + 4 * i : 8 + 4 * i], "big") for i in range(raw[3])]
    return torch.frombuffer(bytearray(raw[4 + 4 * raw[3] :]), dtype=torch.uint8).view(axes)


def load():
    x, y, tx, ty = (idx(name) for name in ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"))
    mean, std = (x / 255).mean(), (x / 255).std()
    return ((x / 255 - mean) / std).flatten(1), y.long(), ((tx / 255 - mean) / std).flatten(1), ty.long()


def linear(inputs, outputs):
    layer = torch.nn.Linear(inputs, outputs)
    return [layer.weight.detach().requires_grad_(), layer.bias.detach().requires_grad_()]


def mlp(w, x):
    return F.linear(F.relu(F.linear(x, w[0], w[1])), w[2], w[3])


def V(theta, losses):
    return torch.sigmoid(mlp(theta, losses[:, None])).squeeze(1)


def endless(n, size, generator):
    left = torch.empty(0, dtype=torch.long)
    while True:
        if len(left) < size:
            left = torch.cat([left, torch.randperm(n, generator=generator)])
        yield left[:size]
        left = left[size:]


def weights(method, w, theta, adam, lr, losses, x_meta, y_meta):
    """The batch's weights, which sum to 1."""
    n = len(losses)
    if method == "l2rw":
        eps = torch.zeros(n, requires_grad=True)
        outer = (eps * losses).sum()
    else:
        v = V(theta, losses.detach())
        outer = (v * losses).sum() / v.sum()
    gradient = torch.autograd.grad(outer, w, create_graph=True)
    ahead = [p - lr * g for p, g in zip(w, gradient)]
    meta = F.cross_entropy(mlp(ahead, x_meta), y_meta)
    if method == "l2rw":
        raw = (-torch.autograd.grad(meta, eps)[0]).clamp(min=0)
        return raw / raw.sum() if raw.sum() > 0 else raw
    for p, g in zip(theta, torch.autograd.grad(meta, theta)):
        p.grad = g
    adam.step()
    v = V(theta, losses.detach()).detach()
    return v / v.sum()


def train(method, seed, given, data):
    x, y, tx, ty = data
    random = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    order = torch.randperm(len(y), generator=random)
    meta = torch.cat([order[y[order] == c][:100] for c in range(10)])
    rest = order[~torch.isin(order, meta)]
    labels = y[rest].clone()
    wrong = torch.rand(len(rest), generator=random) < given.noise
    labels[wrong] = torch.randint(10, (int(wrong.sum()),), generator=random)
    x_train, (x_clean, y_clean) = x[rest], (x[meta], y[meta])
    if method == "mixed":
        x_train, labels = torch.cat([x_train, x_clean]), torch.cat([labels, y_clean])
    w, theta = linear(784, 256) + linear(256, 10), linear(1, 100) + linear(100, 1)
    adam = torch.optim.Adam(theta, lr=1e-3, weight_decay=1e-4)
    sgd = torch.optim.SGD(w, lr=given.lr, momentum=0.9, weight_decay=5e-4)
    schedule = torch.optim.lr_scheduler.MultiStepLR(sgd, [given.epochs * 66 // 100, given.epochs * 85 // 100], 0.1)
    metas = endless(len(y_clean), 100, random)
    for _ in range(given.epochs):
        for batch in torch.randperm(len(labels), generator=random).split(100):
            if len(batch) < 100:
                continue
            at = next(metas)
            if method == "clean-only":
                loss = F.cross_entropy(mlp(w, x_clean[at]), y_clean[at])
            else:
                logits, target = mlp(w, x_train[batch]), labels[batch]
                losses = F.cross_entropy(logits, target, reduction="none")
                if method == "gce":
                    p = logits.softmax(1).gather(1, target[:, None])
                    loss = ((1 - p**0.7) / 0.7).mean()
                elif method in ("l2rw", "mwnet-published"):
                    lr = sgd.param_groups[0]["lr"]
                    loss = (weights(method, w, theta, adam, lr, losses, x_clean[at], y_clean[at]) * losses).sum()
                else:
                    loss = losses.mean()
            for p, g in zip(w, torch.autograd.grad(loss, w)):
                p.grad = g
            torch.nn.utils.clip_grad_norm_(w, 2.0)
            sgd.step()
        schedule.step()
    with torch.no_grad():
        return 100 * (mlp(w, tx).argmax(1) == ty).double().mean().item()


def main():
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--methods", default="uniform,clean-only,mixed,gce,l2rw,mwnet-published")
    flags.add_argument("--seeds", type=int, default=5)
    flags.add_argument("--lr", type=float, default=0.05)
    flags.add_argument("--noise", type=float, default=0.6)
    flags.add_argument("--epochs", type=int, default=20)
    given, data = flags.parse_args(), load()
    reached = {}
    for method in given.methods.split(","):
        reached[method] = [train(method, seed, given, data) for seed in range(1, given.seeds + 1)]
        mean, spread = statistics.mean(reached[method]), statistics.stdev(reached[method]) if given.seeds > 1 else 0.0
        line = f"{method:16} {mean:6.2f} ± {spread:.2f}"
        if method != "uniform" and "uniform" in reached and given.seeds > 1:
            gains = [a - b for a, b in zip(reached[method], reached["uniform"])]
            half = T95.get(given.seeds - 1, 1.96) * statistics.stdev(gains) / math.sqrt(given.seeds)
            line += f"   gain {statistics.mean(gains):+.2f} ± {half:.2f}"
        print(line, flush=True)


main()
