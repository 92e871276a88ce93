"""Our terms against the losses of torchdistill, an independent package: values and gradients, in float64.

    KD, logit standardisation   ours == T^2 x theirs; equal with labels and alpha (our two terms, weighted)
    FitNet, VID, AB, FT         equal, their adapters included; AB with each stage's factor as their weight, FT with
                                their loss given the factors' channel means of squares (see below)
    AT                          equal to their mode "code"; theirs squared / (H W), image by image, of mode "paper"
    RKD, PKT, CRD               equal; of CRD also the banks and Z after a step
    SP                          equal once their rows, of sum 1, are brought to length 1
    FSP                         theirs squared, for each image and column, summed / (B C D)
    DIST                        theirs + T^2 mean(correlation x eps / (length + eps))
    SSKD                        equal, all four terms and the head's, where selection parts no rows of one error level

Different losses, left out:

    CC      theirs is the paper's, kernels of all pairs; ours is that of the field's tables, neighbours' differences.
    FT      theirs is the paper's, of normalised factors; ours is the released code's, of their normalised strength.
            Only the loss as a function of maps is compared.
    AT, FSP where sizes differ: their AT refuses, their FSP takes maxima. They are given maps that are averaged before.

Of NST, KDSVD, IRG, DKD, ONE and HSAKD torchdistill has no loss.
"""

import itertools
from collections.abc import Mapping
from typing import Any, cast

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sskd.data.source import DataInfo
from sskd.methods import ab, at, crd_loss, dist, fitnet, fsp, ft, pkt, rkd, sp, sskd, sskd_loss, vid
from sskd.methods.logits import error_level
from sskd.methods.parts import CrossEntropy, SoftTargets
from sskd.methods.plan import Outputs, Term
from sskd.views.contrastive import Contrastive
from tests.test_terms import batch_of, labels_of, normal, same

REASON = "compares with torchdistill, which is not installed: pip install 'sskd[peer]'"
peers: Any = pytest.importorskip("torchdistill.losses.mid_level", reason=REASON)
wrappers: Any = pytest.importorskip("torchdistill.models.wrapper", reason=REASON)
adaptation: Any = pytest.importorskip("torchdistill.models.adaptation", reason=REASON)

pytestmark = pytest.mark.peer
sizes = pytest.mark.parametrize("size", [2, 5])
temperatures = pytest.mark.parametrize("temperature", [1.0, 4.0])

LOGITS = ("fc", "output", "fc", "output")


def leaf(seed: int, *shape: int) -> Tensor:
    return normal(seed, *shape).requires_grad_()


def maps_of(size: int, *shapes: tuple[int, ...]) -> list[Tensor]:
    """The student's and the teacher's maps by turns."""
    return [(normal if i % 2 else leaf)(i, size, *shape) for i, shape in enumerate(shapes)]


def plain(**values: Tensor) -> Outputs:
    """Values at taps, with one view."""
    return {name: value[:, None] for name, value in values.items()}


def hooked(**values: Any) -> dict[str, dict[str, Any]]:
    """Values as torchdistill's hooks leave them."""
    return {name: {"output": value} for name, value in values.items()}


def pairs(**weights: float) -> dict[str, Any]:
    """Which values are compared, of the same name on both sides, and with which weights."""
    io = {name: {"io": "output", "path": name} for name in weights}
    return {name: {"student": io[name], "teacher": io[name], "weight": weight} for name, weight in weights.items()}


def ours(term: Term, student: Outputs, teacher: Outputs) -> Tensor:
    """The term's loss, on the labels that `labels_of` gives."""
    values = next(iter((student or teacher).values()))
    loss: Tensor = term(student, teacher, batch_of(*values.shape[:2]))
    return loss


def copied(target: Any, source: nn.Module) -> Any:
    """A module of theirs with the weights of one of ours that has the same layers in the same order."""
    target.double().load_state_dict(dict(zip(target.state_dict(), source.state_dict().values(), strict=True)))
    return target


def wrapped(path: str) -> Any:
    """Mean squared error between values of both networks, which is how torchdistill has hints."""
    sides = [{"is_from_teacher": teacher, "module_path": path, "io": "output"} for teacher in (False, True)]
    return peers.SimpleLossWrapper(nn.MSELoss(), input=sides[0], target=sides[1])


@sizes
@temperatures
@pytest.mark.parametrize("standardised", [False, True])
def test_kd(size: int, temperature: float, standardised: bool) -> None:
    student, teacher = leaf(0, size, 7), normal(1, size, 7)
    seen = plain(logits=student), plain(logits=teacher)
    soft = ours(SoftTargets(temperature, standardised), *seen)
    loss = peers.LogitStdKDLoss if standardised else peers.KDLoss
    # Without labels theirs lacks the factor T^2.
    bare = loss(*LOGITS, temperature=temperature, beta=1.0)(hooked(fc=student), hooked(fc=teacher))
    same(soft, temperature**2 * bare, [student])
    both = loss(*LOGITS, temperature=temperature, alpha=0.1)
    full = both(hooked(fc=student), hooked(fc=teacher), labels_of(size))
    same(0.1 * ours(CrossEntropy(), seen[0], {}) + 0.9 * soft, full, [student])


@pytest.mark.parametrize(("side", "kernel", "stride", "padding"), [(4, 1, 1, 0), (8, 3, 2, 1), (6, 3, 1, 0)])
def test_fitnet(side: int, kernel: int, stride: int, padding: int) -> None:
    student, teacher = leaf(0, 3, 2, side, side), normal(1, 3, 5, 4, 4)
    loss = fitnet.FitNetLoss((2, side, side), (5, 4, 4)).double()
    peer = copied(adaptation.ConvReg(2, 5, kernel, stride, padding), loss.regressor)
    theirs = wrapped("reg")(hooked(reg=peer(student)), hooked(reg=teacher), None)
    same(loss(student, teacher), theirs, [student])


@sizes
def test_at(size: int) -> None:
    first, t_first, second, t_second = maps_of(size, (3, 4, 4), (5, 4, 4), (4, 4, 4), (6, 2, 2))
    mine = at.ATLoss()([first, second], [t_first, t_second])
    peer = peers.ATLoss(pairs(a=1.0, b=1.0), mode="code")
    theirs = peer(hooked(a=first, b=F.adaptive_avg_pool2d(second, 2)), hooked(a=t_first, b=t_second))
    same(mine, theirs, [first, second])
    # Of the paper theirs is the norm of an image's difference, ours the mean of its squares over the H W positions.
    paper, images = peers.ATLoss(pairs(a=1.0), mode="paper"), zip(first, t_first, strict=True)
    norms = torch.stack([paper(hooked(a=s[None]), hooked(a=t[None])) for s, t in images])
    same(at.ATLoss()([first], [t_first]), norms.square().mean() / 16, [first])


@sizes
def test_sp(size: int) -> None:
    student, teacher = leaf(0, size, 3, 4, 4), normal(1, size, 5, 2, 2)
    peer = peers.SPKDLoss("a", "a", "batchmean")
    # Theirs divides a row by the sum of its absolute values, the paper and ours by its length.
    rows = peer.matmul_and_normalize
    torch.testing.assert_close(rows(teacher).abs().sum(1), torch.ones(size, dtype=torch.float64))
    peer.matmul_and_normalize = lambda z: F.normalize(rows(z))
    same(sp.SPLoss()(student, teacher), peer(hooked(a=student), hooked(a=teacher)), [student])


@pytest.mark.parametrize("size", [3, 7])  # with two images every value is 0
@pytest.mark.parametrize("factors", [(1.0, 0.0), (0.0, 1.0), (25.0, 50.0)])
def test_rkd(size: int, factors: tuple[float, float]) -> None:
    student, teacher = leaf(0, size, 5), normal(1, size, 4)
    theirs = peers.RKDLoss("a", "a", *factors, "mean")(hooked(a=student), hooked(a=teacher))
    same(rkd.RKDLoss(*factors)(student, teacher), theirs, [student])


@sizes
def test_pkt(size: int) -> None:
    student, teacher = leaf(0, size, 5), normal(1, size, 4)
    theirs = peers.PKTLoss(*LOGITS)(hooked(fc=student), hooked(fc=teacher))
    same(pkt.PKTLoss()(student, teacher), theirs, [student])


@sizes
@pytest.mark.parametrize("variance", [5.0, 0.5])
def test_vid(size: int, variance: float) -> None:
    student, teacher = leaf(0, size, 3, 4, 4), normal(1, size, 5, 4, 4)
    loss = vid.VIDLoss([3], [5], variance).double()
    (layer,) = loss.layers
    peer = wrappers.Regressor4VID(3, 5, 5, eps=1e-5, init_pred_var=variance).double()
    torch.testing.assert_close(peer.soft_plus_param, layer.get_parameter("log_scale"), rtol=1e-6, atol=1e-6)
    peer.soft_plus_param = layer.log_scale
    copied(peer.regressor, layer.get_submodule("regressor"))
    theirs = peers.VIDLoss(pairs(a=1.0))(hooked(a=peer(student)), hooked(a=teacher))
    same(loss([student], [teacher]), theirs, [student, cast(Tensor, layer.log_scale)])


@sizes
@pytest.mark.parametrize("margin", [1.0, 0.3])
def test_ab(size: int, margin: float) -> None:
    first, t_first, second, t_second = maps_of(size, (3, 4, 4), (3, 4, 4), (4, 2, 2), (6, 2, 2))
    boundaries = ab.ABLoss([(3, 4, 4), (4, 2, 2)], [(3, 4, 4), (6, 2, 2)], margin).double()
    mine, connector = boundaries([first, second], [t_first, t_second]), boundaries.connectors[1]
    conv, bn = {"in_channels": 4, "out_channels": 6, "kernel_size": 1}, {"num_features": 6}
    peer = copied(wrappers.Connector4DAB.build_connector(conv, bn), connector)
    # Ours holds the authors' factors 2^(i - L + 1) x 3 / 1000, theirs leaves them to its user.
    loss = peers.AltActTransferLoss(pairs(a=0.5 * 0.003, b=0.003), margin, "mean")
    same(mine, loss(hooked(a=first, b=peer(second)), hooked(a=t_first, b=t_second)), [first, second])


@sizes
def test_ft(size: int) -> None:
    student, teacher = leaf(0, size, 3, 4, 4), normal(1, size, 4, 4, 4)
    coder, translator = ft.Paraphraser(4, 2).double(), ft.Translator(3, 2).double()
    stage = ("stage3", "stage3")
    peer_coder = copied(wrappers.Paraphraser4FactorTransfer(0.5, 4, uses_bn=False), coder)
    again = wrapped("a")(hooked(a=peer_coder(teacher)), hooked(a=teacher), None)
    mine = ours(ft.Reconstruction(stage, coder), {}, plain(stage3=teacher))
    torch.testing.assert_close(mine, again, rtol=1e-11, atol=1e-13)
    peer = copied(wrappers.Translator4FactorTransfer(3, 2), translator.encoder)
    # Theirs compares what it is given, by the paper the factors; ours their channel means of squares.
    strengths = [factors.square().mean(1) for factors in (peer(student), peer_coder.encoder(teacher))]
    theirs = peers.FTLoss()(hooked(translator=strengths[0]), hooked(paraphraser=strengths[1]))
    same(ours(ft.Factors(stage, translator, coder), plain(stage3=student), plain(stage3=teacher)), theirs, [student])


@sizes
def test_fsp(size: int) -> None:
    first, t_first, second, t_second = maps_of(size, (3, 4, 4), (3, 4, 4), (5, 2, 2), (5, 2, 2))
    mine = fsp.FSPLoss()([first, second], [t_first, t_second])
    io = {name: {"io": "output", "path": name} for name in ("first", "second")}
    peer = peers.FSPLoss({"a": {f"{side}_{name}": io[name] for side in ("student", "teacher") for name in io}})
    # Theirs sums the norms of the matrices' columns, ours averages the squares of their entries.
    sides = [(F.adaptive_avg_pool2d(x, 2), y) for x, y in ((first, second), (t_first, t_second))]
    columns = [
        peer(*(hooked(first=x[b, None], second=y[b, d, None, None]) for x, y in sides))
        for b, d in itertools.product(range(size), range(5))
    ]
    same(mine, torch.stack(columns).square().sum() / (size * 3 * 5), [first, second])


@sizes
@temperatures
@pytest.mark.parametrize(("kind", "factors"), [(dist.InterClassLoss, (1.0, 0.0)), (dist.IntraClassLoss, (0.0, 1.0))])
def test_dist(size: int, temperature: float, kind: Any, factors: tuple[float, float]) -> None:
    student, teacher, eps = leaf(0, size, 7), normal(1, size, 7), 1e-8
    beta, gamma = factors
    peer = peers.DISTLoss(*LOGITS, beta=beta, gamma=gamma, tau=temperature, eps=eps)
    s, t = ((logits / temperature).softmax(1) for logits in (student, teacher))
    rows = (s.T, t.T) if gamma else (s, t)
    length = torch.stack([(x - x.mean(1, keepdim=True)).norm(dim=1) for x in rows]).prod(0)
    # Theirs bounds the two lengths from below by eps, ours adds it to their product, as the authors do.
    gap = (peer.pearson_correlation(*rows, eps) * eps / (length + eps)).mean() * temperature**2
    theirs = peer(hooked(fc=student), hooked(fc=teacher)) + gap
    same(kind(temperature, False)(student, teacher), theirs, [student])


@sizes
def test_crd(size: int) -> None:
    labels, negatives = torch.arange(16) % 4, 6
    # 1/16 for the temperature: theirs is rounded to float32 when it is stored.
    loss = crd_loss.CRDLoss(5, 3, labels, 8, negatives, temperature=1 / 16, momentum=0.5).double()
    peer = peers.CRDLoss("s", "where", "t", 8, 16, negatives, 16, temperature=1 / 16, momentum=0.5).double()
    peer.memory_v1.copy_(loss.memory_student)
    peer.memory_v2.copy_(loss.memory_teacher)
    embed_s, embed_t = wrappers.Normalizer4CRD(loss.embed_s), wrappers.Normalizer4CRD(loss.embed_t)
    for step in range(2):  # the first sets Z, and moves the banks that the second reads
        student, teacher, batch = leaf(step, size, 5), normal(9 + step, size, 3), batch_of(size, 1)
        # Each image's own draw, of any class, for both: theirs cannot draw (it reads an attribute that it never sets).
        drawn = torch.randint(16, (size, negatives), generator=torch.Generator().manual_seed(step))
        count = F.one_hot(drawn, 16).sum(1).double()
        mine, seen = loss.against(loss.embedded(student, teacher), batch.index, torch.arange(16), count)
        where = {"pos_idx": batch.index, "contrast_idx": torch.cat([batch.index[:, None], drawn], 1)}
        outputs: Mapping[str, Any] = hooked(s=embed_s(student)) | {"where": {"input": where}}
        theirs = peer(outputs, hooked(t=embed_t(teacher)))
        same(mine, theirs.sum(), [student, loss.embed_s.weight, loss.embed_t.weight])
        loss.update(seen, batch.index)
        kept = (loss.memory_student, loss.memory_teacher, loss.normaliser)
        torch.testing.assert_close(kept, (peer.memory_v1, peer.memory_v2, peer.params[2:4].detach()))


def whole_levels(level: Tensor, share: float) -> float:
    """A share of the wrong rows that parts none of one error level: theirs leaves open which of them are kept."""
    wrong = level[level > 0].double()
    kept = int((wrong <= wrong.quantile(share, interpolation="lower")).sum()) if len(wrong) else 0
    return min(1.0, (kept + 0.5) / max(len(wrong), 1))


@pytest.mark.parametrize("size", [2, 5, 9])
@pytest.mark.parametrize("share", [0.25, 0.75, 1.0])
def test_sskd(size: int, share: float) -> None:
    batch, task = batch_of(size, 4), Contrastive()
    logits, pooled = leaf(0, size, 4, 7), leaf(1, size, 4, 5)
    t_logits = normal(2, size, 4, 7) + F.one_hot(batch.labels, 7)[:, None]
    z = normal(3, size, 4, 5) + normal(4, size, 1, 5)  # of the teacher's head; an image's views are alike
    head = task.head(5, cast(DataInfo, None)).double()
    ratio_tf = whole_levels(error_level(t_logits[:, 1:].flatten(0, 1), batch.labels.repeat_interleave(3)), share)
    ratio_ss = whole_levels(error_level(task.logits(z), task.target(batch)), share)
    ss, tf = sskd.Similarity(task, head, nn.Identity(), 0.5, ratio_ss), sskd.Transformed(4.0, ratio_tf)
    terms: dict[str, Term] = {"ce": CrossEntropy(), "kd": SoftTargets(4.0), "ss": ss, "tf": tf}
    student, teacher = {"logits": logits, "pooled": pooled}, {"logits": t_logits, "pooled": z}
    rows = [{"fc": x.flatten(0, 1), "head": y.flatten(0, 1)} for x, y in ((logits, head(pooled)), (t_logits, z))]
    alone = [{name: float(name == one) for name in terms} for one in terms]
    peer = peers.SSKDLoss("fc", "fc", "head", "head", 4.0, 0.5, 4.0, ratio_ss, ratio_tf)
    for weights in (*alone, *sskd_loss.PRESETS.values()):
        peer.loss_weights = [weights[name] for name in terms]
        theirs = peer(*(hooked(**side) for side in rows), batch.labels)
        mine = torch.stack([weights[name] * term(student, teacher, batch) for name, term in terms.items()]).sum()
        same(mine, theirs, [logits, pooled, *head.parameters()])
    theirs = peers.AuxSSKDLoss()({}, hooked(ss_module=head(pooled).flatten(0, 1)))
    same(ours(sskd.HeadTask(task, head), {}, {"pooled": pooled}), theirs, [pooled, *head.parameters()])
