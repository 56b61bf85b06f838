"""One training step in JAX (jitted as a whole), timed. Interface and output as torch_meta.py; MLP, LeNet and ResNet-32.

    python jax_meta.py --model resnet32 --batch 100 --steps 10 --threads 2 --device cpu --mode official --json

`official` is the gradient, with respect to the weight net, of the meta loss at the virtual parameters, which are themselves
a gradient step; XLA is free to share the first forward with the real step's. `jvp` is the closed form with jax.jvp.
State is donated, so updates are in place. On the CPU, --threads is kept by pinning the process to that many cores.
"""

import argparse
import functools
import json
import os
import statistics
import time

LR, MOMENTUM, WEIGHT_DECAY = 0.1, 0.9, 5e-4
IMAGES = {"mlp": (784,), "lenet": (28, 28, 1), "resnet32": (32, 32, 3)}
BLOCKS = [(f"block{s * 5 + b + 1}", 16 << s, 2 if s and not b else 1) for s in range(3) for b in range(5)]


def shapes(model):
    if model == "mlp":
        return {"fc1.weight": (784, 256), "fc1.bias": (256,), "fc2.weight": (256, 10), "fc2.bias": (10,)}
    if model == "lenet":
        return {"conv1.weight": (5, 5, 1, 32), "conv1.bias": (32,), "conv2.weight": (5, 5, 32, 64), "conv2.bias": (64,),
                "fc1.weight": (3136, 256), "fc1.bias": (256,), "fc2.weight": (256, 10), "fc2.bias": (10,)}
    p = {"conv1.weight": (3, 3, 3, 16), "bn1.scale": (16,), "bn1.bias": (16,)}
    i = 16
    for block, o, _ in BLOCKS:
        p |= {f"{block}.conv1.weight": (3, 3, i, o), f"{block}.bn1.scale": (o,), f"{block}.bn1.bias": (o,),
              f"{block}.conv2.weight": (3, 3, o, o), f"{block}.bn2.scale": (o,), f"{block}.bn2.bias": (o,)}
        i = o
    return p | {"fc.weight": (64, 10), "fc.bias": (10,)}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", choices=IMAGES, default="mlp")
    parser.add_argument("--batch", type=int, default=100)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--warm-up", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--mode", choices=("plain", "official", "jvp"), default="official")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()

    os.environ["JAX_PLATFORMS"] = args.device
    if args.device == "cpu":  # XLA sizes its thread pool by the cores it may use
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: args.threads])
    import jax
    import jax.numpy as jnp
    from jax import lax

    def resident(field):
        with open("/proc/self/status") as f:
            return next(int(line.split()[1]) * 1024 for line in f if line.startswith(field + ":"))

    jnp.zeros(1).block_until_ready()
    library_bytes = resident("VmRSS")

    def conv(x, w, stride=1):
        pad = w.shape[0] // 2
        return lax.conv_general_dilated(x, w, (stride, stride), [(pad, pad)] * 2, dimension_numbers=("NHWC", "HWIO", "NHWC"))

    def pool(x):
        return lax.reduce_window(x, -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")

    def linear(p, name, x):
        return x @ p[f"{name}.weight"] + p[f"{name}.bias"]

    def forward(p, x):
        """(logits, batch statistics)"""
        stats = {}
        if args.model == "mlp":
            return linear(p, "fc2", jax.nn.relu(linear(p, "fc1", x))), stats
        if args.model == "lenet":
            for name in ("conv1", "conv2"):
                x = pool(jax.nn.relu(conv(x, p[f"{name}.weight"]) + p[f"{name}.bias"]))
            return linear(p, "fc2", jax.nn.relu(linear(p, "fc1", x.reshape(x.shape[0], -1)))), stats

        def bn(name, x):
            mean, var = x.mean((0, 1, 2)), x.var((0, 1, 2))
            count = x.size // x.shape[-1]
            stats[name] = lax.stop_gradient((mean, var * count / (count - 1)))
            return (x - mean) * (lax.rsqrt(var + 1e-5) * p[f"{name}.scale"]) + p[f"{name}.bias"]

        x = jax.nn.relu(bn("bn1", conv(x, p["conv1.weight"])))
        for block, _, stride in BLOCKS:
            y = jax.nn.relu(bn(f"{block}.bn1", conv(x, p[f"{block}.conv1.weight"], stride)))
            y = bn(f"{block}.bn2", conv(y, p[f"{block}.conv2.weight"]))
            if stride == 2:
                extra = x.shape[-1] // 2
                x = jnp.pad(x[:, ::2, ::2], ((0, 0), (0, 0), (0, 0), (extra, extra)))
            x = jax.nn.relu(y + x)
        return linear(p, "fc", x.mean((1, 2))), stats

    def losses(p, x, y):
        logits, stats = forward(p, x)
        return -jnp.take_along_axis(jax.nn.log_softmax(logits), y[:, None], 1)[:, 0], stats

    def weights(theta, loss):
        hidden = jax.nn.relu(loss[:, None] * theta["fc1.weight"] + theta["fc1.bias"])
        return jax.nn.sigmoid(hidden @ theta["fc2.weight"] + theta["fc2.bias"])[:, 0]

    tree = jax.tree_util.tree_map

    def sgd(state, grads):
        m = tree(lambda m, g, p: MOMENTUM * m + g + WEIGHT_DECAY * p, state["m"], grads, state["w"])
        return {**state, "w": tree(lambda p, m: p - LR * m, state["w"], m), "m": m}

    def adam(state, grads):
        t = state["t"] + 1
        grads = tree(lambda g, p: g + 1e-4 * p, grads, state["theta"])
        a = tree(lambda a, g: 0.9 * a + 0.1 * g, state["a"], grads)
        b = tree(lambda b, g: 0.999 * b + 0.001 * g * g, state["b"], grads)
        theta = tree(lambda p, a, b: p - 1e-3 * (a / (1 - 0.9**t)) / (jnp.sqrt(b / (1 - 0.999**t)) + 1e-8), state["theta"], a, b)
        return {**state, "t": t, "a": a, "b": b, "theta": theta}

    def running(state, stats):
        return {**state, "stats": tree(lambda old, new: 0.9 * old + 0.1 * new, state["stats"], stats)}

    def plain(state, x, y, x_meta, y_meta):
        def mean_loss(w):
            loss, stats = losses(w, x, y)
            return loss.mean(), stats
        (value, stats), grads = jax.value_and_grad(mean_loss, has_aux=True)(state["w"])
        return running(sgd(state, grads), stats), value

    def official(state, x, y, x_meta, y_meta):
        w = state["w"]

        def virtual_objective(w, theta):
            loss, _ = losses(w, x, y)
            return (weights(theta, lax.stop_gradient(loss)) * loss).mean()

        def meta_objective(theta):
            virtual = tree(lambda p, g: p - LR * g, w, jax.grad(virtual_objective)(w, theta))
            return losses(virtual, x_meta, y_meta)[0].mean()

        value, hypergrad = jax.value_and_grad(meta_objective)(state["theta"])
        state = adam(state, hypergrad)

        def real_objective(w):
            loss, stats = losses(w, x, y)
            return (weights(state["theta"], lax.stop_gradient(loss)) * loss).mean(), stats
        grads, stats = jax.grad(real_objective, has_aux=True)(w)
        return running(sgd(state, grads), stats), value

    def jvp(state, x, y, x_meta, y_meta):
        w, n = state["w"], x.shape[0]
        loss, pull, stats = jax.vjp(lambda w: losses(w, x, y), w, has_aux=True)
        virtual = tree(lambda p, g: p - LR * g, w, pull(weights(state["theta"], loss) / n)[0])
        value, meta_grad = jax.value_and_grad(lambda p: losses(p, x_meta, y_meta)[0].mean())(virtual)
        u = jax.jvp(lambda w: losses(w, x, y)[0], (w,), (meta_grad,))[1]
        state = adam(state, jax.grad(lambda theta: -LR * (u * weights(theta, loss)).mean())(state["theta"]))
        return running(sgd(state, pull(weights(state["theta"], loss) / n)[0]), stats), value

    key = iter(jax.random.split(jax.random.PRNGKey(1), 256))
    w = {}
    for name, shape in shapes(args.model).items():
        fan_in = functools.reduce(lambda a, b: a * b, shape[:-1], 1)
        w[name] = (jnp.ones(shape) if name.endswith(".scale") else jnp.zeros(shape) if name.endswith(".bias")
                   else jax.random.normal(next(key), shape) * (2 / fan_in) ** 0.5)
    uniform = functools.partial(jax.random.uniform, minval=-1.0, maxval=1.0)
    theta = {"fc1.weight": uniform(next(key), (1, 100)), "fc1.bias": uniform(next(key), (100,)),
             "fc2.weight": uniform(next(key), (100, 1)) / 10, "fc2.bias": uniform(next(key), (1,)) / 10}
    zeros = functools.partial(tree, jnp.zeros_like)
    state = {"w": w, "m": zeros(w), "theta": theta, "a": zeros(theta), "b": zeros(theta), "t": jnp.zeros(()),
             "stats": {k.removesuffix(".scale"): (jnp.zeros(t.shape), jnp.ones(t.shape)) for k, t in w.items() if k.endswith(".scale")}}

    data = jax.random.normal(next(key), (2, 5 * args.batch, *IMAGES[args.model]))
    labels = jax.random.randint(next(key), (2, 5 * args.batch), 0, 10)
    order = [jax.random.permutation(next(key), 5 * args.batch)[: args.batch] for _ in range(8)]
    body = {"plain": plain, "official": official, "jvp": jvp}[args.mode]

    @functools.partial(jax.jit, donate_argnums=0)
    def step(state, data, labels, index, index_meta):
        return body(state, data[0][index], labels[0][index], data[1][index_meta], labels[1][index_meta])

    milliseconds = []
    for k in range(args.warm_up + args.steps):
        start = time.perf_counter()
        state, value = jax.block_until_ready(step(state, data, labels, order[k % 8], order[(k + 3) % 8]))
        if k >= args.warm_up:
            milliseconds.append(1e3 * (time.perf_counter() - start))
    if not jnp.isfinite(value):
        raise SystemExit("the loss is not finite: these are no numbers to time")

    cuda = args.device == "cuda"
    peak = jax.devices()[0].memory_stats()["peak_bytes_in_use"] if cuda else resident("VmHWM")
    result = {
        "peer": "jax", "version": jax.__version__, "model": args.model, "batch": args.batch, "steps": args.steps,
        "mode": args.mode, "device": args.device, "threads": args.threads,
        "ms": {"median": statistics.median(milliseconds), "min": min(milliseconds), "max": max(milliseconds)},
        "peak_memory_bytes": peak, "library_memory_bytes": 0 if cuda else library_bytes,
    }
    if args.json:
        print(json.dumps(result))
    else:
        ms = result["ms"]
        print(f"jax {args.model} {args.mode}: {ms['median']:.2f} ms a step ({ms['min']:.2f} to {ms['max']:.2f}), "
              f"peak memory {peak / 2**20:.0f} MiB")


if __name__ == "__main__":
    main()
