"""The page: everything gathered, then rendered into one HTML file that needs nothing beside it."""

import base64
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from itertools import count
from typing import Any

import jinja2
from markupsafe import Markup

from sskd.report.analyses import Budget, Looked, looked_at
from sskd.report.configs import Configs, RunLine, configs_of, run_lines
from sskd.report.curves import NUMBERS, curves_plot
from sskd.report.filters import FILTERS
from sskd.report.found import Found
from sskd.report.groups import units
from sskd.report.plots import Plot, accuracy_plot, colour, cost_plot, study_plot
from sskd.report.sections import Section, sections_of
from sskd.report.summary import Answer, answer, comparable, headline, ranking, study_answer

ANSWERS = 6
THUMBNAILS = 1_400_000  # bytes, as base64


@dataclass
class Part:
    """A section with its plots."""

    section: Section
    key: str
    study: Plot | None = None
    accuracy: Plot | None = None
    cost: Plot | None = None
    curves: Plot | None = None

    @property
    def plots(self) -> list[Plot]:
        """Those that there are."""
        return [one for one in (self.study, self.accuracy, self.cost, self.curves) if one]

    @property
    def published(self) -> bool:
        """Whether a row has a published number."""
        return any(row["published"] is not None for group in self.section.groups for row in group.rows)


@dataclass
class Page:
    """All that a report says, in whatever format."""

    title: str
    made: str
    command: str
    version: str
    headline: str
    parts: list[Part]
    answers: list[Answer]
    more_answers: int
    ranking: list[dict[str, Any]]
    warnings: list[str]
    runs: list[RunLine]
    configs: list[Configs]
    looked: list[Looked]
    finished: bool  # nothing is left to wait for
    busy: bool  # a process trains in one of the folders
    plots: list[Plot] = field(default_factory=list)

    @property
    def probed(self) -> list[str]:
        """Data that features were probed on."""
        return list(dict.fromkeys(data for look in self.looked for data in look.probes))

    @property
    def unit(self) -> str:
        """What the runs' costs are seconds of."""
        return units(run.unit for run in self.runs if run.seconds)


def gather(found: Found, title: str, made: str, command: str, version: str) -> Page:
    """Everything that the files say."""
    sections = sections_of(found)
    room = NUMBERS if len(found.runs) < 1000 else NUMBERS // 2
    total = sum(len(section.runs) for section in sections) or 1
    parts = []
    for key, section in zip(_keys([section.title for section in sections]), sections, strict=True):
        part = Part(section, key, study_plot(section.study, key) if section.study else None)
        if not section.study:
            part.accuracy, part.cost = accuracy_plot(section, key), cost_plot(section, key)
        part.curves = curves_plot(section, key, room * len(section.runs) // total)
        parts.append(part)
    groups = [group for section in sections if not section.study for group in section.groups if group.kind == "methods"]
    studies = [section.study for section in sections if section.study]
    answers = [one for one in (*map(answer, groups), *map(study_answer, studies)) if one]
    matched, budget = comparable(groups), Budget(THUMBNAILS)
    looked = looked_at(found, budget)
    plots = [plot for part in parts for plot in part.plots] + [plot for look in looked for plot in look.plots]
    colour(plots)
    return Page(
        title or ", ".join(section.title for section in sections[:3]) or "Runs",
        made, command, version, headline(sections), parts, answers[:ANSWERS], len(answers[ANSWERS:]),
        ranking(matched) if len(matched) > 1 else [], _warnings(found, sections, budget),
        run_lines(sections), configs_of(sections), looked, _finished(found, sections), bool(found.held), plots,
    )  # fmt: skip


def _keys(titles: Sequence[str]) -> list[str]:
    """Sections by name, so that a plot's file keeps its name whatever else a report shows; a number where two agree."""
    keys: list[str] = []
    for title in titles:
        name = re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-") or "runs"
        numbered = (f"{name}-{number}" for number in count(2))
        keys.append(name if name not in keys else next(one for one in numbered if one not in keys))
    return keys


def _warnings(found: Found, sections: Sequence[Section], budget: Budget) -> list[str]:
    said = [*found.problems]
    data = list(dict.fromkeys(section.data for section in sections if section.runs or not section.study))
    if len(data) > 1:
        said.append(f"Runs of different data are in this report ({'; '.join(data)}). Each has tables of its own; "
                    "accuracies of one cannot be compared with those of another.")  # fmt: skip
    mixed = [section.title for section in sections if " and " in section.data and section.runs]
    said += [f"{title} holds runs of different data; its rows cannot be compared." for title in mixed]
    broken = [run for run in found.runs if run.state == "broken"]
    if broken:
        said.append(
            f"{len(broken)} of {len(found.runs)} runs could not be read whole; they are marked as broken below."
        )
    if budget.left_out:
        said.append(f"{budget.left_out} thumbnails were left out, to keep this file small; they lie beside the runs.")
    return said


def _finished(found: Found, sections: Sequence[Section]) -> bool:
    waiting = any(section.waiting for section in sections)
    return not waiting and all(run.state in ("finished", "broken") for run in found.runs)


def as_html(page: Page, refresh: int = 0) -> str:
    """The page; with `refresh`, one that browsers load anew after so many seconds."""
    script = "\n".join(_asset(name) for name in ("draw.js", "plots.js", "page.js"))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return _environment().get_template("page.html.j2").render(
        page=page, css=Markup(_asset("report.css")), script=Markup(script), script_hash=f"sha256-{digest}",
        plots=_data([plot.packed() for plot in page.plots]), refresh=refresh,
    )  # fmt: skip


def _data(value: Any) -> Markup:
    """JSON that cannot end the script element which holds it."""
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    return Markup(re.sub("[<>&\ud800-\udfff]", lambda found: f"\\u{ord(found[0]):04x}", text))


@cache
def _asset(name: str) -> str:
    return (resources.files("sskd.report") / "assets" / name).read_text(encoding="utf-8")


@cache
def _environment() -> jinja2.Environment:
    templates: Mapping[str, str] = {name: _asset(name) for name in ("page.html.j2", "parts.html.j2")}
    found = jinja2.Environment(
        autoescape=True, loader=jinja2.DictLoader(templates), undefined=jinja2.ChainableUndefined
    )
    found.filters.update(FILTERS)
    return found
