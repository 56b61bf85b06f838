"""Trains small networks, and compares the logits of their twins in torch.nn with `metatape predict`'s.

    python benches/peers/load_model_test.py [METATAPE]
"""

import json
import subprocess
import sys
import tempfile

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from load_model import lenet, logits


def mlp(h, w, c, classes):
    return {"flat": nn.Flatten(), "fc1": nn.Linear(h * w * c, 256), "relu": nn.ReLU(), "fc2": nn.Linear(256, classes)}


class Block(nn.Module):
    def __init__(self, i, o):
        super().__init__()
        self.stride, self.extra = 1 + (i < o), (o - i) // 2
        self.conv1, self.bn1 = nn.Conv2d(i, o, 3, self.stride, 1, bias=False), nn.BatchNorm2d(o)
        self.conv2, self.bn2 = nn.Conv2d(o, o, 3, 1, 1, bias=False), nn.BatchNorm2d(o)

    def forward(self, x):
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(y + F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.extra, self.extra)))


def resnet32(h, w, c, classes):
    widths = [16] * 6 + [32] * 5 + [64] * 5
    blocks = {f"block{i + 1}": Block(widths[i], widths[i + 1]) for i in range(15)}
    return {"conv1": nn.Conv2d(c, 16, 3, 1, 1, bias=False), "bn1": nn.BatchNorm2d(16), "relu": nn.ReLU(), **blocks,
            "pool": nn.AdaptiveAvgPool2d(1), "flat": nn.Flatten(), "fc": nn.Linear(64, classes)}


metatape = (sys.argv + ["target/release/metatape"])[1]
with tempfile.TemporaryDirectory() as folder:
    numbers = np.random.default_rng(1)
    x, y = numbers.integers(0, 256, (120, 16, 12, 3), dtype=np.uint8), np.arange(120) % 3
    np.savez(f"{folder}/train.npz", x=x, y=y)
    np.savez(f"{folder}/test.npz", x=x[:6], y=y[:6])
    np.save(f"{folder}/images.npy", x[:6])
    for precision, bound in [("f32", 1e-5), ("f64", 1e-12)]:
        for layers in [mlp, lenet, resnet32]:
            run, model = f"{folder}/{layers.__name__}-{precision}", layers.__name__
            subprocess.check_output([metatape, "train", "--dataset", "arrays", "--data-dir", folder, "--meta-size", "30", "--batch", "30",
                                     "--epochs", "2", "--lr", "0.01", "--method", "gce", "--model", model, "--precision", precision,
                                     "--no-baseline", "--out", run])
            theirs, _ = logits(f"{run}/model.safetensors", x[:6], layers)
            ours = json.loads(subprocess.check_output([metatape, "predict", "--run", run, f"{folder}/images.npy", "--json"]))
            ours = torch.tensor([p["logits"] for p in ours["predictions"]], dtype=torch.float64)
            worst = ((theirs.double() - ours).abs().max() / ours.abs().max()).item()
            print(f"{model}, {precision}: {len(ours)} images, largest difference of a logit {worst:.1e} of the largest logit")
            assert len(ours) == 6 and worst < bound
