"""Golden numbers of single layers, by PyTorch in float64: layers.safetensors.

    python make_layers.py            write the file beside this script
    python make_layers.py --check    recompute, and compare with the file that is there to 1e-12

Per layer, with L = sum(c * y) for a fixed cotangent c: the value y, the gradients of L, and the gradients' change along a
fixed direction v of x (a second derivative). Images are NHWC, filters HWIO.
"""

import argparse
import pathlib
import sys

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

FILE = pathlib.Path(__file__).parent / "layers.safetensors"
N, H, W, C, OUT = 2, 2, 4, 6, 5


def channels_first(layer):
    return lambda x, *p: layer(x.permute(0, 3, 1, 2), *p).permute(0, 2, 3, 1)


def numbers(*shape):
    return torch.randn(*shape, dtype=torch.float64)


def layers():
    """Name, function of x and parameters, the parameters by name."""
    for axes, own in [(1, (C,)), (3, (H, W, C))]:
        yield (f"layer_norm {axes}", lambda x, s, b, own=own: F.layer_norm(x, own, s, b),
               {"scale": numbers(*own), "bias": numbers(*own)})
    for groups in [1, 2, 6]:
        yield (f"group_norm {groups}", channels_first(lambda x, s, b, groups=groups: F.group_norm(x, groups, s, b)),
               {"scale": numbers(C), "bias": numbers(C)})
    yield "avg_pool 2", channels_first(lambda x: F.avg_pool2d(x, 2)), {}
    for stride in [1, 2]:
        yield (f"conv 1x1 {stride}",
               channels_first(lambda x, w, stride=stride: F.conv2d(x, w.permute(3, 2, 0, 1), stride=stride)),
               {"weight": numbers(1, 1, C, OUT)})
    for groups, size, stride, out in [(2, 3, 1, 8), (3, 1, 2, 3), (C, 3, 1, C), (C, 3, 2, 2 * C)]:
        how = {"stride": stride, "padding": size // 2, "groups": groups}
        yield (f"conv {size}x{size} {stride} groups {groups}",
               channels_first(lambda x, w, how=how: F.conv2d(x, w.permute(3, 2, 0, 1), **how)),
               {"weight": numbers(size, size, C // groups, out)})


def compute():
    torch.manual_seed(1)
    torch.set_num_threads(1)
    x, v = numbers(N, H, W, C), numbers(N, H, W, C)
    tensors = {"x": x, "v": v}
    x = x.clone().requires_grad_()
    for name, layer, params in layers():
        params = {k: p.requires_grad_() for k, p in params.items()}
        y = layer(x, *params.values())
        cotangent = numbers(*y.shape)
        inputs = {"x": x, **params}
        first = torch.autograd.grad((cotangent * y).sum(), list(inputs.values()), create_graph=True)
        tensors |= {f"{name}/cotangent": cotangent, f"{name}/y": y}
        tensors |= {f"{name}/{k}": p for k, p in params.items()}
        # By forward over reverse: the change of each gradient along v.
        for k, g in zip(inputs, first):
            along = torch.zeros_like(g)
            if g.requires_grad:
                # Twice backward: the gradient of <g, z> by z's cotangent is the Jacobian times v.
                z = torch.zeros_like(g, requires_grad=True)
                pulled = torch.autograd.grad(g, x, z, create_graph=True, allow_unused=True)[0]
                if pulled is not None and pulled.requires_grad:
                    along = torch.autograd.grad(pulled, z, v)[0]
            tensors |= {f"{name}/gradient {k}": g, f"{name}/second {k}": along}
    return {k: t.detach().contiguous() for k, t in tensors.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--check", action="store_true", help="compare with the file that is there; write nothing")
    check, tensors = parser.parse_args().check, compute()
    if not check:
        save_file(tensors, FILE, {"torch": torch.__version__})
        return
    there = load_file(FILE)
    if there.keys() != tensors.keys():
        sys.exit(f"{FILE.name} holds other tensors than this script writes: run it without --check")
    worst = max((t - there[k]).abs().max().item() / max(t.abs().max().item(), 1.0) for k, t in tensors.items())
    if worst > 1e-12:
        sys.exit(f"a tensor differs by {worst:.1e}")
    print(f"{len(tensors)} tensors agree; largest difference {worst:.1e}")


if __name__ == "__main__":
    main()
