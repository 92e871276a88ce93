"""The methods of the golden vectors, computed by the package: one entry of `METHOD_CHECKS` each.

A method's plan is made from the shapes that a file holds, so its adapters are built by the code that training runs;
then they are given the published weights.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sskd.methods import METHODS
from sskd.methods.crd_loss import CRDLoss
from sskd.methods.crld_loss import CRLDLoss
from sskd.methods.ft import Factors, Reconstruction
from sskd.methods.parts import LossTerm
from sskd.methods.plan import Optim, Pair, Plan, Term
from sskd.methods.reviewkd import ReviewKDLoss, hierarchical_context
from tests.oracles.stored import Golden, Malformed, Results, batch_of, facts

Check = Callable[[Golden, re.Match[str]], Results]


def input_of(tap: str) -> str:
    """The name under which the values at a tap are stored."""
    names = {"stem": "map0", "pooled": "embedding", "logits": "logits"}
    return names.get(tap) or re.sub(r"stage(\d+)(\.pre)?", lambda m: f"{'preact' if m[2] else 'map'}{m[1]}", tap)


TAPS = ("stem", "pooled", "logits", *(f"stage{i}{end}" for i in range(1, 9) for end in ("", ".pre")))


def pair_in(golden: Golden) -> Pair:
    """The shapes of a file's inputs."""
    shapes = {
        side: {
            tap: golden.arrays[key].shape[1:] for tap in TAPS if (key := f"in.{side}_{input_of(tap)}") in golden.arrays
        }
        for side in ("student", "teacher")
    }
    if not shapes["student"] or not shapes["teacher"]:
        raise Malformed("has no inputs of a student and of a teacher")
    size = next(len(value) for key, value in golden.arrays.items() if key.startswith("in.student_"))
    classes = shapes["student"].get("logits", (10,))[0]
    return Pair(shapes["student"], shapes["teacher"], facts(classes, torch.arange(size) % classes, (3, 32, 32)))


def planned(golden: Golden, method: str, **options: Any) -> Plan:
    """The method's plan for a file's shapes."""
    return METHODS[method](pair_in(golden), epochs=1, optim=Optim(lr=0.1), **options)


def term_of(plan: Plan, name: str, stage: int = -1) -> Term:
    """A term of a plan, in float64."""
    return plan.stages[stage].loss[name][1].double().train()


def load(golden: Golden, method: str, module: nn.Module, renamed: Mapping[str, str] | None = None) -> None:
    """Give a module the weights stored under `METHOD.param.`; each of its parameters must be there.

    `renamed`: parts of stored names and what stands for them here.
    """
    prefix, found = f"{method}.param.", dict[str, Tensor]()
    for key in golden.arrays:
        if key.startswith(prefix):
            name = key.removeprefix(prefix)
            for theirs, ours in (renamed or {}).items():
                name = name.replace(theirs, ours)
            # A convolution and its norm may be stored under their places in a sequence.
            name = re.sub(r"^(connectors\.\d+)\.([01])\.", lambda m: f"{m[1]}.{('conv', 'bn')[int(m[2])]}.", name)
            if name in module.state_dict():
                found[name] = golden.tensor(key)
    if missing := [name for name, _ in module.named_parameters() if name not in found]:
        raise Malformed(f"has no {prefix}* for {missing[0]}")
    module.load_state_dict(found, strict=False)


def evaluate(golden: Golden, terms: Mapping[str, tuple[float, Term]]) -> dict[str, Tensor]:
    """The weighted sum of terms, its parts where there are several stages, and gradients."""
    read = {side: {tap for _, term in terms.values() for tap in getattr(term, f"{side}_taps")} for side in _SIDES}
    values = {side: {tap: golden.tensor(f"in.{side}_{input_of(tap)}") for tap in taps} for side, taps in read.items()}
    leaves = {f"grad.student_{input_of(tap)}": value.requires_grad_() for tap, value in values["student"].items()}
    student, teacher = ({tap: value[:, None] for tap, value in values[side].items()} for side in _SIDES)
    size = len(next(iter(leaves.values())))
    labels = golden.tensor("in.target") if "in.target" in golden.arrays else torch.zeros(size, dtype=torch.int64)
    batch = batch_of(torch.zeros(size, 1, 3, 1, 1), labels)
    loss = torch.stack([weight * term(student, teacher, batch) for weight, term in terms.values()]).sum()
    gradients = dict(zip(leaves, torch.autograd.grad(loss, [*leaves.values()]), strict=True))
    each: dict[str, Tensor] = {}
    for _, term in terms.values():
        if isinstance(term, LossTerm) and (parts := getattr(term.loss, "each", None)):
            each = {f"loss{i}": part for i, part in enumerate(parts(*term.values(student, teacher)))}
    return {"loss": loss, **each, **gradients}


_SIDES = ("student", "teacher")


def value_of(text: str) -> float:
    """A number in a method's name: `4`, `0.5`, and `05` for 0.5."""
    return float(f"0.{text[1:]}" if re.fullmatch(r"0\d+", text) else text)


def simple(method: str, name: str, renamed: Mapping[str, str] | None = None, stage: int = -1, **options: Any) -> Check:
    """One unweighted term of the method, with the stored weights of its adapters."""

    def check(golden: Golden, match: re.Match[str]) -> Results:
        term = term_of(planned(golden, method, **options), name, stage)
        load(golden, method, term.get_submodule("loss"), renamed)
        return evaluate(golden, {name: (1.0, term)})

    return check


def weighted(method: str, **names: str) -> Check:
    """All of the method's own terms; `names`: its options by the group of the pattern that holds the number."""

    def check(golden: Golden, match: re.Match[str]) -> Results:
        options: dict[str, Any] = {option: value_of(match[group]) for option, group in names.items()}
        if method == "dkd":
            options["warm_up"] = 0.0
        loss = planned(golden, method, **options).stages[-1].loss
        return evaluate(golden, {name: (w, term.double()) for name, (w, term) in loss.items() if name != "ce"})

    return check


def _kd(golden: Golden, match: re.Match[str]) -> Results:
    standardised = match[0].startswith("kd_ls")
    plan = planned(golden, "kd", temperature=value_of(match["T"]), standardised=standardised)
    return evaluate(golden, {"kd": (1.0, term_of(plan, "kd"))})


def _sp(golden: Golden, match: re.Match[str]) -> Results:
    results = evaluate(golden, {"sp": (1.0, term_of(planned(golden, "sp"), "sp"))})
    return {**results, "loss0": results["loss"]}


def _cc(golden: Golden, match: re.Match[str]) -> Results:
    width = golden.array("cc.param.embed_s.linear.bias").shape[0]
    return simple("cc", "cc", {".linear.": "."}, width=width)(golden, match)


def _ft_plan(golden: Golden) -> Plan:
    factors = golden.array("ft.param.paraphraser.encoder.6.bias").shape[0]
    channels = golden.array("ft.param.paraphraser.encoder.0.bias").shape[0]
    plan = planned(golden, "ft", rate=(factors + 0.5) / channels if factors < channels else 1.0)
    load(golden, "ft", plan.modules["paraphraser"].double(), {"paraphraser.": ""})
    return plan


def _ft(golden: Golden, match: re.Match[str]) -> Results:
    term = term_of(_ft_plan(golden), "ft")
    load(golden, "ft", term)
    return evaluate(golden, {"ft": (1.0, term)})


def _ft_paraphraser(golden: Golden, match: re.Match[str]) -> Results:
    term = cast(Reconstruction, term_of(_ft_plan(golden), "reconstruction", 0))
    maps = {tap: golden.tensor(f"in.teacher_{input_of(tap)}")[:, None] for tap in term.teacher_taps}
    size = len(next(iter(maps.values())))
    return {"loss": term({}, maps, batch_of(torch.zeros(size, 1, 3, 1, 1), torch.zeros(size, dtype=torch.int64)))}


class _First(nn.Module):
    """The first channels, in the place of a translator or a paraphraser."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.count = count

    def encoder(self, maps: Tensor) -> Tensor:
        return maps[:, : self.count]


def _ft_factor(golden: Golden, match: re.Match[str]) -> Results:
    pair = pair_in(golden)
    term = cast(Factors, term_of(planned(golden, "ft"), "ft"))
    (student,), (teacher,) = term.student_taps, term.teacher_taps
    first: Any = _First(min(pair.student[student][0], (pair.teacher or {})[teacher][0]))
    return evaluate(golden, {"ft": (1.0, Factors((student, teacher), first, first))})


def _crd(golden: Golden, match: re.Match[str]) -> Results:
    memory = {side: golden.tensor(f"crd.in.memory_{side}") for side in _SIDES}
    index, drawn = golden.tensor("crd.in.index"), golden.tensor("crd.in.contrast_index")
    rows, width = memory["student"].shape
    pair = pair_in(golden)
    widths = pair.student["pooled"][0], (pair.teacher or {})["pooled"][0]
    crd = CRDLoss(*widths, torch.arange(rows), width, drawn.shape[1] - 1, 0.07, 0.5).double()
    load(golden, "crd", crd, {".linear.": "."})
    crd.memory_student.copy_(memory["student"])
    crd.memory_teacher.copy_(memory["teacher"])
    leaf, other = (golden.tensor(f"in.{side}_embedding") for side in _SIDES)
    leaf.requires_grad_()
    count = torch.zeros(len(index), rows, dtype=torch.float64)
    count.scatter_add_(1, drawn[:, 1:], torch.ones(1, dtype=torch.float64).expand(drawn[:, 1:].shape))
    loss, seen = crd.against(crd.embedded(leaf, other), index, torch.arange(rows), count)
    results = {"loss": loss, "grad.student_embedding": torch.autograd.grad(loss, leaf, retain_graph=True)[0]}
    crd.update({name: value.detach() for name, value in seen.items()}, index)
    params = [crd.negatives, crd.temperature, *crd.normaliser.tolist(), crd.momentum]
    memories = {"out.memory_student": crd.memory_student, "out.memory_teacher": crd.memory_teacher}
    return {**results, **memories, "out.params": torch.tensor(params, dtype=torch.float64)}


def _wttm(golden: Golden, match: re.Match[str]) -> Results:
    plan = planned(golden, "wttm", gamma=value_of(match["g"]), weighted=match[0].startswith("w"))
    return evaluate(golden, {"wttm": (1.0, term_of(plan, "wttm"))})


def _rld(golden: Golden, match: re.Match[str]) -> Results:
    names = {"alpha": "a", "beta": "b", "temperature": "T", "confidence_temperature": "t"}
    options = {option: value_of(match[group]) for option, group in names.items()}
    plan = planned(golden, "rld", warm_up=0.0, standardised=match["s"] == "1", **options)
    return evaluate(golden, {n: (w, term.double()) for n, (w, term) in plan.stages[-1].loss.items() if n != "ce"})


def _crld(golden: Golden, match: re.Match[str]) -> Results:
    sides = [golden.tensor(f"in.{side}{view}_logits") for side in _SIDES for view in ("", "_strong")]
    leaves = {f"grad.student{view}_logits": sides[i].requires_grad_() for i, view in enumerate(("", "_strong"))}
    loss = CRLDLoss(*(value_of(match[group]) for group in ("w", "c", "T", "tw", "ts")))(*sides)
    labels = golden.tensor("in.target")
    return with_gradients(loss + F.cross_entropy(sides[0], labels) + F.cross_entropy(sides[1], labels), leaves)


def maps_in(golden: Golden, name: str) -> tuple[list[Tensor], list[Tensor], dict[str, Tensor]]:
    """A file's maps `in.NAME_SIDE0`.. of both networks; and the student's by the keys of their gradients."""
    count = sum(key.startswith(f"in.{name}_student") for key in golden.arrays)
    student, teacher = ([golden.tensor(f"in.{name}_{side}{i}") for i in range(count)] for side in _SIDES)
    return student, teacher, {f"grad.{name}_student{i}": maps.requires_grad_() for i, maps in enumerate(student)}


def with_gradients(loss: Tensor, leaves: Mapping[str, Tensor]) -> Results:
    """A loss and its gradients."""
    return {"loss": loss, **dict(zip(leaves, torch.autograd.grad(loss, [*leaves.values()]), strict=True))}


def _hcl(golden: Golden, match: re.Match[str]) -> Results:
    student, teacher, leaves = maps_in(golden, "review")
    parts = [hierarchical_context(s, t) for s, t in zip(student, teacher, strict=True)]
    return with_gradients(torch.stack(parts).sum(), leaves)


def _reviewkd(golden: Golden, match: re.Match[str]) -> Results:
    student, teacher, leaves = maps_in(golden, "abf")
    shapes = ([(maps.shape[1], maps.shape[2], maps.shape[3]) for maps in side] for side in (student, teacher))
    loss = ReviewKDLoss(*shapes).double().train()
    load(golden, "reviewkd", loss, {f"abf{i}.": f"abf.{i}." for i in range(len(student))})
    return with_gradients(loss(student, teacher), leaves)


_NUMBER = r"[\d.]+"
METHOD_CHECKS: dict[str, Check] = {
    rf"kd_T(?P<T>{_NUMBER})": _kd,
    rf"kd_ls_T(?P<T>{_NUMBER})": _kd,
    "fitnet": simple("fitnet", "hint"),
    "at": simple("at", "at"),
    "sp": _sp,
    "cc": _cc,
    "vid": simple("vid", "vid"),
    "rkd": weighted("rkd"),
    "pkt": simple("pkt", "pkt"),
    "ab": simple("ab", "ab", {"connector.connectors": "connectors"}, 0),
    "ft": _ft,
    "ft_paraphraser": _ft_paraphraser,
    "ft_factor": _ft_factor,
    "fsp": simple("fsp", "fsp", None, 0),
    "nst": simple("nst", "nst"),
    rf"w?ttm_g(?P<g>{_NUMBER})": _wttm,
    rf"rld_a(?P<a>{_NUMBER})_b(?P<b>{_NUMBER})_T(?P<T>{_NUMBER})_t(?P<t>{_NUMBER})_s(?P<s>[01])": _rld,
    rf"crld_w(?P<w>{_NUMBER})_c(?P<c>{_NUMBER})_T(?P<T>{_NUMBER})_tw(?P<tw>{_NUMBER})_ts(?P<ts>{_NUMBER})": _crld,
    "reviewkd_hcl": _hcl,
    "reviewkd": _reviewkd,
    "crd": _crd,
    "kdsvd": simple("kdsvd", "kdsvd"),
    rf"irg_v(?P<v>{_NUMBER})_e(?P<e>{_NUMBER})_t(?P<t>{_NUMBER})": weighted(
        "irg", vertex_weight="v", edge_weight="e", transformation_weight="t"
    ),
    rf"dkd_a(?P<a>{_NUMBER})_b(?P<b>{_NUMBER})_T(?P<T>{_NUMBER})": weighted(
        "dkd", alpha="a", beta="b", temperature="T"
    ),
    rf"dist_b(?P<b>{_NUMBER})_g(?P<g>{_NUMBER})_T(?P<T>{_NUMBER})": weighted(
        "dist", beta="b", gamma="g", temperature="T"
    ),
}
"""By the pattern of a method's name in the files: our values by result, `loss`, `grad.student_map3`, `out.params`."""
