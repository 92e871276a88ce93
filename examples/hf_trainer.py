"""SSKD in Hugging Face's Trainer: a ViT teaches a small MobileViT, both built from their configs.

python examples/hf_trainer.py (pip install transformers accelerate). Your own checkpoints come by from_pretrained.
"""

from typing import Any

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from transformers import (
    EvalPrediction,
    MobileViTConfig,
    MobileViTForImageClassification,
    PreTrainedModel,
    Trainer,
    TrainingArguments,
    ViTConfig,
    ViTForImageClassification,
    set_seed,
)

from sskd import Distiller

SIDE, MEAN, STD = 32, 0.5, 0.5
Rows = list[dict[str, Tensor]]


def digits(rows: slice) -> Rows:
    """Images [3, 32, 32], normalised, under the names that transformers has for them."""
    flat, labels = (torch.tensor(part[rows]) for part in load_digits(return_X_y=True))
    images = nn.functional.interpolate(flat.view(-1, 1, 8, 8).float() / 16, size=SIDE, mode="bilinear")
    images = (images.expand(-1, 3, -1, -1) - MEAN) / STD
    return [{"pixel_values": image, "labels": label} for image, label in zip(images, labels, strict=True)]


class DistillationTrainer(Trainer):
    """Its model is a Distiller, and the loss what that returns."""

    def compute_loss(self, model: nn.Module, inputs: dict[str, Tensor], return_outputs: bool = False, **_: Any) -> Any:
        """The loss, and the student's logits where they are asked for."""
        step = model(inputs["pixel_values"], inputs["labels"])
        return (step.loss, {"logits": step.logits}) if return_outputs else step.loss

    def prediction_step(self, model: Any, inputs: dict[str, Tensor], *_: Any, **__: Any) -> Any:
        """The student alone, for evaluation."""
        with torch.no_grad():
            logits = model.student(inputs["pixel_values"]).logits
        return nn.functional.cross_entropy(logits, inputs["labels"]), logits, inputs["labels"]


def accuracy(prediction: EvalPrediction) -> dict[str, float]:
    """Top-1."""
    return {"top1": float((np.argmax(prediction.predictions, 1) == prediction.label_ids).mean())}


def networks() -> tuple[PreTrainedModel, PreTrainedModel]:
    """Teacher and student."""
    vit = ViTConfig(
        image_size=SIDE, patch_size=8, hidden_size=64, num_hidden_layers=4, num_attention_heads=4, num_labels=10
    )
    widths, necks = [16, 24, 32], [8, 8, 16, 16, 24, 32, 64]
    small = MobileViTConfig(image_size=SIDE, patch_size=2, hidden_sizes=widths, neck_hidden_sizes=necks, num_labels=10)
    return ViTForImageClassification(vit), MobileViTForImageClassification(small)


def main(epochs: int = 8, teacher_epochs: int = 8, images: int = 1000, out: str = "runs/hf_trainer") -> float:
    """Train teacher, head and student, and return the student's test accuracy."""
    set_seed(0)
    train, test = digits(slice(images)), digits(slice(1000, None))
    given: dict[str, Any] = {"per_device_train_batch_size": 50, "learning_rate": 1e-3, "save_strategy": "no"}
    given |= {"report_to": [], "use_cpu": True, "disable_tqdm": True, "dataloader_drop_last": True}
    given |= {"remove_unused_columns": False}  # the Distiller calls them images and labels
    teacher, student = networks()
    Trainer(teacher, TrainingArguments(out, num_train_epochs=teacher_epochs, **given), train_dataset=train).train()
    facts: dict[str, Any] = {"num_classes": 10, "image_shape": (3, SIDE, SIDE), "epochs": epochs}
    distiller = Distiller(student, teacher, options={"head_epochs": max(1, epochs // 2)}, **facts)
    for stage in distiller.stages:  # the teacher's head, then the student
        distiller.set_stage(stage.name)
        arguments = TrainingArguments(out, num_train_epochs=stage.epochs, **given)
        data: dict[str, Any] = {"train_dataset": train, "eval_dataset": test}
        trainer = DistillationTrainer(distiller, arguments, compute_metrics=accuracy, **data)
        trainer.train()
    student.save_pretrained(f"{out}/student")
    return float(trainer.evaluate()["eval_top1"])


if __name__ == "__main__":
    print(f"test top-1 {main():.2%}")
