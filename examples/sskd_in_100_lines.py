"""SSKD without the engine, on scikit-learn's digits: python examples/sskd_in_100_lines.py (arXiv 2006.07114)."""

import timm
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import Tensor, nn

import sskd  # noqa: F401  registers the cifar_ networks with timm


def views(images: Tensor) -> Tensor:
    """[B, 4, C, H, W]: view k is a random crop of its own, rotated by k x 90 degrees. Digits are not mirrored."""
    padded, made = F.pad(images, (4,) * 4), []
    for k in range(4):
        corners = torch.randint(0, 9, (len(images), 2)).tolist()
        crops = [image[:, t : t + 32, c : c + 32] for image, (t, c) in zip(padded, corners, strict=True)]
        made.append(torch.rot90(torch.stack(crops), k, (-2, -1)))
    return torch.stack(made, 1)


def both(net: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
    """Logits [B, 4, K] and the classifier's input [B, 4, D]."""
    pooled = net.forward_head(net.forward_features(images.flatten(0, 1)), pre_logits=True)  # type: ignore[operator]
    pooled = pooled.unflatten(0, (-1, 4))
    return net.get_classifier()(pooled), pooled  # type: ignore[operator]


def similarity(z: Tensor) -> Tensor:
    """Rows: transformed views, image by image. Columns: plain images. Entries: cosine."""
    unit = F.normalize(z, dim=-1)
    return unit[:, 1:].flatten(0, 1) @ unit[:, 0].T


def kl(teacher: Tensor, student: Tensor, t: float) -> Tensor:
    """T^2 KL(teacher || student), averaged over the rows."""
    return F.kl_div(F.log_softmax(student / t, 1), F.softmax(teacher / t, 1), reduction="batchmean") * t * t


def kept(teacher: Tensor, answer: Tensor, ratio: float) -> Tensor:
    """Selective transfer: the rows that the teacher gets right, and the least wrong of the others."""
    level = (teacher > teacher.gather(1, answer[:, None])).sum(1)
    wrong = int((level > 0).sum())
    return level.argsort(stable=True)[: len(level) - wrong + int(ratio * wrong)]


def losses(teacher: tuple[Tensor, Tensor], student: tuple[Tensor, Tensor], y: Tensor) -> dict[str, Tensor]:
    """The four losses from logits [B, 4, K] and head outputs [B, 4, E] of each side."""
    (t_logits, t_z), (s_logits, s_z) = teacher, student
    t_rot, s_rot = t_logits[:, 1:].flatten(0, 1), s_logits[:, 1:].flatten(0, 1)
    t_sim, s_sim, own = similarity(t_z), similarity(s_z), torch.arange(len(y)).repeat_interleave(3)
    tf, ss = kept(t_rot, y.repeat_interleave(3), 1.0), kept(t_sim, own, 0.75)
    ce, kd = F.cross_entropy(s_logits[:, 0], y), kl(t_logits[:, 0], s_logits[:, 0], 4.0)
    return {"ce": ce, "kd": kd, "tf": kl(t_rot[tf], s_rot[tf], 4.0), "ss": kl(t_sim[ss], s_sim[ss], 0.5)}


def main(teacher_steps: int = 100, head_steps: int = 40, student_steps: int = 120, labels: int = 50) -> float:
    """Train all three and return the student's accuracy on the images that nobody trained on."""
    torch.manual_seed(0)
    flat, y = (torch.tensor(part) for part in load_digits(return_X_y=True))
    x = F.interpolate(flat.view(-1, 1, 8, 8).float() / 16, size=32, mode="bilinear")
    order = torch.randperm(len(x))
    train, few, test = order[:1000], order[:labels], order[1000:]
    weights = {"ce": 0.1, "kd": 0.9, "tf": 2.7, "ss": 10.0}
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
        return torch.stack([weights[name] * loss for name, loss in found.items()]).sum()

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
