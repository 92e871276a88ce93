"""FT: Kim, Park, Kwak, "Paraphrasing Complex Network: Network Compression via Factor Transfer", NeurIPS 2018.

Two stages. `paraphraser`: an autoencoder on the teacher's last maps, trained once for each teacher. `student`: a
translator makes of the student's maps what the paraphraser makes of the teacher's.
"""

import itertools

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from sskd.errors import UserError
from sskd.methods.adapters import check_map, match
from sskd.methods.logits import need_positive
from sskd.methods.parts import labels_and_kd, need_teacher, seeded, student_stage
from sskd.methods.plan import Optim, Outputs, Pair, Plan, Stage, Term
from sskd.methods.stages import Scaled, align_one, need_map, scaled
from sskd.views.pretext import Batch, Plain


def _layers(widths: tuple[int, int, int, int], norm: bool, transposed: bool = False) -> nn.Sequential:
    """Three 3x3 convolutions, each with (batch norm and) leaky ReLU. Places are kept, as published keys have them."""
    layers: list[nn.Module] = []
    for first, second in itertools.pairwise(widths):
        conv = (nn.ConvTranspose2d if transposed else nn.Conv2d)(first, second, 3, padding=1)
        layers += [conv, nn.BatchNorm2d(second) if norm else nn.Identity(), nn.LeakyReLU(0.1)]
    return nn.Sequential(*layers)


class Paraphraser(nn.Module):
    """Encoder and decoder of the teacher's maps; the paper's k is `factors` / `channels`."""

    def __init__(self, channels: int, factors: int) -> None:
        super().__init__()
        self.encoder = _layers((channels, channels, factors, factors), norm=False)
        self.decoder = _layers((factors, factors, channels, channels), norm=False, transposed=True)


class Translator(nn.Module):
    """The student's encoder, with batch norm."""

    def __init__(self, channels: int, factors: int) -> None:
        super().__init__()
        self.encoder = _layers((channels, channels, factors, factors), norm=True)


class FTLoss(nn.Module):
    """Factor transfer: mean absolute difference of the factors' channel means of squares, each of unit length.

    Kim, Park, Kwak, NeurIPS 2018, equations 2 and 3 with p = 1. The paper normalises the factors themselves; this is
    its released code's way. Factors are what a `Translator` makes of the student's maps and a `Paraphraser`'s encoder
    of the teacher's. Where sizes differ the larger are averaged to the smaller. 0 or more; usually weighed 200.

    Example:
        >>> factors = torch.rand(2, 8, 4, 4)
        >>> float(FTLoss()(factors, factors))
        0.0
    """

    def forward(self, student: Float[Tensor, "B C H W"], teacher: Float[Tensor, "B D h w"]) -> Float[Tensor, ""]:
        """The loss of factors, mean over images and positions.

        Raises:
            UserError: values that are no maps, or of other batches.
        """
        check_map(student, teacher)
        s, t = match(student, teacher)
        return (_strength(s) - _strength(t)).abs().mean()


class Reconstruction(Term):
    """Mean squared error of the paraphraser (equation 1)."""

    def __init__(self, stage: tuple[str, str], paraphraser: Paraphraser) -> None:
        super().__init__()
        self.teacher_taps = (stage[1],)
        self.borrowed = (paraphraser,)

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Float[Tensor, ""]:
        """Mean over everything."""
        maps = teacher[self.teacher_taps[0]][:, 0]
        (coder,) = self.borrowed
        return F.mse_loss(coder.decoder(coder.encoder(maps)), maps)


class Factors(Term):
    """The loss of the student's factors, by a translator, and of the teacher's, by its paraphraser."""

    def __init__(self, stage: tuple[str, str], translator: Translator, paraphraser: Paraphraser) -> None:
        super().__init__()
        self.student_taps, self.teacher_taps = (stage[0],), (stage[1],)
        self.translator = translator
        self.borrowed = (paraphraser,)
        self.compare = FTLoss()

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Float[Tensor, ""]:
        """Mean over images and positions."""
        theirs = self.borrowed[0].encoder(teacher[self.teacher_taps[0]][:, 0])
        loss: Tensor = self.compare(self.translator.encoder(student[self.student_taps[0]][:, 0]), theirs)
        return loss


def _strength(factors: Float[Tensor, "B C H W"]) -> Float[Tensor, "B H*W"]:
    return F.normalize(factors.square().mean(1).flatten(1))


def plan(
    pair: Pair,
    *,
    epochs: int,
    optim: Optim,
    weight: float = 200.0,
    ce_weight: float = 1.0,
    kd_weight: float = 0.0,
    rate: float = 0.5,
    init_epochs: int | Scaled = Scaled(30),
    init_lr: float = 0.01,
    stage: str = "last",
) -> Plan:
    """`rate`: factors for each of the teacher's channels. `init_epochs` of the paraphraser at `init_lr`.

    The paraphraser's rate is 0.01 for every student, so that all share one; the widely used code takes 0.05 with VGG
    students. `stage` as "stage2", "STUDENT:TEACHER" or "last".

    Raises:
        UserError: no teacher; a stage that is not there, or gives no maps; a rate outside 0..1.
    """
    need_teacher(pair, "ft")
    length, notes = scaled("init_epochs", init_epochs, epochs)
    need_positive(init_epochs=length, init_lr=init_lr, rate=rate)
    if rate > 1:
        raise UserError(f"rate is the share of the teacher's channels that its factors have, up to 1; got {rate}.")
    s, t = align_one(pair, "ft", stage)
    channels = need_map(pair, "ft", "teacher", t)[0]
    factors = max(1, int(channels * rate))
    paraphraser = seeded(lambda: Paraphraser(channels, factors))
    translator = Translator(need_map(pair, "ft", "student", s)[0], factors)
    steady = Optim(lr=init_lr, milestones=())
    reconstruction = {"reconstruction": (1.0, Reconstruction((s, t), paraphraser))}
    first = Stage("paraphraser", reconstruction, ("paraphraser",), length, steady, shared=True)
    loss = labels_and_kd(ce_weight, kd_weight) | {"ft": (weight, Factors((s, t), translator, paraphraser))}
    return Plan((first, student_stage(loss, epochs, optim)), Plain(), {"paraphraser": paraphraser}, notes)
