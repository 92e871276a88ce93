"""SSKD with timm's own data, optimiser and scheduler: python examples/timm_loop.py [FOLDER of class folders]."""

import sys
import tempfile
from pathlib import Path
from typing import Any

import timm
import torch
from PIL import Image
from timm.data import create_dataset, create_loader, resolve_data_config
from timm.optim import create_optimizer_v2
from timm.scheduler import create_scheduler_v2
from torch import nn

import sskd
from sskd import Distiller


def drawn(folder: Path, count: int) -> Path:
    """Class folders of drawn stripes, where there are no photographs at hand."""
    for label, name in enumerate(("across", "down", "slanted")):
        (folder / name).mkdir(parents=True)
        for i in range(count):
            x, y = torch.meshgrid(torch.arange(72), torch.arange(72), indexing="ij")
            wave = torch.sin((x * (label != 1) + y * (label != 0)) * (0.3 + 0.02 * (i % 9)) + i)
            noisy = 127 + 80 * wave + 40 * torch.randn(3, 72, 72)
            Image.fromarray(noisy.clamp(0, 255).byte().permute(1, 2, 0).numpy()).save(folder / name / f"{i}.jpg")
    return folder


def main(folder: str, epochs: int = 4, teacher_epochs: int = 4, side: int = 64, out: str = "runs/timm_loop") -> float:
    """Train teacher, head and student, write the student's folder, and return its accuracy on the training images."""
    torch.manual_seed(0)
    dataset = create_dataset("", root=folder)
    classes = len(dataset.reader.class_to_idx)  # type: ignore[union-attr, attr-defined]
    teacher, student = (timm.create_model(name, num_classes=classes) for name in ("resnet10t", "test_efficientnet"))
    how = resolve_data_config({"input_size": (3, side, side)}, model=student)
    loaded: dict[str, Any] = {"input_size": how["input_size"], "mean": how["mean"], "std": how["std"], "num_workers": 0}
    loaded |= {"batch_size": 16, "use_prefetcher": False, "persistent_workers": False}
    loader = create_loader(dataset, is_training=True, **loaded)

    optimizer = create_optimizer_v2(teacher, "adamw", lr=1e-3)
    for _ in range(teacher_epochs):  # or load your own
        for images, labels in loader:
            optimizer.zero_grad()
            nn.functional.cross_entropy(teacher(images), labels).backward()  # type: ignore[no-untyped-call]
            optimizer.step()

    # timm's loader normalises, so no mean and std here: views are rotations, which leave the values as they are.
    options = {"head_epochs": max(1, epochs // 2)}
    distiller = Distiller(
        student, teacher, num_classes=classes, image_shape=how["input_size"], epochs=epochs, options=options
    )
    for stage in distiller.stages:  # the teacher's head, then the student
        distiller.set_stage(stage.name)
        optimizer = create_optimizer_v2(distiller.trainable_parameters(), "adamw", lr=1e-3)
        scheduler, _ = create_scheduler_v2(optimizer, "cosine", num_epochs=stage.epochs)
        for epoch in range(stage.epochs):
            distiller.set_epoch(epoch)
            for images, labels in loader:
                step = distiller(images, labels)
                optimizer.zero_grad()
                step.loss.backward()
                optimizer.step()
            scheduler.step(epoch + 1)
            print(f"{stage.name} epoch {epoch + 1}/{stage.epochs}: loss {step.loss.item():.3f}")

    distiller.eval()
    right = total = 0
    with torch.no_grad():
        for images, labels in create_loader(create_dataset("", root=folder), is_training=False, **loaded):
            right, total = right + int((student(images).argmax(1) == labels).sum()), total + len(labels)
    names = tuple(dataset.reader.class_to_idx)  # type: ignore[union-attr, attr-defined]
    distiller.save_student(f"{out}/student", names, how["mean"], how["std"])
    return right / total


if __name__ == "__main__":
    print(f"sskd {sskd.__version__}")
    with tempfile.TemporaryDirectory() as temporary:
        print(f"top-1 {main(sys.argv[1] if len(sys.argv) > 1 else str(drawn(Path(temporary) / 'drawn', 64))):.2%}")
