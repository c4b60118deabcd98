"""Trains the LeNet of the example and writes the model file and the sample request."""

from __future__ import annotations

import argparse
import io
import json
import time
from pathlib import Path

import digits
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

MODEL = digits.HERE / "model-repo" / "mnist-cnn" / "1" / "model.pt"
REQUEST = digits.HERE / "request.json"
EPOCHS = 12
BATCH = 64
SHIFT = 2
WRITTEN_BY_ITSELF = ("version", "byteorder", ".data/serialization_id")


class LeNet(nn.Module):
    """LeNet-5 with rectifiers: images of 32 x 32 to ten scores."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 6, 5)
        self.conv2 = nn.Conv2d(6, 16, 5)
        self.full1 = nn.Linear(16 * 5 * 5, 120)
        self.full2 = nn.Linear(120, 84)
        self.scores = nn.Linear(84, 10)

    def forward(self, model_input: Tensor) -> Tensor:
        """The argument's name becomes the name of the service's input: the file says it itself."""
        x = functional.max_pool2d(functional.relu(self.conv1(model_input)), 2)
        x = functional.max_pool2d(functional.relu(self.conv2(x)), 2)
        x = functional.relu(self.full1(x.flatten(1)))
        x = functional.relu(self.full2(x))
        return self.scores(x)


def shifted(images: Tensor, generator: torch.Generator) -> Tensor:
    """Move each image by up to two pixels either way; the padding is black, so nothing wraps visibly."""
    moves = torch.randint(-SHIFT, SHIFT + 1, (len(images), 2), generator=generator)
    rolled = [torch.roll(image, (int(dy), int(dx)), (1, 2)) for image, (dy, dx) in zip(images, moves, strict=True)]
    return torch.stack(rolled)


def train(images: Tensor, labels: Tensor, *, epochs: int) -> LeNet:
    """Train from a fixed seed, so that everybody gets the same model."""
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    model = LeNet()
    steps = epochs * (len(images) // BATCH + 1)
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=4e-3, total_steps=steps)
    for epoch in range(1, epochs + 1):
        model.train()
        total = 0.0
        for rows in torch.randperm(len(images), generator=generator).split(BATCH):
            optimizer.zero_grad()
            loss = functional.cross_entropy(model(shifted(images[rows], generator)), labels[rows])
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.item() * len(rows)
        print(f"epoch {epoch:2}/{epochs}  loss {total / len(images):.4f}", flush=True)
    return model.eval()


def accuracy(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Share of the digits that the model names rightly."""
    with torch.inference_mode():
        return (model(images).argmax(1) == labels).double().mean().item()


def save(model: torch.jit.ScriptModule, path: Path) -> None:
    """Save without the debug records: they name the folders of whoever trained, and serving needs none of them."""
    whole = io.BytesIO()
    torch.jit.save(model, whole)
    whole.seek(0)
    reader = torch._C.PyTorchFileReader(whole)
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = torch._C.PyTorchFileWriter(str(path))
    for name in reader.get_all_records():
        if not name.endswith(".debug_pkl") and name not in WRITTEN_BY_ITSELF:
            record = reader.get_record(name)
            writer.write_record(name, record, len(record))
    writer.write_end_of_file()


def write_request(path: Path, image: digits.Images) -> None:
    """Write one digit in the published form: `data` nested one level under the real shape."""
    numbers = [round(float(value), 4) for value in image.reshape(-1)]
    tensor = {"name": "model_input", "shape": [1, *image.shape], "datatype": "FP32", "data": [numbers]}
    path.write_text(json.dumps({"inputs": [tensor]}, separators=(",", ":")) + "\n")


def main() -> None:
    """Train, trace, measure and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("--model", type=Path, default=MODEL, help="where the model file goes")
    parser.add_argument("--request", type=Path, default=REQUEST, help="where the sample request goes")
    options = parser.parse_args()

    torch.set_num_threads(1)
    (train_images, train_labels), (test_images, test_labels) = digits.split()
    began = time.monotonic()
    model = train(torch.from_numpy(train_images), torch.from_numpy(train_labels), epochs=options.epochs)
    traced = torch.jit.trace(model, torch.zeros(1, 1, digits.SIDE, digits.SIDE))
    right = accuracy(traced, torch.from_numpy(test_images), torch.from_numpy(test_labels))
    print(f"trained in {time.monotonic() - began:.1f} s; {right:.1%} of {len(test_labels)} kept digits are right")

    save(traced, options.model)
    seven = int(np.argmax(test_labels == 7))
    write_request(options.request, test_images[seven])
    print(f"wrote {options.model} and {options.request} (the digit is {test_labels[seven]})")


if __name__ == "__main__":
    main()
