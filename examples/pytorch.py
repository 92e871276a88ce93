"""SSKD in a plain PyTorch loop: python examples/pytorch.py [DATA]; scikit-learn's digits where it is not given.

With the crops of `sskd distill`, as here, the student comes to the same numbers as there.
"""

import math
import sys

import timm
import torch
from torch import Tensor, nn

from sskd import Distiller
from sskd.data import load_source
from sskd.data.batches import Resident
from sskd.data.crops import Padded
from sskd.data.images import Images
from sskd.seeds import mix

SEED = 0


def batches(images: Images, batch_size: int, crops: int, stage: str, epoch: int) -> list[tuple[Tensor, Tensor]]:
    """An epoch's random crops [B, crops, C, H, W] in [0, 1], and labels. Your own loader stands here."""
    loader = Resident.on(images, torch.device("cpu"), Padded(flip=0.0))  # padded by 4 pixels; not mirrored
    return [(cut.pixels.float() / 255, cut.labels) for cut, _ in loader.epoch(batch_size, crops, (SEED, stage, epoch))]


def normalised(pixels: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """Images in [0, 1] as the networks take them."""
    return (pixels - torch.tensor(mean).view(-1, 1, 1)) / torch.tensor(std).view(-1, 1, 1)


def train_teacher(images: Images, mean: tuple[float, ...], std: tuple[float, ...], classes: int) -> nn.Module:
    """A teacher by cross-entropy alone, of 8 epochs; bring your own instead."""
    teacher = timm.create_model("cifar_resnet20", num_classes=classes, in_chans=len(mean))
    optimizer = torch.optim.SGD(teacher.parameters(), 0.05, momentum=0.9, weight_decay=5e-4)
    for epoch in range(8):
        for crops, labels in batches(images, 64, 1, "teacher", epoch):
            loss = nn.functional.cross_entropy(teacher(normalised(crops[:, 0], mean, std)), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return teacher


def main(
    data: str, epochs: int = 8, head_epochs: int = 4, teacher: nn.Module | None = None, out: str = "runs/pytorch"
) -> float:
    """Train a teacher (where none is given), its head and a student; write its folder; return its test accuracy."""
    source = load_source(data)
    assert isinstance(source.train, Images) and isinstance(source.test, Images), "small images, which fit into memory"
    mean, std, classes = source.mean, source.std, len(source.class_names)
    torch.manual_seed(mix(SEED, "weights"))
    student = timm.create_model("cifar_resnet8", num_classes=classes, in_chans=len(mean))
    distiller = Distiller(
        student,
        teacher or train_teacher(source.train, mean, std, classes),
        method="sskd",
        num_classes=classes,
        image_shape=(len(mean), *source.train.pixels.shape[-2:]),
        epochs=epochs,
        options={"head_epochs": head_epochs},
        mean=mean,
        std=std,
        seed=SEED,
    )
    for stage in distiller.stages:  # the teacher's head, then the student
        distiller.set_stage(stage.name)
        optimizer = torch.optim.SGD(distiller.trainable_parameters(), 0.05, momentum=0.9, weight_decay=5e-4)
        steps = stage.epochs * (len(source.train) // 64)
        milestones = [math.ceil(share * steps) for share in stage.optim.milestones]
        schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, milestones, gamma=0.1)
        for epoch in range(stage.epochs):
            distiller.set_epoch(epoch)
            for crops, labels in batches(source.train, 64, 4, stage.name, epoch):
                step = distiller(crops, labels)  # one crop of each image, [B, C, H, W], will do as well
                optimizer.zero_grad()
                step.loss.backward()
                optimizer.step()
                schedule.step()
            print(f"{stage.name} epoch {epoch + 1}/{stage.epochs}:", *(f"{k} {v:.3f}" for k, v in step.terms.items()))
    distiller.eval()
    with torch.no_grad():
        logits = student(normalised(source.test.pixels.float() / 255, mean, std))
    distiller.save_student(f"{out}/student", source.class_names)
    return float((logits.argmax(1) == source.test.labels).float().mean())


if __name__ == "__main__":
    print(f"test top-1 {main(sys.argv[1] if len(sys.argv) > 1 else 'digits'):.2%}")
