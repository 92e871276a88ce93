"""CRLD: Zhang et al., "Cross-View Consistency Regularisation for Knowledge Distillation", ACM Multimedia 2024."""

from jaxtyping import Float
from torch import Tensor, nn

from sskd.methods.logits import check_logits, need_positive, row_kl


class CRLDLoss(nn.Module):
    """Consistency within and across a weakly and a strongly augmented view, where the teacher is confident.

    within x (KD(weak, weak) + KD(strong, strong)) over the images of whose weak view the teacher is sure, + cross x
    (KD(student strong, teacher weak) + KD(student weak, teacher strong)) over those of whose strong view it is sure;
    KD = T^2 KL(teacher || student). Both are sums over these images, divided by all. The authors add cross-entropy on
    both views with weight 1; strong views are made by RandAugment. 0 or more.

    Args:
        within: weight of the same view's predictions.
        cross: weight of the other view's.
        temperature: T, above 0.
        weak_threshold: the teacher's highest probability on the weak view from which on it counts as sure.
        strong_threshold: likewise on the strong view.

    Example:
        >>> weak, strong = torch.randn(4, 10), torch.randn(4, 10)
        >>> bool(CRLDLoss()(weak, strong, 3 * weak, 3 * strong) >= 0)
        True
    """

    def __init__(
        self,
        within: float = 2.0,
        cross: float = 0.5,
        temperature: float = 4.0,
        weak_threshold: float = 0.9,
        strong_threshold: float = 0.2,
    ) -> None:
        super().__init__()
        need_positive(temperature=temperature)
        self.within, self.cross, self.temperature = within, cross, temperature
        self.weak_threshold, self.strong_threshold = weak_threshold, strong_threshold

    def forward(
        self,
        student_weak: Float[Tensor, "B K"],
        student_strong: Float[Tensor, "B K"],
        teacher_weak: Float[Tensor, "B K"],
        teacher_strong: Float[Tensor, "B K"],
    ) -> Float[Tensor, ""]:
        """The weighted sum, of both networks' logits on both views.

        Raises:
            UserError: unequal shapes.
        """
        for logits in (student_strong, teacher_weak, teacher_strong):
            check_logits(student_weak, logits)
        sure = (
            teacher_weak.softmax(1).amax(1) >= self.weak_threshold,
            teacher_strong.softmax(1).amax(1) >= self.strong_threshold,
        )
        within = self._kd(student_weak, teacher_weak) + self._kd(student_strong, teacher_strong)
        cross = self._kd(student_strong, teacher_weak) + self._kd(student_weak, teacher_strong)
        loss: Tensor = self.within * (within * sure[0]).mean() + self.cross * (cross * sure[1]).mean()
        return loss

    def _kd(self, student: Float[Tensor, "B K"], teacher: Float[Tensor, "B K"]) -> Float[Tensor, "B"]:
        return row_kl(teacher, student, self.temperature)
