"""SSKD in 100 lines, without the engine: teacher, self-supervision head, student, on scikit-learn's digits.

Xu et al., "Knowledge Distillation Meets Self-Supervision", ECCV 2020. Run: python examples/sskd_in_100_lines.py
"""

import timm
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import Tensor, nn

import sskd  # noqa: F401  registers the cifar_ networks with timm

WEIGHTS = {"ce": 0.1, "kd": 0.9, "tf": 2.7, "ss": 10.0}


def digits() -> tuple[Tensor, Tensor]:
    """1,797 images [N, 1, 32, 32], about zero, and their labels."""
    data = load_digits()
    images = torch.tensor(data.images, dtype=torch.float32)[:, None] / 16
    return (F.interpolate(images, size=32, mode="bilinear") - 0.3) / 0.35, torch.tensor(data.target)


def views(images: Tensor) -> Tensor:
    """[B, 4, C, H, W]: view k is rotated by k x 90 degrees, after a random crop of its own."""
    padded, made = F.pad(images, (4,) * 4, value=-0.3 / 0.35), []
    for k in range(4):
        top, left = torch.randint(0, 9, (2, len(images))).tolist()
        crops = [p[:, t : t + 32, c : c + 32] for p, t, c in zip(padded, top, left, strict=True)]
        made.append(torch.rot90(torch.stack(crops), k, (-2, -1)))
    return torch.stack(made, 1)


def both(net: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
    """Logits [B, 4, K] and the classifier's input [B, 4, D]."""
    pooled = net.forward_head(net.forward_features(images.flatten(0, 1)), pre_logits=True)  # type: ignore[operator]
    shape = (len(images), 4, -1)
    return net.get_classifier()(pooled).view(shape), pooled.view(shape)  # type: ignore[operator]


def similarity(z: Tensor) -> Tensor:
    """Rows: transformed views, image by image. Columns: plain images. Entries: cosine."""
    unit = F.normalize(z, dim=-1)
    return unit[:, 1:].flatten(0, 1) @ unit[:, 0].T


def kl(teacher: Tensor, student: Tensor, t: float) -> Tensor:
    """T^2 KL of each row."""
    target = F.softmax(teacher / t, 1)
    return F.kl_div(F.log_softmax(student / t, 1), target, reduction="none").sum(1) * t * t


def kept(teacher: Tensor, answer: Tensor, ratio: float) -> Tensor:
    """Selective transfer: the rows that the teacher gets right, and the least wrong of the others."""
    level = (teacher > teacher.gather(1, answer[:, None])).sum(1)
    wrong = int((level > 0).sum())
    return level.argsort(stable=True)[: len(level) - wrong + int(ratio * wrong)]


def losses(ts: tuple[Tensor, Tensor], st: tuple[Tensor, Tensor], y: Tensor) -> dict[str, Tensor]:
    """The four losses from logits [B, 4, K] and head outputs [B, 4, E] of teacher and student."""
    (tl, tz), (sl, sz) = ts, st
    t_sim, s_sim, own = similarity(tz), similarity(sz), torch.arange(len(y)).repeat_interleave(3)
    t_rot, s_rot = tl[:, 1:].flatten(0, 1), sl[:, 1:].flatten(0, 1)
    tf, ss = kept(t_rot, y.repeat_interleave(3), 1.0), kept(t_sim, own, 0.75)
    return {
        "ce": F.cross_entropy(sl[:, 0], y),
        "kd": kl(tl[:, 0], sl[:, 0], 4.0).mean(),
        "tf": kl(t_rot[tf], s_rot[tf], 4.0).mean(),
        "ss": kl(t_sim[ss], s_sim[ss], 0.5).mean(),
    }


def main(teacher_steps: int = 300, head_steps: int = 100, student_steps: int = 240, labels: int = 50) -> float:
    """Train all three and return the student's accuracy on the images that nobody trained on."""
    torch.manual_seed(0)
    x, y = digits()
    order = torch.randperm(len(x))
    train, few, test = order[:1000], order[:labels], order[1000:]
    teacher, student = (timm.create_model(f"cifar_resnet{n}", num_classes=10, in_chans=1) for n in (20, 8))
    t_head, s_head = (nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64)) for _ in range(2))

    def loss_of(stage: str, batch: Tensor) -> Tensor:
        seen, own = views(x[batch]), torch.arange(len(batch)).repeat_interleave(3)
        if stage == "teacher":  # labels alone
            return F.cross_entropy(teacher(seen[:, 0]), y[batch])
        with torch.no_grad():
            logits, pooled = both(teacher, seen)
        if stage == "head":  # which image does a view come from? No temperature here
            return F.cross_entropy(similarity(t_head(pooled)), own)
        s_logits, s_pooled = both(student, seen)
        found = losses((logits, t_head(pooled).detach()), (s_logits, s_head(s_pooled)), y[batch])
        return torch.stack([WEIGHTS[name] * value for name, value in found.items()]).sum()

    def fit(stage: str, parts: list[nn.Module], steps: int, rate: float, index: Tensor) -> None:
        optimizer = torch.optim.SGD([p for m in parts for p in m.parameters()], rate, 0.9, weight_decay=5e-4)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps, cycle_momentum=False)
        for _ in range(steps):
            optimizer.zero_grad()
            torch.autograd.backward(loss_of(stage, index[torch.randperm(len(index))[:32]]))
            optimizer.step()
            schedule.step()

    fit("teacher", [teacher], teacher_steps, 0.1, train)
    teacher.eval()
    fit("head", [t_head], head_steps, 0.05, train)
    fit("student", [student, s_head], student_steps, 0.1, few)
    with torch.no_grad():
        scores = [float((net.eval()(x[test]).argmax(1) == y[test]).float().mean()) for net in (teacher, student)]
    print(f"teacher {scores[0]:.1%} (1,000 labels), student {scores[1]:.1%} ({labels} labels)")
    return scores[1]


if __name__ == "__main__":
    main()
