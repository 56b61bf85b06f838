"""Why some seeds of the published recipe learn an increasing curve, and what cures it: the official Meta-Weight-Net step in PyTorch, on the
images of datasets/fashion-mnist-mini, with two initialisations of the weight net.

    python weight_net_init.py --seeds 10 --init faithful kinks

faithful: PyTorch's default, as published. kinks: half of the hidden units rise and half fall with the loss, kinks spread evenly over losses 0 to 6,
slope 0.04, output layer zero. The setting is the reference one: 1000 clean images as meta set, uniform noise 0.6 on 9000 others, MLP 784-256-10,
batch 100, 20 epochs, learning rate 0.05 divided by 10 after 13 and 17, momentum 0.9, weight decay 5e-4, V by Adam 1e-3 with L2 1e-4.

Prints for each seed the final test accuracy, that of uniform weights beside it, V at a few losses, the share of hidden units that grow with the loss at
the start, and how much V's slope in its logit lets through where losses are high (V(1-V) at loss 4) after the first epoch.
"""

import argparse
import gzip
import pathlib

import numpy as np
import torch
import torch.nn.functional as F

DATA = pathlib.Path(__file__).resolve().parents[2] / "datasets" / "fashion-mnist-mini"
EPOCHS, BATCH, LR, MILESTONES = 20, 100, 0.05, (13, 17)


def read(name, header):
    with gzip.open(DATA / name) as f:
        return np.frombuffer(f.read(), np.uint8, offset=header)


def data():
    images = lambda part: torch.tensor(read(f"{part}-images-idx3-ubyte.gz", 16).reshape(-1, 784) / 255.0, dtype=torch.float32)
    labels = lambda part: torch.tensor(read(f"{part}-labels-idx1-ubyte.gz", 8).astype(np.int64))
    (x, y), (x_test, y_test) = [(images(p), labels(p)) for p in ("train", "t10k")]
    mean, std = x.mean(), x.std()
    return (x - mean) / std, y, (x_test - mean) / std, y_test


def weight_net(init):
    net = torch.nn.Sequential(torch.nn.Linear(1, 100), torch.nn.ReLU(), torch.nn.Linear(100, 1), torch.nn.Sigmoid())
    if init == "kinks":
        slope, kinks = 0.04, torch.linspace(0, 6, 50)
        sign = torch.cat([torch.ones(50), -torch.ones(50)])
        with torch.no_grad():
            net[0].weight.copy_((slope * sign)[:, None])
            net[0].bias.copy_(-slope * sign * torch.cat([kinks, kinks]))
            net[2].weight.zero_()
            net[2].bias.zero_()
    return net


def forward(w, x):
    return F.linear(F.relu(F.linear(x, w[0], w[1])), w[2], w[3])


def train(seed, init, x, y, x_test, y_test):
    """Final test accuracy; the weight net and what was seen of it. `init` None: uniform weights."""
    torch.manual_seed(seed)
    order = torch.randperm(len(x))
    meta = torch.cat([order[y[order] == c][:100] for c in range(10)])
    rest = order[~torch.isin(order, meta)]
    given = y[rest].clone()
    redrawn = torch.rand(len(rest)) < 0.6
    given[redrawn] = torch.randint(10, (int(redrawn.sum()),))
    w = []
    for i, o in ((784, 256), (256, 10)):
        w += [(torch.randn(o, i) * (2 / i) ** 0.5).requires_grad_(), torch.zeros(o, requires_grad=True)]
    optimiser = torch.optim.SGD(w, LR, 0.9, weight_decay=5e-4)
    v = weight_net(init) if init else None
    theta = list(v.parameters()) if v else []
    v_optimiser = torch.optim.Adam(theta, 1e-3, weight_decay=1e-4) if v else None
    rising = float((v[0].weight > 0).float().mean()) if v else 0.0
    open_at_4 = 0.0
    for epoch in range(EPOCHS):
        lr = LR / 10 ** sum(epoch >= m for m in MILESTONES)
        optimiser.param_groups[0]["lr"] = lr
        shuffled = torch.randperm(len(rest))
        for at in range(0, len(rest) - BATCH + 1, BATCH):
            pick = shuffled[at:at + BATCH]
            loss = F.cross_entropy(forward(w, x[rest[pick]]), given[pick], reduction="none")
            weights = torch.ones(BATCH)
            if v:
                weighted = (v(loss.detach()[:, None])[:, 0] * loss).mean()
                gradient = torch.autograd.grad(weighted, w, create_graph=True)
                virtual = [p - lr * g for p, g in zip(w, gradient)]
                chosen = meta[torch.randint(len(meta), (BATCH,))]
                meta_loss = F.cross_entropy(forward(virtual, x[chosen]), y[chosen])
                for p, g in zip(theta, torch.autograd.grad(meta_loss, theta)):
                    p.grad = g
                v_optimiser.step()
                loss = F.cross_entropy(forward(w, x[rest[pick]]), given[pick], reduction="none")
                weights = v(loss.detach()[:, None])[:, 0].detach()
            for p, g in zip(w, torch.autograd.grad((weights * loss).mean(), w)):
                p.grad = g
            optimiser.step()
        if v and epoch == 0:
            at_4 = v(torch.tensor([[4.0]])).item()
            open_at_4 = at_4 * (1 - at_4)
    accuracy = 100 * float((forward(w, x_test).argmax(1) == y_test).float().mean())
    return accuracy, v, rising, open_at_4


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--init", nargs="+", choices=("faithful", "kinks"), default=["faithful", "kinks"])
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    everything = data()
    losses = torch.tensor([0.0, 1.0, 2.0, 3.0, 6.0])
    print("seed  init      accuracy  uniform    gain  V(0) V(1) V(2) V(3) V(6)           rising units  V(1-V) at 4, epoch 1")
    for seed in range(1, args.seeds + 1):
        uniform = train(seed, None, *everything)[0]
        for init in args.init:
            accuracy, v, rising, open_at_4 = train(seed, init, *everything)
            curve = " ".join(f"{p.item():.3f}" for p in v(losses[:, None])[:, 0])
            print(f"{seed:4}  {init:8}  {accuracy:8.2f}  {uniform:7.2f}  {accuracy - uniform:+6.2f}  {curve}  {rising:12.2f}  {open_at_4:20.4f}", flush=True)


if __name__ == "__main__":
    main()
