"""cuDNN's time for each convolution that `benches/cuda_convolutions.rs` has timed, through PyTorch.

    cargo bench --bench cuda_convolutions > ours.jsonl
    python benches/peers/cudnn_convolutions.py ours.jsonl > convolutions.jsonl

Reads lines of JSON from a file or standard input and writes them again with `cudnn_ms` and `of_cudnn` (our speed as a share of cuDNN's). Layout is channels-last, algorithms are
chosen by cuDNN's own benchmark, and calls are captured in a CUDA graph, so that the time is the kernels' alone.
"""

import fileinput
import json
import statistics

import torch

CALLS, RUNS = 20, 7


def calls(line):
    """The convolution as a function without arguments."""
    kind = torch.bfloat16 if line["precision"] == "bf16" else torch.float32
    n, side, ci, co, k, stride = (line[f] for f in ("n", "side", "ci", "co", "kernel", "stride"))
    pad = k // 2
    tensor = lambda *shape: torch.randn(*shape, device="cuda", dtype=kind).to(memory_format=torch.channels_last)
    x, w = tensor(n, ci, side, side), tensor(co, ci, k, k)
    if line["role"] == "forward":
        return lambda: torch.nn.functional.conv2d(x, w, stride=stride, padding=pad)
    out = (side + 2 * pad - k) // stride + 1
    y = tensor(n, co, out, out)
    wanted = [line["role"] == "data gradient", line["role"] == "weight gradient", False]
    return lambda: torch.ops.aten.convolution_backward(
        y, x, w, None, [stride] * 2, [pad] * 2, [1, 1], False, [0, 0], 1, wanted)


def milliseconds(call):
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            call()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(CALLS):
            call()
    times = []
    for _ in range(RUNS):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        graph.replay()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end) / CALLS)
    return statistics.median(times)


def main():
    torch.backends.cudnn.benchmark = True
    for text in fileinput.input(encoding="utf-8"):
        line = json.loads(text)
        torch.backends.cudnn.allow_tf32 = line["precision"] == "tf32"
        line["cudnn_ms"] = milliseconds(calls(line))
        line["of_cudnn"] = line["cudnn_ms"] / line["ms"]
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
