"""Loads a run's model.safetensors into its twin in torch.nn, and compares logits with metatape's own.

    python load_model.py RUN IMAGES.npy [METATAPE]    (uint8 [n,h,w] or [n,h,w,c])
"""

import json
import subprocess
import sys

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import safe_open
from torch import nn


class Block(nn.Module):
    def __init__(self, i, o, stride):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(i, o, 3, stride, 1, bias=False), nn.BatchNorm2d(o)
        self.conv2, self.bn2 = nn.Conv2d(o, o, 3, 1, 1, bias=False), nn.BatchNorm2d(o)
        self.stride, self.extra = stride, (o - i) // 2

    def forward(self, x):
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(y + F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.extra, self.extra)))


def twin(model, shape, k):
    h, w, c = shape
    if model == "mlp":
        parts = {"flat": nn.Flatten(), "fc1": nn.Linear(h * w * c, 256), "relu": nn.ReLU(), "fc2": nn.Linear(256, k)}
    elif model == "lenet":
        parts = {"conv1": nn.Conv2d(c, 32, 5, padding=2), "relu1": nn.ReLU(), "pool1": nn.MaxPool2d(2),
                 "conv2": nn.Conv2d(32, 64, 5, padding=2), "relu2": nn.ReLU(), "pool2": nn.MaxPool2d(2), "flat": nn.Flatten(),
                 "fc1": nn.Linear(64 * (h // 4) * (w // 4), 256), "relu3": nn.ReLU(), "fc2": nn.Linear(256, k)}
    else:
        wide = [16] * 6 + [32] * 5 + [64] * 5
        blocks = {f"block{b}": Block(wide[b - 1], wide[b], 1 + (wide[b - 1] < wide[b])) for b in range(1, 16)}
        parts = {"conv1": nn.Conv2d(c, 16, 3, 1, 1, bias=False), "bn1": nn.BatchNorm2d(16), "relu": nn.ReLU(), **blocks,
                 "pool": nn.AdaptiveAvgPool2d(1), "flat": nn.Flatten(), "fc": nn.Linear(64, k)}
    net = nn.Sequential()
    for name, part in parts.items():
        net.add_module(name, part)
    return net


run, images, metatape = sys.argv[1], sys.argv[2], (sys.argv + ["target/release/metatape"])[3]
with safe_open(f"{run}/model.safetensors", "pt") as file:
    card, weights = json.loads(file.metadata()["metatape"]), {name: file.get_tensor(name) for name in file.keys()}
dtype = next(iter(weights.values())).dtype
net = twin(card["model"], card["input"], len(card["classes"])).to(dtype).eval()
net.load_state_dict(weights)
x = torch.tensor(np.load(images)).reshape(-1, *card["input"]).permute(0, 3, 1, 2).to(dtype) / 255
mean, std = (torch.tensor(card[name], dtype=dtype).view(-1, 1, 1) for name in ("mean", "std"))
ours = json.loads(subprocess.check_output([metatape, "predict", "--run", run, images, "--json"]))
ours = torch.tensor([p["logits"] for p in ours["predictions"]], dtype=torch.float64)
worst = ((net((x - mean) / std).double() - ours).abs().max() / ours.abs().max()).item()
print(f"{card['model']}: {len(ours)} images, largest difference of a logit {worst:.1e} of the largest logit")
sys.exit(worst > (1e-12 if dtype == torch.float64 else 1e-5))
