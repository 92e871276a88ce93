"""The same losses from torchdistill, an independent package, in its own loop with its own input pipeline.

Its distillation box, its wrapper with the head, its hooks, its loss and its data set wrapper are used as they come; the
loop is that of its example scripts. The networks are ours, so that both sides run the same layers.
"""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import Dataset, RandomSampler
from torchvision import transforms

from benchmarks.as_published import SS_TEMPERATURE, TEMPERATURE, WEIGHTS, FourRotations


class Pictures(Dataset[tuple[Image.Image, int]]):
    """Images as PIL objects with the transformation that torchdistill takes over, as torchvision's CIFAR has them."""

    def __init__(self, published: FourRotations) -> None:
        self.pixels, self.labels = published.pixels, published.labels
        self.transform = transforms.Compose([transforms.RandomHorizontalFlip(), published.finish])

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        return Image.fromarray(self.pixels[index]), self.labels[index]


def box(
    student: nn.Module,
    teacher: nn.Module,
    classifiers: tuple[str, str],
    widths: tuple[int, int],
    published: FourRotations,
    batch_size: int,
    workers: int,
    device: str,
    lr: float,
) -> Any:
    """torchdistill's box for SSKD's second stage; pairs are student, teacher. `classifiers`: the modules' names."""
    logging.getLogger("torchdistill").setLevel(logging.ERROR)
    from torchdistill.core.distillation import DistillationBox

    paths = [f"model.{name}" for name in classifiers]
    sides = [
        {
            "forward_proc": "forward_batch4sskd",
            "forward_hook": {"input": [path], "output": [path, "ss_module"]},
            "requires_grad": trains,
            "auxiliary_model_wrapper": {
                "key": "SSWrapper4SSKD",
                "kwargs": {
                    "input_module": {"path": path, "io": "input"},
                    "feat_dim": width,
                    "ss_module_ckpt": str(Path("no", "checkpoint")),
                    "freezes_ss_module": not trains,
                },
            },
        }
        for path, width, trains in zip(paths, widths, (True, False), strict=True)
    ]
    loss = {
        "student_linear_module_path": paths[0],
        "teacher_linear_module_path": paths[1],
        "student_ss_module_path": "ss_module",
        "teacher_ss_module_path": "ss_module",
        "kl_temp": TEMPERATURE,
        "ss_temp": SS_TEMPERATURE,
        "tf_temp": TEMPERATURE,
        "ss_ratio": 0.75,
        "tf_ratio": 1.0,
        "loss_weights": [WEIGHTS[name] for name in ("ce", "kd", "ss", "tf")],
    }
    pinned = device.startswith("cuda")
    loader = {"batch_size": batch_size, "num_workers": workers, "drop_last": True, "pin_memory": pinned}
    config = {
        "num_epochs": 1,
        "train_data_loader": {
            "dataset_id": "train",
            "dataset_wrapper": {"key": "SSKDDatasetWrapper"},
            "sampler": {"class_or_func": RandomSampler},
            "kwargs": loader,
        },
        "student": sides[0],
        "teacher": sides[1],
        "criterion": {
            "key": "WeightedSumLoss",
            "kwargs": {"sub_terms": {"sskd": {"criterion": {"key": "SSKDLoss", "kwargs": loss}, "weight": 1.0}}},
        },
        "optimizer": {"key": "SGD", "kwargs": {"lr": lr, "momentum": 0.9, "weight_decay": 5e-4}},
    }
    data = {"train": Pictures(published)}
    made = DistillationBox(teacher.to(device), student.to(device), data, config, torch.device(device), None, False, 1)
    for wrapped in (made.student_model, made.teacher_model):
        wrapped.to(device)
    made.pre_epoch_process(epoch=0)
    made.teacher_model.eval()
    return made


class PeerStep:
    """The loop of torchdistill's example scripts, a step at a time."""

    def __init__(self, made: Any) -> None:
        self.box = made
        self.batches: Iterator[Any] = iter(())

    def prepare(self) -> None:
        """Start an epoch, and its workers."""
        self.batches = iter(self.box.train_data_loader)

    def __call__(self) -> float:
        """One whole step."""
        batch = next(self.batches, None)
        if batch is None:
            self.prepare()
            batch = next(self.batches)
        return self.train(*batch)

    def train(self, images: Tensor, labels: Tensor, extra: Any) -> float:
        """Forward, backward, update; the loss is read at each step, as their loop does."""
        images, labels = images.to(self.box.device), labels.to(self.box.device)
        loss = self.box.forward_process(images, labels, extra)
        self.box.post_forward_process(loss)
        return float(loss.item())

    def stop(self) -> None:
        """End the workers."""
        self.batches = iter(())
