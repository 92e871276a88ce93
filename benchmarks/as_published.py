"""The student step of SSKD with the arithmetic, and the costs, of the code that was released with the paper.

Written here to measure against; nothing else uses it. What it does on purpose, and what the package does instead:

| here | in `sskd` |
|---|---|
| cosines by expanding both sides to [3N, d, N] | one matrix product of unit vectors |
| error ranks by sorting every row | by counting the entries above the right answer |
| rows are chosen by index and a count read from the device | by a 0/1 mask of fixed shape |
| every logged value is read at once | sums stay on the device |
| four PIL pipelines for each image | uint8 batches, flipped and cropped by indexing |
| fp32, contiguous, the optimiser as torch sets it up | measured choice of precision and format, fused optimiser |

The teacher runs under `no_grad` on both sides: the released student step does so too.
"""

import random

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64, UInt8
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

VIEWS = 4
WEIGHTS = {"ce": 0.1, "kd": 0.9, "tf": 2.7, "ss": 10.0}
TEMPERATURE, SS_TEMPERATURE = 4.0, 0.5

Sides = tuple[Tensor, Tensor]  # class logits [4N, K] and head outputs [4N, E], image by image, the plain view first


class WithHead(nn.Module):
    """A timm-style backbone with the two-layer head on its pooled features."""

    def __init__(self, backbone: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.backbone, self.head = backbone, head

    def forward(self, images: Float[Tensor, "M C H W"]) -> Sides:
        """Logits and head outputs of normalised images."""
        backbone: nn.Module = self.backbone
        pooled = backbone.forward_head(backbone.forward_features(images), pre_logits=True)  # type: ignore[operator]
        return backbone.get_classifier()(pooled), self.head(pooled)  # type: ignore[operator]


def divergence(teacher: Float[Tensor, "M K"], student: Float[Tensor, "M K"], temperature: float) -> Float[Tensor, ""]:
    """T^2 KL(teacher || student), averaged over the rows."""
    target = F.softmax(teacher / temperature, dim=1)
    prediction = F.log_softmax(student / temperature, dim=1)
    return F.kl_div(prediction, target, reduction="batchmean") * temperature**2


def kept_rows(logits: Float[Tensor, "M K"], answers: Int64[Tensor, "M"], ratio: float) -> Int64[Tensor, "kept"]:
    """All rows that are right and the first int(ratio x wrong) others by error rank, in ascending order."""
    order = torch.argsort(logits, dim=1, descending=True)
    rank = torch.argmax((order == answers.unsqueeze(1)).long(), dim=1)
    wrong = torch.nonzero(rank).numel()  # waits for the device
    by_rank = torch.argsort(rank, stable=True)
    return torch.sort(by_rank[: len(rank) - wrong + int(wrong * ratio)]).values


def similarity(head: Float[Tensor, "4N E"], plain: Tensor, changed: Tensor) -> Float[Tensor, "3N N"]:
    """Cosine of every transformed view with every plain one."""
    rows, columns = head[changed], head[plain]
    left = rows.unsqueeze(2).expand(-1, -1, len(columns))  # 3N E N
    right = columns.T.unsqueeze(0).expand(len(rows), -1, -1)  # 3N E N
    return F.cosine_similarity(left, right, dim=1)


def losses(
    student: Sides, teacher: Sides, labels: Int64[Tensor, "N"], ratio_tf: float = 1.0, ratio_ss: float = 0.75
) -> dict[str, Float[Tensor, ""]]:
    """The four unweighted terms, in the precision of what comes in."""
    position = torch.arange(len(student[0]), device=labels.device) % VIEWS
    plain, changed = position == 0, position != 0
    images = torch.arange(len(labels), device=labels.device)
    classes, own = (answers.repeat_interleave(VIEWS - 1) for answers in (labels, images))

    target, prediction = teacher[0][changed], student[0][changed]
    rows = kept_rows(target, classes, ratio_tf)
    target_ss, prediction_ss = (similarity(side[1], plain, changed) for side in (teacher, student))
    rows_ss = kept_rows(target_ss, own, ratio_ss)
    return {
        "ce": F.cross_entropy(student[0][plain], labels),
        "kd": divergence(teacher[0][plain], student[0][plain], TEMPERATURE),
        "tf": divergence(target[rows], prediction[rows], TEMPERATURE),
        "ss": divergence(target_ss[rows_ss], prediction_ss[rows_ss], SS_TEMPERATURE),
    }


class PublishedStep:
    """One training step of the student on views that are normalised already."""

    def __init__(self, student: WithHead, teacher: WithHead, device: str, lr: float) -> None:
        self.student, self.teacher = student.to(device).train(), teacher.to(device).eval()
        self.student.requires_grad_(True)
        self.device = device
        self.optimizer = torch.optim.SGD(self.student.parameters(), lr=lr, momentum=0.9, weight_decay=5e-4)

    def __call__(self, views: Float[Tensor, "N 4 C H W"], labels: Int64[Tensor, "N"]) -> dict[str, float]:
        """Train on one batch; the logged values come back as numbers."""
        images, labels = views.flatten(0, 1).to(self.device), labels.to(self.device)
        student = self.student(images)
        with torch.no_grad():
            teacher = self.teacher(images)
        terms = losses(student, teacher, labels)
        total = sum((WEIGHTS[name] * term for name, term in terms.items()), torch.zeros((), device=self.device))
        self.optimizer.zero_grad()
        total.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        seen = {"total": total.item()} | {name: term.item() for name, term in terms.items()}
        best = student[0][::VIEWS].topk(min(5, student[0].shape[1]), dim=1).indices == labels.unsqueeze(1)
        return seen | {"top1": best[:, 0].float().mean().item(), "top5": best.any(1).float().mean().item()}


class FourRotations(Dataset[tuple[Tensor, int]]):
    """Images as PIL objects: one flip, then four rotations, each with its own crop, `ToTensor` and `Normalize`."""

    def __init__(
        self,
        pixels: UInt8[Tensor, "N C H W"],
        labels: Int64[Tensor, "N"],
        mean: tuple[float, ...],
        std: tuple[float, ...],
    ) -> None:
        self.pixels = np.ascontiguousarray(pixels.permute(0, 2, 3, 1).numpy())  # as torchvision's CIFAR keeps them
        self.labels: list[int] = labels.tolist()
        self.finish = transforms.Compose(
            [
                transforms.RandomCrop(pixels.shape[-1], padding=4),
                transforms.ToTensor(),
                transforms.Normalize(mean, std),
            ]
        )

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Float[Tensor, "4 C H W"], int]:
        image = Image.fromarray(self.pixels[index])
        if random.random() < 0.5:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        views = [self.finish(image.rotate(90 * turns)) for turns in range(VIEWS)]
        return torch.stack(views), self.labels[index]


def loader(dataset: FourRotations, batch_size: int, workers: int, device: str) -> DataLoader[tuple[Tensor, Tensor]]:
    """Shuffled batches [N, 4, C, H, W] and labels, without the ragged rest."""
    pinned = device.startswith("cuda")  # in its favour: the released code does not
    return DataLoader(
        dataset,  # type: ignore[arg-type]  # what comes out is collated, what goes in is not
        batch_size,
        shuffle=True,
        drop_last=True,
        num_workers=workers,
        pin_memory=pinned,
    )
