"""SSKD's losses on tensors, for any training loop. The method that the engine runs stands in `sskd.methods.sskd`."""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn

from sskd.errors import UserError
from sskd.methods.logits import check_labels, check_logits, need_positive, row_kl, selective_kl
from sskd.views.contrastive import similarity_logits
from sskd.views.pretext import two_layers
from sskd.views.rotations import rotated

# The published sources disagree on the last two: the released code, the arXiv version, the supplement.
PRESETS: dict[str, dict[str, float]] = {
    "released": {"ce": 0.1, "kd": 0.9, "tf": 2.7, "ss": 10.0},
    "arxiv": {"ce": 0.1, "kd": 0.9, "tf": 10.0, "ss": 2.7},
    "supplement": {"ce": 0.1, "kd": 0.9, "tf": 5.0, "ss": 3.0},
}


def weights_of(preset: str, given: Mapping[str, float | None]) -> dict[str, float]:
    """The weights of the four terms: a preset's, but for those that are given.

    Raises:
        UserError: an unknown preset.
    """
    if preset not in PRESETS:
        raise UserError(f"preset is one of {', '.join(PRESETS)}; got {preset!r}.")
    return PRESETS[preset] | {name: weight for name, weight in given.items() if weight is not None}


def need_ratios(**ratios: float) -> None:
    """The options of selective transfer, by name.

    Raises:
        UserError: one is outside of 0..1.
    """
    for name, ratio in ratios.items():
        if not 0 <= ratio <= 1:
            raise UserError(f"{name} is the share of wrong rows to transfer, from 0 to 1; got {ratio}.")


class ProjectionHead(nn.Sequential):
    """The head on a network's pooled features: Linear(d, d) - ReLU - Linear(d, d).

    Teacher and student have one each, as wide as their own features: what is compared are similarities.

    Example:
        >>> ProjectionHead(64)(torch.rand(8, 4, 64)).shape
        torch.Size([8, 4, 64])
    """

    def __init__(self, dim: int) -> None:
        super().__init__(*two_layers(dim, dim))


def rotated_views(images: Tensor) -> Tensor:
    """Make of each image its four views: the plain one, and turned counter-clockwise by 90, 180 and 270 degrees.

    Args:
        images: [B, C, S, S]; or [B, 4, C, S, S], four random crops of each image, of which the k-th is turned k times,
            as in the published recipe. Normalised or not: rotation leaves the values as they are.

    Returns:
        [B, 4, C, S, S], the plain view first.

    Raises:
        UserError: another shape; images that are not square.

    Example:
        >>> rotated_views(torch.rand(8, 3, 32, 32)).shape
        torch.Size([8, 4, 3, 32, 32])
    """
    if images.ndim == 4:
        images = images[:, None].expand(-1, 4, -1, -1, -1)
    if images.ndim != 5 or images.shape[1] != 4 or images.shape[-1] != images.shape[-2]:
        raise UserError(
            "rotated_views takes square images [B, C, S, S], or four crops of each [B, 4, C, S, S]; got "
            f"{list(images.shape)}."
        )
    return rotated(images)[0]


def own_image(embeddings: Float[Tensor, "B V E"]) -> Int64[Tensor, "B*(V-1)"]:
    """The right column of each row of `similarity_logits`: the image that the view was made of."""
    size, views = embeddings.shape[:2]
    return torch.arange(size, device=embeddings.device).repeat_interleave(views - 1)


class SSKDHeadLoss(nn.Module):
    """The teacher's head: which image of the batch does a transformed view come from? Cross-entropy, no temperature.

    Xu et al., ECCV 2020, equation 2. The teacher is frozen and in eval mode; the head alone is trained. Batches below
    two images ask nothing.

    Example:
        >>> embeddings = torch.eye(2)[:, None].expand(2, 4, 2)
        >>> round(float(SSKDHeadLoss()(embeddings)), 4)
        0.3133
    """

    def forward(self, embeddings: Float[Tensor, "B V E"]) -> Float[Tensor, ""]:
        """The loss of the head's outputs on all views, the plain one first.

        Raises:
            UserError: no transformed views; a single image.
        """
        check_views(embeddings)
        return F.cross_entropy(similarity_logits(embeddings), own_image(embeddings))


class SSKDLoss(nn.Module):
    """The student's loss: labels, the teacher's predictions on plain and transformed views, and its similarities.

    Xu, Liu, Li, Loy, "Knowledge Distillation Meets Self-Supervision", ECCV 2020. With T^2 before each KL,
    total = ce CE + kd KL(T = 4, plain view) + tf KL(T = 4, transformed views) + ss KL(T = 0.5, rows of the similarity
    matrices). Of the rows of tf and ss on which the teacher is wrong, the share `ratio` is kept, the least wrong first.

    Args:
        preset: the weights of the four terms as published: released .1 .9 2.7 10, arxiv .1 .9 10 2.7, supplement
            .1 .9 5 3.
        ce: weight in place of the preset's.
        kd: see ce.
        tf: see ce.
        ss: see ce.
        temperature: of kd and tf.
        ss_temperature: of ss.
        ratio_tf: share of the wrong rows of tf that is transferred, 0 to 1.
        ratio_ss: of ss.

    Raises:
        UserError: an unknown preset, a ratio outside 0..1, a temperature not above 0.

    Example:
        >>> student, teacher = torch.randn(8, 4, 10), torch.randn(8, 4, 10)
        >>> loss, terms = SSKDLoss()(student, torch.randn(8, 4, 64), teacher, torch.randn(8, 4, 256), torch.arange(8))
        >>> sorted(terms)
        ['ce', 'kd', 'ss', 'tf']
    """

    def __init__(
        self,
        preset: str = "released",
        ce: float | None = None,
        kd: float | None = None,
        tf: float | None = None,
        ss: float | None = None,
        temperature: float = 4.0,
        ss_temperature: float = 0.5,
        ratio_tf: float = 1.0,
        ratio_ss: float = 0.75,
    ) -> None:
        super().__init__()
        self.weights = weights_of(preset, {"ce": ce, "kd": kd, "tf": tf, "ss": ss})
        need_positive(temperature=temperature, ss_temperature=ss_temperature)
        need_ratios(ratio_tf=ratio_tf, ratio_ss=ratio_ss)
        self.temperature, self.ss_temperature = temperature, ss_temperature
        self.ratio_tf, self.ratio_ss = ratio_tf, ratio_ss

    def forward(
        self,
        student_logits: Float[Tensor, "B V K"],
        student_embeddings: Float[Tensor, "B V E"],
        teacher_logits: Float[Tensor, "B V K"],
        teacher_embeddings: Float[Tensor, "B V F"],
        labels: Int64[Tensor, "B"],
    ) -> tuple[Float[Tensor, ""], dict[str, Float[Tensor, ""]]]:
        """The weighted sum and its unweighted terms `ce`, `kd`, `tf`, `ss`.

        View 0 is the plain image. Embeddings are the outputs of each network's own head; their widths may differ.

        Raises:
            UserError: no transformed views; a single image; logits of other shapes; other numbers of images or views.
        """
        check_logits(student_logits, teacher_logits)
        for values in (student_logits, student_embeddings, teacher_embeddings):
            check_views(values)
        check_labels(student_logits, labels)
        self._check_sizes(student_logits, student_embeddings, teacher_embeddings, labels)
        views = student_logits.shape[1] - 1
        student_rows, teacher_rows = (side[:, 1:].flatten(0, 1) for side in (student_logits, teacher_logits))
        answers = labels.repeat_interleave(views)
        student_similarity, teacher_similarity = map(similarity_logits, (student_embeddings, teacher_embeddings))
        own = own_image(teacher_embeddings)
        terms = {
            "ce": F.cross_entropy(student_logits[:, 0], labels),
            "kd": row_kl(teacher_logits[:, 0], student_logits[:, 0], self.temperature).mean(),
            "tf": selective_kl(student_rows, teacher_rows, answers, self.temperature, self.ratio_tf),
            "ss": selective_kl(student_similarity, teacher_similarity, own, self.ss_temperature, self.ratio_ss),
        }
        return torch.stack([self.weights[name] * term for name, term in terms.items()]).sum(), terms

    @staticmethod
    def _check_sizes(logits: Tensor, student: Tensor, teacher: Tensor, labels: Tensor) -> None:
        sizes = {tuple(values.shape[:2]) for values in (logits, student, teacher)}
        if len(sizes) > 1 or len(labels) != len(logits):
            raise UserError(
                f"Logits are of {list(logits.shape[:2])} images and views, embeddings of {list(student.shape[:2])} "
                f"(student) and {list(teacher.shape[:2])} (teacher), and there are {len(labels)} labels. Give all of "
                "one batch."
            )


def check_views(values: Tensor) -> None:
    """Refuse values without transformed views, and batches in which no image could be told from another.

    Raises:
        UserError: values that are not [B, V, D] with two views or more, of two images or more.
    """
    if values.ndim != 3 or values.shape[1] < 2:
        raise UserError(
            f"SSKD needs values of several views, [B, V, D] with the plain view first; got {list(values.shape)}. Make "
            "the views with rotated_views(images), run the network on views.flatten(0, 1), and unflatten what it gives."
        )
    if len(values) < 2:
        raise UserError("SSKD asks which image of the batch a view comes from; a batch of one image has one answer.")
