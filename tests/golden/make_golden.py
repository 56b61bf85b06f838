"""Golden numbers of the Meta-Weight-Net step, by PyTorch in float64.

    python make_golden.py            write the .safetensors files beside this script
    python make_golden.py --check    recompute, and compare with the files that are there

The algorithm is the published one, taken literally: the virtual step is differentiated by autograd
(`create_graph=True`), nothing is simplified. Every hypergradient is then checked twice in here, against central
differences over theta, and against the closed form -alpha * d<u, dphi/dl>/dtheta with u from PyTorch's own jvp.

README.md beside this file lists the tensors, their names and their layouts.
"""

import argparse
import json
import pathlib
import sys

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import load_file, save_file

HERE = pathlib.Path(__file__).parent
N, M, CLASSES, HIDDEN, STEPS = 6, 5, 4, 5, 3
LEARNING_RATES = [0.1, 0.1, 0.01]  # a drop before the last step, as a schedule would make it
BN_EPS, BN_MOMENTUM = 1e-5, 0.1


# ---- networks: functions of (parameters, images) -> (logits, batch statistics)
# ------------------------------------- Parameters are a dict in the layouts of the files: conv
# HWIO, linear [in, out]; images are NHWC.

def conv(x, weight, stride=1, bias=None):
    pad = weight.shape[0] // 2
    y = F.conv2d(x.permute(0, 3, 1, 2), weight.permute(3, 2, 0, 1), bias, stride, pad)
    return y.permute(0, 2, 3, 1)


def pool(x):
    return F.max_pool2d(x.permute(0, 3, 1, 2), 2).permute(0, 2, 3, 1)


def linear(p, name, x):
    return x @ p[f"{name}.weight"] + p[f"{name}.bias"]


def mlp(p, x):
    return linear(p, "fc2", torch.relu(linear(p, "fc1", x))), {}


def lenet(p, x):
    x = pool(torch.relu(conv(x, p["conv1.weight"], bias=p["conv1.bias"])))
    x = pool(torch.relu(conv(x, p["conv2.weight"], bias=p["conv2.bias"])))
    x = x.reshape(x.shape[0], -1)  # NHWC, so the features are in (h, w, c) order
    return linear(p, "fc2", torch.relu(linear(p, "fc1", x))), {}


def resnet(p, x):
    stats = {}

    def bn(name, x):
        # Train mode: normalised by this batch's own (biased) variance, and differentiated through
        # both statistics.
        mean, var = x.mean((0, 1, 2)), x.var((0, 1, 2), unbiased=False)
        stats[name] = (mean.detach(), x.detach().var((0, 1, 2), unbiased=True))
        return (x - mean) / torch.sqrt(var + BN_EPS) * p[f"{name}.scale"] + p[f"{name}.bias"]

    x = torch.relu(bn("bn1", conv(x, p["conv1.weight"])))
    for block, stride in (("block1", 1), ("block2", 2), ("block3", 2)):
        y = torch.relu(bn(f"{block}.bn1", conv(x, p[f"{block}.conv1.weight"], stride)))
        y = bn(f"{block}.bn2", conv(y, p[f"{block}.conv2.weight"]))
        if stride == 2:  # option A: subsample, and pad the channels with zeros equally on both sides
            extra = (y.shape[3] - x.shape[3]) // 2
            x = F.pad(x[:, ::2, ::2, :], (extra, extra))
        x = torch.relu(y + x)
    return linear(p, "fc", x.mean((1, 2))), stats


def shapes(model):
    """(image shape, parameter name -> shape), in the order of the network."""
    if model == "mlp":
        return (12,), {"fc1.weight": (12, 7), "fc1.bias": (7,), "fc2.weight": (7, CLASSES), "fc2.bias": (CLASSES,)}
    if model == "lenet":
        return (8, 8, 1), {
            "conv1.weight": (5, 5, 1, 3), "conv1.bias": (3,), "conv2.weight": (5, 5, 3, 4), "conv2.bias": (4,),
            "fc1.weight": (16, 6), "fc1.bias": (6,), "fc2.weight": (6, CLASSES), "fc2.bias": (CLASSES,)}
    p = {"conv1.weight": (3, 3, 3, 4), "bn1.scale": (4,), "bn1.bias": (4,)}
    for block, i, o in (("block1", 4, 4), ("block2", 4, 8), ("block3", 8, 16)):
        p |= {f"{block}.conv1.weight": (3, 3, i, o), f"{block}.bn1.scale": (o,), f"{block}.bn1.bias": (o,),
              f"{block}.conv2.weight": (3, 3, o, o), f"{block}.bn2.scale": (o,), f"{block}.bn2.bias": (o,)}
    return (8, 8, 3), p | {"fc.weight": (16, CLASSES), "fc.bias": (CLASSES,)}


NETS = {"mlp": mlp, "lenet": lenet, "resnet": resnet}


def initial(model, rng):
    """Parameters drawn by NumPy, so that they do not depend on PyTorch's generator. Nothing is left at 0 or 1."""
    p = {}
    for name, shape in shapes(model)[1].items():
        fan_in = int(np.prod(shape[:-1]))
        if name.endswith(".scale"):
            a = rng.uniform(0.5, 1.5, shape)
        elif name.endswith(".bias"):
            a = rng.normal(0, 0.1, shape)
        else:
            a = rng.normal(0, np.sqrt(1 / fan_in), shape)
        p[name] = torch.tensor(a)
    return p


def weight_net(theta, loss):
    """V(l; theta), an MLP 1-H-1 (ReLU, sigmoid); [n] -> [n]."""
    hidden = torch.relu(loss[:, None] * theta["fc1.weight"] + theta["fc1.bias"])
    return torch.sigmoid(hidden @ theta["fc2.weight"] + theta["fc2.bias"])[:, 0]


# ---- the meta step -------------------------------------------------------------------------------

def objective(loss, theta, options):
    """phi(l, theta): what the virtual step descends."""
    v = weight_net(theta, loss if options["undetached"] else loss.detach())
    if options["weights"] == "mean":
        return (v * loss).sum() / len(loss), v
    return (v * loss).sum() / v.sum(), v


def options_of(weights, virtual):
    normalised = not weights.startswith("mean")
    classifier = {"kind": "sgd", "momentum": 0.9, "nesterov": normalised, "weight_decay": 5e-4}
    if normalised:
        theta = {"kind": "sgd", "lr": 1e-2, "momentum": 0.9, "nesterov": True, "weight_decay": 5e-4}
    else:
        theta = {"kind": "adam", "lr": 1e-3, "betas": [0.9, 0.999], "eps": 1e-8, "weight_decay": 1e-4}
    return {"weights": "normalised" if normalised else "mean", "undetached": weights.endswith("undetached"),
            "virtual": virtual, "classifier_optimiser": classifier, "weight_net_optimiser": theta,
            "batch_norm": {"eps": BN_EPS, "momentum": BN_MOMENTUM}}


def optimiser(spec, params, lr):
    params = list(params)
    if spec["kind"] == "adam":
        return torch.optim.Adam(params, lr, spec["betas"], spec["eps"], spec["weight_decay"])
    return torch.optim.SGD(params, lr, spec["momentum"], weight_decay=spec["weight_decay"], nesterov=spec["nesterov"])


def case(model, weights, virtual="plain", seed=10):
    """One file: the tensors of three meta steps, and the metadata."""
    net, options = NETS[model], options_of(weights, virtual)
    # The same data and parameters for all cases of a model. With these sizes, lr 0.1 kills a small
    # LeNet on some seeds (a dead net has no hypergradient, and verify() says so); on this one all
    # three networks stay alive.
    rng = np.random.default_rng(seed)
    w = {k: t.requires_grad_() for k, t in initial(model, rng).items()}
    bound = 1 / np.sqrt(HIDDEN)
    theta = {k: torch.tensor(rng.uniform(-b, b, s)).requires_grad_() for k, s, b in (
        ("fc1.weight", (1, HIDDEN), 1), ("fc1.bias", (HIDDEN,), 1),
        ("fc2.weight", (HIDDEN, 1), bound), ("fc2.bias", (1,), bound))}
    bn_names = [k.removesuffix(".scale") for k in w if k.endswith(".scale")]
    stats = {k: (torch.tensor(rng.normal(0, 0.1, w[f"{k}.scale"].shape)),
                 torch.tensor(rng.uniform(0.5, 1.5, w[f"{k}.scale"].shape))) for k in bn_names}

    out = {f"init.w.{k}": t for k, t in w.items()} | {f"init.theta.{k}": t for k, t in theta.items()}
    out |= {f"init.stats.{k}.{r}": t for k, s in stats.items() for r, t in zip(("mean", "var"), s)}
    out = {k: t.detach().clone() for k, t in out.items()}

    spec = options["classifier_optimiser"]
    w_opt = optimiser(spec, w.values(), LEARNING_RATES[0])
    theta_opt = optimiser(options["weight_net_optimiser"], theta.values(), options["weight_net_optimiser"].get("lr"))

    for step, lr in enumerate(LEARNING_RATES):
        image = shapes(model)[0]
        x, x_meta = (torch.tensor(rng.normal(0, 1, (b, *image))) for b in (N, M))
        y, y_meta = (torch.tensor(rng.integers(0, CLASSES, b)) for b in (N, M))

        def losses(p, x=x, y=y):
            return F.cross_entropy(net(p, x)[0], y, reduction="none")

        def virtual_step(th, create_graph):
            phi, v = objective(losses(w), th, options)
            grads = torch.autograd.grad(phi, list(w.values()), create_graph=create_graph)
            direction = dict(zip(w, grads))
            if options["virtual"] == "momentum":
                for k, p in w.items():
                    buffer = w_opt.state[p].get("momentum_buffer") if p in w_opt.state else None
                    decayed = direction[k] + spec["weight_decay"] * p.detach()
                    direction[k] = decayed if buffer is None else spec["momentum"] * buffer + decayed
            return {k: p.detach() - lr * direction[k] for k, p in w.items()}, v

        def meta_loss_at(p):
            return losses(p, x_meta, y_meta).mean()

        # 1, 2: the virtual step, and the gradient of the meta loss through it.
        virtual_w, v = virtual_step(theta, create_graph=True)
        meta_loss = meta_loss_at(virtual_w)
        meta_grad = dict(zip(w, torch.autograd.grad(meta_loss, list(virtual_w.values()), retain_graph=True)))
        hypergrad = dict(zip(theta, torch.autograd.grad(meta_loss, list(theta.values()))))
        verify(theta, hypergrad, meta_loss_at, virtual_step, w, losses, meta_grad, options, lr)
        for k, p in theta.items():
            p.grad = hypergrad[k]
        theta_opt.step()

        # 3: the real step, from the same w on the same batch, with the new and detached weights.
        logits, batch_stats = net(w, x)
        loss = F.cross_entropy(logits, y, reduction="none")
        with torch.no_grad():
            v_next = weight_net(theta, loss)
            c = v_next / (N if options["weights"] == "mean" else v_next.sum())
        w_grad = torch.autograd.grad((c * loss).sum(), list(w.values()))
        for (k, p), g in zip(w.items(), w_grad):
            p.grad = g
        for group in w_opt.param_groups:
            group["lr"] = lr
        w_opt.step()
        stats = {k: tuple((1 - BN_MOMENTUM) * old + BN_MOMENTUM * new for old, new in zip(stats[k], batch_stats[k]))
                 for k in bn_names}

        result = {"x": x, "y": y, "x_meta": x_meta, "y_meta": y_meta, "lr": torch.tensor(lr, dtype=torch.float64),
                  "loss": loss, "weight": v, "meta_loss": meta_loss}
        for group, tensors in (("virtual", virtual_w), ("meta_grad", meta_grad), ("hypergrad", hypergrad),
                               ("theta_next", theta), ("w_next", w)):
            result |= {f"{group}.{k}": t for k, t in tensors.items()}
        result |= {f"stats_next.{k}.{r}": t for k, s in stats.items() for r, t in zip(("mean", "var"), s)}
        out |= {f"{step}/{k}": t.detach().clone().contiguous() for k, t in result.items()}

    metadata = {
        "model": model, "steps": str(STEPS), "options": json.dumps(options, sort_keys=True),
        "layout": "row-major; activations NHWC, convolution weights HWIO, linear weights [in, out]",
        "versions": json.dumps({"torch": torch.__version__.split("+")[0], "numpy": np.__version__}),
    }
    return out, metadata


def verify(theta, hypergrad, meta_loss_at, virtual_step, w, losses, meta_grad, options, lr):
    """Stops the script when the hypergradient disagrees with central differences or with the closed form."""
    flat = torch.cat([g.flatten() for g in hypergrad.values()])
    assert flat.norm() > 1e-6 and (flat != 0).sum() > 5, "this weight net has no signal: choose another seed"

    h, differences = 1e-5, []
    for name, p in theta.items():
        for i in range(p.numel()):
            ends = []
            for sign in (1, -1):
                moved = {k: t.detach().clone() for k, t in theta.items()}
                moved[name].view(-1)[i] += sign * h
                ends.append(meta_loss_at({k: t.detach() for k, t in virtual_step(moved, False)[0].items()}).item())
            differences.append((ends[0] - ends[1]) / (2 * h))
    error = (torch.tensor(differences) - flat).norm() / flat.norm()
    assert error < 1e-6, f"hypergradient against central differences: relative error {error:.1e}"

    primal = {k: t.detach() for k, t in w.items()}
    loss, u = torch.func.jvp(losses, (primal,), (meta_grad,))
    loss = loss.detach().requires_grad_()
    coefficients = torch.autograd.grad(objective(loss, theta, options)[0], loss, create_graph=True)[0]
    closed = torch.autograd.grad(-lr * (u.detach() * coefficients).sum(), list(theta.values()))
    closed_error = (torch.cat([g.flatten() for g in closed]) - flat).norm() / flat.norm()
    assert closed_error < 1e-10, f"hypergradient against the closed form: relative error {closed_error:.1e}"
    print(f"    hypergradient: norm {flat.norm():.2e}, against differences {error:.1e}, closed form {closed_error:.1e}")


CASES = [(model, weights, "plain") for model in NETS for weights in ("mean", "normalised", "undetached")]
CASES += [("mlp", "mean-undetached", "plain"), ("lenet", "mean-undetached", "plain"), ("mlp", "mean", "momentum")]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--check", action="store_true", help="compare with the files that are there; write nothing")
    check = parser.parse_args().check
    torch.set_num_threads(1)  # one order of summation
    worst = 0.0
    for model, weights, virtual in CASES:
        name = f"{model}-{weights}" + ("" if virtual == "plain" else f"-virtual-{virtual}")
        print(name)
        tensors, metadata = case(model, weights, virtual)
        path = HERE / f"{name}.safetensors"
        if not check:
            save_file(tensors, path, metadata)
            continue
        there = load_file(path)
        with safe_open(path, "pt") as f:
            options_there = f.metadata()["options"]
        if there.keys() != tensors.keys() or options_there != metadata["options"]:
            sys.exit(f"{path.name} holds other tensors or options than this script writes: run it without --check")
        for k, t in tensors.items():
            error = (t.double() - there[k].double()).abs().max().item() / max(t.double().abs().max().item(), 1e-300)
            worst = max(worst, error)
            if error > 1e-9:
                sys.exit(f"{path.name}: {k} differs by {error:.1e} of its largest entry")
    if check:
        print(f"all files agree; largest difference {worst:.1e} of a tensor's largest entry")


if __name__ == "__main__":
    main()
