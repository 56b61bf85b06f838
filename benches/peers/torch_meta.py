"""One training step in PyTorch, timed: a plain step, the published Meta-Weight-Net step, or the jvp one.

    python torch_meta.py --model resnet32 --batch 100 --steps 10 --threads 2 --device cpu --mode official --json

Modes:
    plain      forward, backward, SGD. No weight net.
    official   the published algorithm: the virtual step is differentiated by autograd (`create_graph=True`).
    jvp        the same hypergradient in closed form, -(lr/n) d/dtheta sum_i u_i V(l_i), with u from torch.func.jvp.

It is meant as a peer that is hard to beat, so it does no needless work: networks are plain functions of a dict of
parameters (no module copies, no parameter patching), the virtual and the meta forward update no running statistics, only
the weight net's gradient is asked of the second backward, optimisers are fused, and images and weights of the convolutions are
channels-last, which is what oneDNN and cuDNN are fastest with. `official` runs the real step's forward again, as the published
code does; with --reuse-forward it keeps the first forward's graph instead (the same numbers; one forward less, more memory).
`jvp` always reuses it.

On a GPU, --graph captures the whole step as one CUDA graph after the warm-up and replays it; --precision tf32 lets cuDNN and cuBLAS round
factors to tf32, bf16 runs forward passes under autocast. --runs does several with one import of PyTorch; with --fork each has a process of
its own, so that a capture that fails spoils nothing after it, and memory is each run's own.
"""

import argparse
import contextlib
import json
import os
import statistics
import sys
import time

import torch
import torch.nn.functional as F

LR, MOMENTUM, WEIGHT_DECAY = 0.1, 0.9, 5e-4
IMAGES = {"mlp": (784,), "lenet": (1, 28, 28), "resnet32": (3, 32, 32), "wrn28-10": (3, 32, 32)}


# ---- networks ------------------------------------------------------------------------------------
# Each is a class with parameters `p` (name -> tensor), running statistics `stats`, and a pure
# forward(p, x, stats=None): with stats None, batch norm uses the batch's statistics and records
# nothing.

class Net:
    def __init__(self, device):
        self.p, self.stats, self.device = {}, {}, device

    def weight(self, name, *shape, fan_in):
        w = torch.randn(*shape, device=self.device) * (2 / fan_in) ** 0.5
        if w.dim() == 4:
            w = w.contiguous(memory_format=torch.channels_last)
        self.p[name] = w

    def linear(self, name, i, o):
        self.weight(f"{name}.weight", o, i, fan_in=i)
        self.p[f"{name}.bias"] = torch.zeros(o, device=self.device)

    def conv(self, name, i, o, k, bias=False):
        self.weight(f"{name}.weight", o, i, k, k, fan_in=i * k * k)
        if bias:
            self.p[f"{name}.bias"] = torch.zeros(o, device=self.device)

    def norm(self, name, c):
        self.p[f"{name}.scale"] = torch.ones(c, device=self.device)
        self.p[f"{name}.bias"] = torch.zeros(c, device=self.device)
        self.stats[name] = (torch.zeros(c, device=self.device), torch.ones(c, device=self.device))


def batch_norm(p, name, x, stats):
    mean, var = stats[name] if stats else (None, None)
    return F.batch_norm(x, mean, var, p[f"{name}.scale"], p[f"{name}.bias"], training=True, momentum=0.1, eps=1e-5)


class Mlp(Net):
    """784-256-10."""

    def __init__(self, device):
        super().__init__(device)
        self.linear("fc1", 784, 256)
        self.linear("fc2", 256, 10)

    @staticmethod
    def forward(p, x, stats=None):
        x = F.relu(F.linear(x, p["fc1.weight"], p["fc1.bias"]))
        return F.linear(x, p["fc2.weight"], p["fc2.bias"])


class LeNet(Net):
    """conv 5x5 -> 32, pool, conv 5x5 -> 64, pool, 3136-256-10."""

    def __init__(self, device):
        super().__init__(device)
        self.conv("conv1", 1, 32, 5, bias=True)
        self.conv("conv2", 32, 64, 5, bias=True)
        self.linear("fc1", 3136, 256)
        self.linear("fc2", 256, 10)

    @staticmethod
    def forward(p, x, stats=None):
        for name in ("conv1", "conv2"):
            x = F.max_pool2d(F.relu(F.conv2d(x, p[f"{name}.weight"], p[f"{name}.bias"], padding=2)), 2)
        x = F.relu(F.linear(x.flatten(1), p["fc1.weight"], p["fc1.bias"]))
        return F.linear(x, p["fc2.weight"], p["fc2.bias"])


class ResNet32(Net):
    """CIFAR ResNet-32: 16/32/64 channels, five basic blocks each, option-A shortcuts."""

    BLOCKS = [(f"block{s * 5 + b + 1}", 2 if s and not b else 1) for s in range(3) for b in range(5)]

    def __init__(self, device):
        super().__init__(device)
        self.conv("conv1", 3, 16, 3)
        self.norm("bn1", 16)
        i = 16
        for k, (block, _) in enumerate(self.BLOCKS):
            o = 16 << (k // 5)
            self.conv(f"{block}.conv1", i, o, 3)
            self.norm(f"{block}.bn1", o)
            self.conv(f"{block}.conv2", o, o, 3)
            self.norm(f"{block}.bn2", o)
            i = o
        self.linear("fc", 64, 10)

    @classmethod
    def forward(cls, p, x, stats=None):
        x = F.relu(batch_norm(p, "bn1", F.conv2d(x, p["conv1.weight"], padding=1), stats))
        for block, stride in cls.BLOCKS:
            y = F.conv2d(x, p[f"{block}.conv1.weight"], stride=stride, padding=1)
            y = F.relu(batch_norm(p, f"{block}.bn1", y, stats))
            y = batch_norm(p, f"{block}.bn2", F.conv2d(y, p[f"{block}.conv2.weight"], padding=1), stats)
            if stride == 2:
                extra = x.shape[1] // 2
                x = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, extra, extra))
            x = F.relu(y + x)
        return F.linear(x.mean((2, 3)), p["fc.weight"], p["fc.bias"])


class Wrn2810(Net):
    """WRN-28-10: pre-activation blocks, four a group, 160/320/640 channels, 1x1 shortcut convolutions."""

    BLOCKS = [(f"block{g * 4 + b + 1}", 2 if g and not b else 1, b == 0) for g in range(3) for b in range(4)]

    def __init__(self, device):
        super().__init__(device)
        self.conv("conv1", 3, 16, 3)
        i = 16
        for k, (block, _, first) in enumerate(self.BLOCKS):
            o = 160 << (k // 4)
            self.norm(f"{block}.bn1", i)
            self.conv(f"{block}.conv1", i, o, 3)
            self.norm(f"{block}.bn2", o)
            self.conv(f"{block}.conv2", o, o, 3)
            if first:
                self.conv(f"{block}.shortcut", i, o, 1)
            i = o
        self.norm("bn", 640)
        self.linear("fc", 640, 10)

    @classmethod
    def forward(cls, p, x, stats=None):
        x = F.conv2d(x, p["conv1.weight"], padding=1)
        for block, stride, first in cls.BLOCKS:
            y = F.relu(batch_norm(p, f"{block}.bn1", x, stats))
            if first:  # the shortcut starts from the activated input where the width changes
                x = F.conv2d(y, p[f"{block}.shortcut.weight"], stride=stride)
            y = F.conv2d(y, p[f"{block}.conv1.weight"], stride=stride, padding=1)
            y = F.relu(batch_norm(p, f"{block}.bn2", y, stats))
            x = x + F.conv2d(y, p[f"{block}.conv2.weight"], padding=1)
        x = F.relu(batch_norm(p, "bn", x, stats))
        return F.linear(x.mean((2, 3)), p["fc.weight"], p["fc.bias"])


NETS = {"mlp": Mlp, "lenet": LeNet, "resnet32": ResNet32, "wrn28-10": Wrn2810}


# ---- the steps -----------------------------------------------------------------------------------

class Trainer:
    def __init__(self, model, device, mode, reuse_forward, graph=False, short=False):
        self.net, self.mode, self.reuse_forward = NETS[model](device), mode, reuse_forward
        self.w = {k: t.requires_grad_() for k, t in self.net.p.items()}
        self.w_list = list(self.w.values())
        self.w_opt = torch.optim.SGD(self.w_list, LR, MOMENTUM, weight_decay=WEIGHT_DECAY, fused=True)
        v = torch.nn.Sequential(torch.nn.Linear(1, 100), torch.nn.ReLU(), torch.nn.Linear(100, 1), torch.nn.Sigmoid())
        self.v = v.to(device)
        self.theta = list(self.v.parameters())
        self.v_opt = torch.optim.Adam(self.theta, 1e-3, weight_decay=1e-4, fused=True, capturable=graph)
        self.short = short

    def losses(self, p, x, y, stats=None):
        with torch.autocast("cuda", torch.bfloat16) if self.short else contextlib.nullcontext():
            return F.cross_entropy(self.net.forward(p, x, stats), y, reduction="none")

    def weights(self, loss):
        return self.v(loss.detach()[:, None])[:, 0]

    def apply(self, optimiser, params, grads):
        for p, g in zip(params, grads):
            p.grad = g
        optimiser.step()

    def step(self, x, y, x_meta, y_meta):
        return getattr(self, self.mode)(x, y, x_meta, y_meta)

    def plain(self, x, y, *_):
        loss = self.losses(self.w, x, y, self.net.stats).mean()
        self.apply(self.w_opt, self.w_list, torch.autograd.grad(loss, self.w_list))
        return loss

    def official(self, x, y, x_meta, y_meta):
        reuse = self.reuse_forward
        loss = self.losses(self.w, x, y, self.net.stats if reuse else None)
        grads = torch.autograd.grad((self.weights(loss) * loss).mean(), self.w_list, create_graph=True)
        virtual = {k: p - LR * g for (k, p), g in zip(self.w.items(), grads)}
        meta_loss = self.losses(virtual, x_meta, y_meta).mean()
        self.apply(self.v_opt, self.theta, torch.autograd.grad(meta_loss, self.theta, retain_graph=reuse))
        del grads, virtual
        if not reuse:
            loss = self.losses(self.w, x, y, self.net.stats)
        with torch.no_grad():
            v = self.weights(loss)
        self.apply(self.w_opt, self.w_list, torch.autograd.grad((v * loss).mean(), self.w_list))
        return meta_loss

    def jvp(self, x, y, x_meta, y_meta):
        loss = self.losses(self.w, x, y, self.net.stats)
        v = self.weights(loss)
        grads = torch.autograd.grad((v.detach() * loss).mean(), self.w_list, retain_graph=True)
        primal = {k: p.detach() for k, p in self.w.items()}
        virtual = {k: (p - LR * g).requires_grad_() for (k, p), g in zip(primal.items(), grads)}
        meta_loss = self.losses(virtual, x_meta, y_meta).mean()
        meta_grad = dict(zip(virtual, torch.autograd.grad(meta_loss, list(virtual.values()))))
        with torch.no_grad():
            _, u = torch.func.jvp(lambda p: self.losses(p, x, y), (primal,), (meta_grad,))
        self.apply(self.v_opt, self.theta, torch.autograd.grad(-LR * (u * v).mean(), self.theta))
        with torch.no_grad():
            v = self.weights(loss)
        self.apply(self.w_opt, self.w_list, torch.autograd.grad((v * loss).mean(), self.w_list))
        return meta_loss


class Graphed:
    """A step captured once and replayed; batches are copied to where it reads them."""

    def __init__(self, trainer, batches, warm_up):
        self.trainer, self.inputs = trainer, [t.clone(memory_format=torch.preserve_format) for t in batches]
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(warm_up):
                trainer.step(*self.inputs)
        torch.cuda.current_stream().wait_stream(side)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self.value = trainer.step(*self.inputs)

    def step(self, *batches):
        for to, batch in zip(self.inputs, batches):
            to.copy_(batch)
        self.graph.replay()
        return self.value


# ---- measuring -----------------------------------------------------------------------------------

def resident(field):
    """VmRSS or VmHWM of this process in bytes (Linux)."""
    with open("/proc/self/status") as f:
        return next(int(line.split()[1]) * 1024 for line in f if line.startswith(field + ":"))


def measure(args):
    cuda = args.device == "cuda"
    torch.manual_seed(1)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = args.precision == "tf32"
    if cuda:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    library_bytes = resident("VmRSS")  # the interpreter and the library, before any data

    data = torch.randn(2, 5 * args.batch, *IMAGES[args.model], device=args.device)
    labels = torch.randint(10, (2, 5 * args.batch), device=args.device)
    trainer = Trainer(args.model, args.device, args.mode, args.reuse_forward, args.graph, args.precision == "bf16")

    def draw():
        return torch.randperm(5 * args.batch, device=args.device)[: args.batch]

    def batch(k, index):
        x = data[k][index]
        return (x.contiguous(memory_format=torch.channels_last) if x.dim() == 4 else x), labels[k][index]

    if args.graph:
        trainer = Graphed(trainer, [*batch(0, draw()), *batch(1, draw())], args.warm_up)
    milliseconds = []
    for k in range(args.warm_up + args.steps):
        # Drawn before: a step is timed with the gathering of its batches, not with the choice of
        # them.
        chosen = draw(), draw()
        if cuda:
            torch.cuda.synchronize()
        start = time.perf_counter()
        value = trainer.step(*batch(0, chosen[0]), *batch(1, chosen[1]))
        if cuda:
            torch.cuda.synchronize()
        if k >= args.warm_up:
            milliseconds.append(1e3 * (time.perf_counter() - start))
    if not torch.isfinite(value):
        raise SystemExit("the loss is not finite: these are no numbers to time")

    peak = torch.cuda.max_memory_allocated() if cuda else resident("VmHWM")
    result = {
        **named(args), "threads": args.threads,
        "ms": {"median": statistics.median(milliseconds), "min": min(milliseconds), "max": max(milliseconds)},
        "peak_memory_bytes": peak, "library_memory_bytes": 0 if cuda else library_bytes,
    }
    if args.json:
        print(json.dumps(result), flush=True)
    else:
        ms = result["ms"]
        print(f"torch {args.model} {result['mode']}: {ms['median']:.2f} ms a step ({ms['min']:.2f} to {ms['max']:.2f}), "
              f"peak memory {peak / 2**20:.0f} MiB", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", choices=NETS, default="mlp")
    parser.add_argument("--batch", type=int, default=100)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--warm-up", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--mode", choices=("plain", "official", "jvp"), default="official")
    parser.add_argument("--reuse-forward", action="store_true")
    parser.add_argument("--graph", action="store_true", help="one CUDA graph a step")
    parser.add_argument("--precision", choices=("f32", "tf32", "bf16"), default="f32")
    parser.add_argument("--runs", nargs="+", metavar="[MODEL/]MODE:PRECISION[:graph]",
                        help="several, instead of --model, --mode, --precision and --graph; one that fails is a line with its error")
    parser.add_argument("--fork", action="store_true", help="each of --runs in a process of its own, forked after the import")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    if args.device == "cpu" and (args.graph or args.precision != "f32"):
        parser.error("--graph, and --precision other than f32, are for --device cuda")

    torch.backends.cudnn.benchmark = True
    if not args.runs:
        return single(args)
    for run in args.runs:
        *model, rest = run.split("/")
        args.model = model[0] if model else args.model
        args.mode, args.precision, *graph = rest.split(":")
        args.graph = graph == ["graph"]
        if not args.fork:
            several(args)
            continue
        # Before a fork nothing may have started threads or the GPU's driver: the import does
        # neither.
        child = os.fork()
        if child == 0:
            several(args)
            sys.stdout.flush()
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if status:
            print(json.dumps({**named(args), "error": f"its process ended with status {status}"}), flush=True)


def single(args):
    torch.set_num_threads(args.threads)
    if args.device == "cuda":
        torch.zeros(1, device="cuda")
    measure(args)


def several(args):
    """One of several runs: an error is a line, and the next one goes on."""
    try:
        single(args)
    except (Exception, SystemExit) as error:
        text = (str(error).splitlines() or [type(error).__name__])[0]
        print(json.dumps({**named(args), "error": text}), flush=True)


def named(args):
    mode = args.mode + ("+reuse" if args.reuse_forward else "") + ("+graph" if args.graph else "")
    return {"peer": "torch", "version": torch.__version__, "model": args.model, "batch": args.batch, "steps": args.steps,
            "mode": mode, "precision": args.precision, "device": args.device}


if __name__ == "__main__":
    main()
