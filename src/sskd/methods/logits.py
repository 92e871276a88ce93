"""Losses on predictions that many methods share: soft targets, standardised logits, and selective transfer."""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from sskd.errors import UserError


def need_positive(**values: float) -> None:
    """Refuse temperatures, epochs and rates that are not above zero.

    Raises:
        UserError: names the option.
    """
    for name, value in values.items():
        if not value > 0:
            raise UserError(f"{name} must be above 0; got {value}.")


def need_at_least_zero(**values: float) -> None:
    """Refuse weights and epochs below zero.

    Raises:
        UserError: names the option.
    """
    for name, value in values.items():
        if value < 0:
            raise UserError(f"{name} must be 0 or more; got {value}.")


def check_labels(logits: Tensor, labels: Tensor) -> None:
    """Refuse labels that are not one class number for each row of logits.

    Raises:
        UserError: names the shapes, or the type.
    """
    if labels.ndim != 1 or len(labels) != len(logits):
        raise UserError(
            f"Labels are one class number for each of the {len(logits)} images, [B]; got {list(labels.shape)}. Mixed "
            "or one-hot labels are not defined for this loss."
        )
    if labels.dtype not in (torch.int64, torch.int32, torch.int16, torch.uint8):
        raise UserError(f"Labels are class numbers, such as torch.int64; got {labels.dtype}.")


def check_logits(student: Tensor, teacher: Tensor) -> None:
    """Refuse predictions of two networks that cannot be compared entry by entry.

    Raises:
        UserError: they are no rows of logits, or their shapes differ; names both.
    """
    if student.shape == teacher.shape and student.ndim >= 2:
        return
    if student.ndim < 2:
        raise UserError(f"Logits are [B, K], a row for each image; the student's are {list(student.shape)}.")
    unlike = "classes" if student.shape[:-1] == teacher.shape[:-1] else "images or views"
    raise UserError(
        f"The student's logits are {list(student.shape)} and the teacher's {list(teacher.shape)}: other {unlike}. Give "
        "both networks the same batch, and choose the teacher's outputs for the student's classes, in their order."
    )


def check_batch(student: Tensor, teacher: Tensor) -> None:
    """Refuse features of two networks that are not of the same images.

    Raises:
        UserError: they are no tensors, or their numbers of images differ.
    """
    if not (isinstance(student, Tensor) and isinstance(teacher, Tensor)):
        raise UserError(f"This loss takes one tensor of each network; got a {type(student).__name__}.")
    if len(student) != len(teacher):
        raise UserError(
            f"The student's values are {list(student.shape)} and the teacher's {list(teacher.shape)}: {len(student)} "
            f"and {len(teacher)} images. Give both networks the same batch."
        )


def row_kl(teacher: Float[Tensor, "M K"], student: Float[Tensor, "M K"], temperature: float) -> Float[Tensor, "M"]:
    """T^2 KL(teacher || student) of each row's softmax at temperature T (Hinton et al. 2015, section 2)."""
    target = F.log_softmax(teacher / temperature, dim=1)
    prediction = F.log_softmax(student / temperature, dim=1)
    return F.kl_div(prediction, target, reduction="none", log_target=True).sum(1) * temperature**2


def standardise(logits: Float[Tensor, "M K"]) -> Float[Tensor, "M K"]:
    """Each row's z-score: Sun et al., "Logit Standardization in Knowledge Distillation", CVPR 2024."""
    return (logits - logits.mean(1, keepdim=True)) / (logits.std(1, keepdim=True) + 1e-7)


def comparable(
    student: Float[Tensor, "B K"], teacher: Float[Tensor, "B K"], standardised: bool
) -> tuple[Float[Tensor, "B K"], Float[Tensor, "B K"]]:
    """Both networks' logits, of equal shape, standardised where that is asked for.

    Raises:
        UserError: unequal shapes.
    """
    check_logits(student, teacher)
    return (standardise(student), standardise(teacher)) if standardised else (student, teacher)


class TemperatureLoss(nn.Module):
    """A loss of logits at a temperature, of their z-scores where `standardised`. To be derived from."""

    def __init__(self, temperature: float = 4.0, standardised: bool = False) -> None:
        super().__init__()
        need_positive(temperature=temperature)
        self.temperature = temperature
        self.standardised = standardised


class KDLoss(TemperatureLoss):
    """Soft targets: T^2 KL(teacher || student) of the class probabilities at temperature T, batch mean.

    Hinton, Vinyals, Dean, "Distilling the Knowledge in a Neural Network", 2015, section 2. It is 0 or more, and 0 where
    both predict the same. CIFAR-100 tables weigh it 0.9, beside cross-entropy with 0.1.

    Args:
        temperature: T, above 0.
        standardised: compare each row's z-scores (Sun et al., CVPR 2024, who take T = 2 and a weight of 9).

    Example:
        >>> student, teacher = torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 2.0]])
        >>> round(float(KDLoss(temperature=4.0)(student, teacher)), 4)
        1.9593
    """

    def forward(self, student: Float[Tensor, "B K"], teacher: Float[Tensor, "B K"]) -> Float[Tensor, ""]:
        """The loss of logits.

        Raises:
            UserError: unequal shapes.
        """
        student, teacher = comparable(student, teacher, self.standardised)
        return row_kl(teacher, student, self.temperature).mean()


def error_level(logits: Float[Tensor, "M K"], answer: Int64[Tensor, "M"]) -> Int64[Tensor, "M"]:
    """The rank of the right answer: how many entries are strictly greater (0 = correct; SSKD's "error level")."""
    right = logits.gather(1, answer[:, None])
    return (logits > right).sum(1)


def select(level: Int64[Tensor, "M"], ratio: float) -> Bool[Tensor, "M"]:
    """Selective transfer: all correct rows and the first int(ratio x wrong) others by error level, ties in row order.

    A mask and not a list of rows: the shape does not depend on the values, so nothing waits for the device and the
    step compiles as one graph.
    """
    wrong = (level > 0).sum()
    kept = (len(level) - wrong) + (wrong.double() * ratio).long()
    # The inverse of a stable sort is each row's place in it.
    place = torch.argsort(torch.argsort(level, stable=True))
    return place < kept


def masked_mean(values: Float[Tensor, "M"], mask: Bool[Tensor, "M"]) -> Float[Tensor, ""]:
    """Mean of the kept values; 0 where none is kept."""
    return (values * mask).sum() / mask.sum().clamp(min=1)


def selective_kl(
    student: Float[Tensor, "M K"],
    teacher: Float[Tensor, "M K"],
    answer: Int64[Tensor, "M"],
    temperature: float,
    ratio: float,
) -> Float[Tensor, ""]:
    """T^2 KL(teacher || student) averaged over the rows that selective transfer keeps.

    `answer` is the right column of each row. All rows that the teacher gets right are kept, and of the others the share
    `ratio` whose right answer it ranks highest (SSKD, section 3.3).
    """
    kept = select(error_level(teacher, answer), ratio)
    return masked_mean(row_kl(teacher, student, temperature), kept)
