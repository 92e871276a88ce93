"""SSKD as a LightningModule, on scikit-learn's digits: python examples/lightning_loop.py (pip install lightning)."""

from typing import Any

import lightning as L
import timm
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from sskd import Distiller

MEAN, STD = (0.5,), (0.5,)


def digits() -> tuple[TensorDataset, TensorDataset]:
    """Training and test images [1, 32, 32] in [0, 1] with labels."""
    flat, labels = (torch.tensor(part) for part in load_digits(return_X_y=True))
    images = nn.functional.interpolate(flat.view(-1, 1, 8, 8).float() / 16, size=32, mode="bilinear")
    return TensorDataset(images[:1000], labels[:1000]), TensorDataset(images[1000:], labels[1000:])


class Classifier(L.LightningModule):
    """A network by cross-entropy alone: the teacher."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.network = timm.create_model(name, num_classes=10, in_chans=1)

    def training_step(self, batch: tuple[Tensor, Tensor], _: int) -> Tensor:
        """The loss."""
        images, labels = batch
        return nn.functional.cross_entropy(self.network((images - MEAN[0]) / STD[0]), labels)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """SGD."""
        return torch.optim.SGD(self.network.parameters(), 0.05, momentum=0.9, weight_decay=5e-4)


class Distillation(L.LightningModule):
    """One stage of a Distiller. Lightning saves its `state_dict` with its checkpoints, and resumes."""

    def __init__(self, distiller: Distiller, stage: str) -> None:
        super().__init__()
        self.distiller = distiller
        distiller.set_stage(stage)

    def training_step(self, batch: tuple[Tensor, Tensor], _: int) -> Tensor:
        """The loss; each term is logged."""
        self.distiller.set_epoch(self.current_epoch)
        step = self.distiller(*batch)
        self.log_dict({name: value.detach() for name, value in step.terms.items()}, prog_bar=True)
        return step.loss

    def validation_step(self, batch: tuple[Tensor, Tensor], _: int) -> None:
        """The student's accuracy."""
        images, labels = batch
        logits = self.distiller.student((images - MEAN[0]) / STD[0])
        self.log("top1", (logits.argmax(1) == labels).float().mean(), prog_bar=True)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """SGD, of what the stage trains."""
        return torch.optim.SGD(self.distiller.trainable_parameters(), 0.05, momentum=0.9, weight_decay=5e-4)


def main(epochs: int = 8, teacher_epochs: int = 8, out: str = "runs/lightning", **trainer: Any) -> float:
    """Train teacher, head and student, write the student's folder, and return its test accuracy."""
    L.seed_everything(0)
    train, test = digits()
    loader, held_out = DataLoader(train, 64, shuffle=True, drop_last=True), DataLoader(test, 256)
    quiet: dict[str, Any] = {"accelerator": "cpu", "logger": False, "enable_checkpointing": False, **trainer}
    teacher = Classifier("cifar_resnet20")
    L.Trainer(max_epochs=teacher_epochs, **quiet).fit(teacher, loader)
    student = timm.create_model("cifar_resnet8", num_classes=10, in_chans=1)
    facts: dict[str, Any] = {"num_classes": 10, "image_shape": (1, 32, 32), "epochs": epochs, "mean": MEAN, "std": STD}
    distiller = Distiller(student, teacher.network, options={"head_epochs": max(1, epochs // 2)}, **facts)
    for stage in distiller.stages:  # the teacher's head, then the student
        fitted = L.Trainer(max_epochs=stage.epochs, **quiet)
        fitted.fit(Distillation(distiller, stage.name), loader, held_out)
    distiller.save_student(f"{out}/student")
    return float(fitted.callback_metrics["top1"])


if __name__ == "__main__":
    print(f"test top-1 {main():.2%}")
