"""Loads a run's LeNet from its model.safetensors into the same network in torch.nn, and names the classes of images.

    python load_model.py runs/lenet/model.safetensors IMAGES.npy    (uint8 [n,h,w] or [n,h,w,c])
"""
import json
import sys

import numpy as np
import torch
from safetensors import safe_open
from torch import nn


def lenet(h, w, c, classes):
    return {"conv1": nn.Conv2d(c, 32, 5, padding=2), "relu1": nn.ReLU(), "pool1": nn.MaxPool2d(2),
            "conv2": nn.Conv2d(32, 64, 5, padding=2), "relu2": nn.ReLU(), "pool2": nn.MaxPool2d(2), "flat": nn.Flatten(),
            "fc1": nn.Linear(64 * (h // 4) * (w // 4), 256), "relu3": nn.ReLU(), "fc2": nn.Linear(256, classes)}

def logits(path, images, layers=lenet):
    with safe_open(path, "pt") as file:
        card, weights = json.loads(file.metadata()["metatape"]), {name: file.get_tensor(name) for name in file.keys()}
    net = nn.Sequential()
    for name, layer in layers(*card["input"], len(card["classes"])).items():
        net.add_module(name, layer)
    net.to(next(iter(weights.values())).dtype).eval().load_state_dict(weights)
    mean, std = (torch.tensor(card[key], dtype=torch.float64) for key in ("mean", "std"))
    x = (torch.tensor(images, dtype=torch.float64).reshape(-1, *card["input"]) / 255 - mean) / std
    return net(x.permute(0, 3, 1, 2).to(next(net.parameters()).dtype)).detach(), card["classes"]

if __name__ == "__main__":
    found, classes = logits(sys.argv[1], np.load(sys.argv[2]))
    print(*(classes[k] for k in found.argmax(1)))
