"""The report: what a patch set is made of, whether it is fit for training, how it looks."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any

import numpy as np
import numpy.typing as npt

from volprep.autoconfig import Plan
from volprep.files import format_bytes, format_memory
from volprep.findings import Finding, Level
from volprep.fingerprint import CaseFacts, Distribution, Fingerprint, Statistics
from volprep.geometry import Shape3, Spacing3, three
from volprep.report.charts import Chart, Curve, draw_bars, draw_curves, number_text
from volprep.report.maps import PatchMap, coverage_cells
from volprep.report.page import (
    Beside,
    Block,
    Charts,
    Column,
    Commands,
    Fold,
    Gallery,
    Html,
    Notice,
    Notices,
    Page,
    Row,
    Section,
    Table,
    Tone,
    Value,
    Words,
    picture_html,
)
from volprep.report.pictures import Picture
from volprep.report.samples import SampleView, draw_samples, sample_strip
from volprep.splits import Splits

__all__ = [
    "COSTS",
    "CaseView",
    "Choice",
    "Overview",
    "Seen",
    "render_refused",
    "render_report",
    "with_costs",
]

#: Where the page says what its making cost, which stands in no set (`with_costs`).
COSTS = "<!-- costs -->"
_TONES: Mapping[Level, tuple[Tone, str]] = {
    "error": ("bad", "Error"),
    "warning": ("warn", "Warning"),
    "info": ("info", "Note"),
}
#: Findings of one name that are listed one by one, rows of a table, and squares of a strip.
_MOST_ALIKE, _MOST_ROWS, _MOST_SQUARES, _MOST_INPUTS = 5, 2000, 600, 200
#: Classes whose shares are drawn, bars of a histogram, and of how much more than is shown of it
#: the rest must be to be left out.
_MOST_CLASSES, _BARS, _STRETCHED = 24, 96, 2.0
_SIDES = {
    "training": "train", "validation": "val", "divided": "both", "not used": "both",
    "with errors": "wrong", "without errors": "both",
}  # fmt: skip


@dataclass(frozen=True)
class CaseView:
    """A case as a row of the table.

    Attributes
    ----------
    name, side : str
        Side is ``training``, ``validation``, ``divided`` or ``not used``; of data that is
        refused ``with errors`` or ``without errors``.
    shape : (C, Z, Y, X) or None
        As prepared; None where it could not be read.
    spacing : (Z, Y, X) or None
        In micrometres.
    dtype : str
    labelled : bool
    patches : (int, int)
        For training and for validation.
    foreground : float or None
        The share of its patches that is labelled.
    picture : Picture or None
    lines : sequence of str
        What the picture shows.
    partial : bool
        Whether some of the picture is not annotated.
    """

    name: str
    side: str
    shape: tuple[int, int, int, int] | None
    spacing: Spacing3 | None
    dtype: str
    labelled: bool
    patches: tuple[int, int] = (0, 0)
    foreground: float | None = None
    picture: Picture | None = None
    lines: Sequence[str] = ()
    partial: bool = False


@dataclass(frozen=True)
class Choice:
    """What a larger or smaller memory would give: a plan, or why there is none."""

    memory: int
    plan: Plan | None
    why: str = ""


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What is known of data that was looked at; see `render_refused`.

    Attributes
    ----------
    name : str
        What the data is called.
    findings : sequence of Finding
    cases : sequence of CaseView
    fingerprint : Fingerprint or None
        Of the training voxels.
    config : str
        The YAML.
    """

    name: str
    findings: Sequence[Finding]
    cases: Sequence[CaseView]
    fingerprint: Fingerprint | None = None
    config: str = ""


@dataclass(frozen=True, kw_only=True)
class Overview(Seen):
    """All that the report tells; see `render_report`.

    Attributes
    ----------
    made : bool
        Whether the patches are there, or only planned.
    normalisation : mapping
        As in `train.yaml`: ``kind``, ``clip`` and what goes with them.
    classes : mapping of int to str, or None
        Names of label values; None for instances.
    label_kind : str or None
    plan : Plan
    choices : sequence of Choice
    splits : Splits
    counts : mapping of str to int
        Patches of each split.
    stored : (Z, Y, X)
        What training patches are stored as.
    maps : sequence of PatchMap
    train, val : sequence of SampleView
    inputs : sequence of (path, bytes, SHA-256)
    versions : mapping of str to str
    stages : sequence of (name, units, bytes)
    """

    made: bool
    normalisation: Mapping[str, Any]
    classes: Mapping[int, str] | None
    label_kind: str | None
    plan: Plan
    choices: Sequence[Choice]
    splits: Splits
    counts: Mapping[str, int]
    stored: Shape3
    maps: Sequence[PatchMap] = ()
    train: Sequence[SampleView] = ()
    val: Sequence[SampleView] = ()
    inputs: Sequence[tuple[str, int, str]] = ()
    versions: Mapping[str, str] = field(default_factory=dict)
    stages: Sequence[tuple[str, int, int]] = ()


def render_report(told: Overview) -> Page:
    """The report as a page.

    Parameters
    ----------
    told : Overview

    Returns
    -------
    Page
        The same bytes for the same `told`: it knows of no time, machine or folder.
    """
    sections = [
        _findings(told),
        _cases(told),
        _intensities(told),
        _objects(told),
        _plan(told),
        _splits(told),
        _samples(told, "Training samples", told.train),
        _samples(told, "Validation tiles", told.val),
        _provenance(told),
        _next(told),
    ]
    strip = [*told.train[:6], *told.val[:2]]
    return Page(
        f"{'Patch set' if told.made else 'Plan'} of {told.name}",
        [_lead(told), _state(told)],
        [section for section in sections if section is not None],
        verdict=_verdict(told),
        facts=_facts(told),
        top=sample_strip(strip, told.plan.spacing) if strip else None,
    )


def render_refused(seen: Seen) -> Page:
    """The page of data that `prepare` refuses: what is wrong, and what can be read of it.

    Parameters
    ----------
    seen : Seen
        With at least one finding of level ``error``.

    Returns
    -------
    Page
        The same bytes for the same `seen`.
    """
    wrong = [finding.name for finding in seen.findings if finding.level == "error"]
    commands = [
        (f"volprep explain {name}", "What it means, and what to do about it.")
        for name in list(dict.fromkeys(wrong))[:3]
    ]
    commands += [
        ("volprep check CONFIG", "Look again, once it is mended."),
        ("volprep prepare CONFIG", "Make the patch set, once there are no errors."),
    ]
    sections = [_findings(seen)]
    if seen.cases:
        sections.append(_cases(seen))
    if seen.config:
        sections.append(Section("Config", "", [_config(seen.config)]))
    sections.append(Section("What to do next", "", [Commands(commands)]))
    return Page(
        f"Data of {seen.name}",
        [
            "Nothing can be prepared of this data as it is.",
            "What is wrong and what is doubtful stands below, with what to do; drawn is what can "
            "be read. There is no plan and no split yet.",
        ],
        sections,
        verdict=_verdict(seen),
        facts=[("Cases", f"{len(seen.cases):,}", _sides(seen))],
    )


def with_costs(html: str, costs: Sequence[tuple[str, float, int | None]]) -> str:
    """A report that also says what its making took.

    Parameters
    ----------
    html : str
        As a patch set has it.
    costs : sequence of (stage, seconds, bytes)
        Bytes are the most that the process had held at the end of the stage.
    """
    if not costs:
        return html
    rows = [
        Row([
            stage, Value(f"{seconds:.1f} s", seconds),
            Value("" if peak is None else format_bytes(peak), peak),
        ])
        for stage, seconds, peak in costs
    ]  # fmt: skip
    columns = [Column("Stage"), Column("Time", number=True), Column("Memory at most", number=True)]
    table = Table(columns, rows, "Time and memory of each stage")
    return html.replace(
        COSTS, f"<h3>Time and memory of the run that finished it</h3>{table.html()}", 1
    )


def _lead(told: Overview) -> str:
    cases = _count(len(told.cases), "case")
    shape = _shape(told.plan.median_shape)
    kind = {"instances": "instances", "classes": "classes", None: "no labels"}.get(
        told.label_kind, str(told.label_kind)
    )
    channels = "" if told.plan.n_channels == 1 else f"{told.plan.n_channels} channels, "
    flat = "2D images" if told.plan.median_shape[0] == 1 else "volumes"
    step = _spacing(told.plan.spacing)
    return f"{cases}: {flat} of {shape} voxels (median), {channels}{step}, {kind}."


def _state(told: Overview) -> str:
    patch = _shape(told.plan.patch_size)
    if not told.made:
        return (
            f"Nothing is prepared yet. Patches will be {patch} voxels, {told.plan.batch_size} in "
            "a batch; volprep prepare makes them."
        )
    train, val = told.counts.get("train", 0), told.counts.get("val", 0)
    return (
        f"{_count(train, 'training patch')} and {_count(val, 'validation tile')} are ready; a "
        f"network gets {patch} voxels, {told.plan.batch_size} in a batch."
    )


def _verdict(told: Seen) -> tuple[Tone, str]:
    levels = Counter(finding.level for finding in told.findings)
    if levels["error"]:
        return "bad", f"Not fit for training: {_count(levels['error'], 'error')}"
    if levels["warning"]:
        return "warn", f"Usable; look at {_count(levels['warning'], 'warning')} first"
    absent = _untrained(told) if isinstance(told, Overview) else []
    if isinstance(told, Overview) and told.classes and absent:
        few = f"{len(absent)} of {_count(len(told.classes), 'class', 'classes')}"
        return "warn", f"Usable; {few} not seen in training"
    if isinstance(told, Overview) and not told.made:
        return "good", "Ready to be prepared"
    return "good", "Fit for training"


def _facts(told: Overview) -> list[tuple[str, str, str]]:
    plan = told.plan
    facts = [("Cases", f"{len(told.cases):,}", _sides(told))]
    if told.fingerprint is not None and told.fingerprint.has_labels:
        name = "Objects" if told.classes is None else "Classes"
        found = told.fingerprint
        counted = found.n_objects if told.classes is None else len(told.classes)
        facts.append((name, f"{counted:,}", f"on {1 - found.background:.1%} of training voxels"))
    facts.append(("Patch", _shape(plan.patch_size), _lengths(plan.patch_size, plan.spacing)))
    facts.append(("Batch", str(plan.batch_size), "patches a step"))
    facts.append(
        (
            "Memory to train",
            format_bytes(plan.memory_bytes),
            f"of {format_memory(plan.memory_budget)}",
        )
    )
    if plan.n_positions is not None:
        facts.append(("Distinct places", f"{plan.n_positions:,}", "for a training patch"))
    return facts


def _sides(told: Seen) -> str:
    sides = Counter(case.side for case in told.cases)
    words = [f"{n} {side}" for side, n in sides.items() if side != "divided"]
    words += [f"{sides['divided']} divided into blocks"] * (sides["divided"] > 0)
    return ", ".join(words)


def _findings(told: Seen) -> Section:
    by_name: dict[tuple[Level, str], list[Finding]] = {}
    for finding in told.findings:
        by_name.setdefault((finding.level, finding.name), []).append(finding)
    levels = Counter(finding.level for finding in told.findings)
    note = ", ".join(_count(levels[k], "note" if k == "info" else k) for k in _TONES if levels[k])
    blocks: list[Block] = []
    for level in _TONES:
        shown, rest = [], []
        for (of, _), alike in by_name.items():
            if of == level:
                shown += alike[:_MOST_ALIKE]
                rest += alike[_MOST_ALIKE:]
        notices = Notices([_notice(finding) for finding in shown])
        if shown and level == "info":
            verb = "changes" if len(shown) == 1 else "change"
            title = f"{_count(len(shown), 'note')} that {verb} nothing"
            blocks.append(Fold(title, [notices], opened=not blocks and len(shown) <= 4))
        elif shown:
            blocks.append(notices)
        if rest:
            more = f"{len(rest):,} more of the same names"
            blocks.append(Fold(more, [Notices([_notice(f) for f in rest[:_MOST_ROWS]])]))
    if not told.findings:
        blocks.append(Words("Nothing was found that is wrong or doubtful."))
    return Section("Findings", note, blocks)


def _notice(finding: Finding) -> Notice:
    tone, level = _TONES[finding.level]
    where = " ".join(str(p) for p in (finding.case, finding.path) if p is not None)
    todo = finding.todo
    return Notice(tone, level, finding.name, _sentence(finding.found), _sentence(todo), where)


def _sentence(text: str) -> str:
    """With a full stop, and a capital where it does not begin with a name."""
    first = text.split(" ", 1)[0]
    begun = text[:1].upper() + text[1:] if first.isalpha() else text
    return begun + ("" if text.endswith((".", "!", "?")) else ".")


def _cases(told: Seen) -> Section:
    facts = {case.name: case for case in told.fingerprint.cases} if told.fingerprint else {}
    found = Counter(finding.case for finding in told.findings if finding.case is not None)
    pictured = sum(case.picture is not None for case in told.cases)
    planned = isinstance(told, Overview)
    flat = all(case.shape is None or case.shape[1] == 1 for case in told.cases)
    slices = "Three slices through each case, (y, x), (y, z) and (z, x), voxels"
    note = (
        f"{'Each image, pixels' if flat else slices} in their true proportions, drawn from the "
        "0.5th to the 99.5th percentile of what is shown"
        f"{'; outlines are labels' if any(case.labelled for case in told.cases) else ''}"
        f"{', blue is not annotated' if any(case.partial for case in told.cases) else ''}. "
    )
    if told.fingerprint is not None and any(
        c.side in ("validation", "divided") for c in told.cases
    ):
        note += "Grey values and objects are those of what trains. "
    if any("(and so in " in finding.found for finding in told.findings):
        note += "A finding of several cases is counted at the first of them. "
    if not pictured:
        note = "None of them can be drawn. "
    elif pictured < len(told.cases) and not planned:
        note += f"{pictured} of {len(told.cases):,} cases are pictured. "
    elif pictured < len(told.cases):
        note += f"{pictured} of {len(told.cases):,} cases are pictured, evenly sampled. "
    if len(told.cases) > _MOST_ROWS:
        note += f"The first {_MOST_ROWS:,} are listed. "
    columns = [
        Column("", sort=False), Column("Case"), Column("Side" if planned else "State"),
        Column("Voxels", number=True), Column("Spacing"), Column("Type"),
        Column("Grey values", number=True), Column(_counted(told), number=True),
        Column("Labelled", number=True), Column("Patches"),
        Column("Findings", number=True),
    ]  # fmt: skip
    rows = [_row(case, facts.get(case.name), found[case.name]) for case in told.cases[:_MOST_ROWS]]
    keep = [n for n in range(len(columns)) if n in (1, 2, 3, 5) or any(_filled(r, n) for r in rows)]
    columns = [columns[n] for n in keep]
    rows = [Row([row.values[n] for n in keep], row.side) for row in rows]
    sides = [side for side in _SIDES if any(case.side == side for case in told.cases)]
    table = Table(columns, rows, "The cases", "cases" if len(rows) > 1 else None, sides)
    return Section("Cases", note.strip(), [table])


def _counted(told: Seen) -> str:
    """What the label values of a case are."""
    return "Classes" if isinstance(told, Overview) and told.classes is not None else "Objects"


def _filled(row: Row, number: int) -> bool:
    value = row.values[number]
    return bool(value.text or value.html) if isinstance(value, Value) else bool(value)


def _row(case: CaseView, facts: CaseFacts | None, findings: int) -> Row:
    shape, spacing = case.shape, case.spacing
    labels = None if facts is None else facts.labels
    grey = facts.everywhere[0] if facts is not None and facts.everywhere else None
    low, high = (None, None) if grey is None else (grey.percentile(0.5), grey.percentile(99.5))
    share = case.foreground if labels is None else labels.foreground
    train, val = case.patches
    patches = ", ".join(f"{n:,} {name}" for n, name in ((train, "train"), (val, "val")) if n)
    picture = Value("", html="")
    if case.picture is not None:
        said = ", ".join([f"slices of {case.name}", *case.lines])
        picture = Value("", html=picture_html(case.picture, said))
    voxels = Value("not read")
    if shape is not None:
        channels = f"{shape[0]} × " if shape[0] > 1 else ""
        voxels = Value(channels + _shape(three(shape[-3:])), math.prod(shape))
    chip = f'<span class="chip {_SIDES[case.side]}">{escape(case.side)}</span>'
    return Row(
        [
            picture,
            case.name,
            Value(case.side, html=chip),
            voxels,
            Value(_step(spacing), None if spacing is None else math.prod(spacing)),
            case.dtype,
            Value(
                "" if low is None or high is None else f"{number_text(low)} to {number_text(high)}",
                high,
            ),
            Value("" if labels is None else f"{labels.n_ids:,}", labels.n_ids if labels else None),
            Value("" if share is None else f"{share:.1%}", share),
            Value(patches, train + val),
            Value(str(findings) if findings else "", findings),
        ],
        case.side,
    )


def _intensities(told: Overview) -> Section | None:
    found = told.fingerprint
    if found is None or not found.pooled:
        return None
    clip = told.normalisation.get("clip")
    charts, rows = [], []
    regions = {"all voxels": found.statistics("all")}
    if "foreground" in found.pooled["voxel"]:
        regions["labelled voxels"] = found.pooled["voxel"]["foreground"]
    for channel, histogram in enumerate(found.histograms):
        ends = None if clip is None else clip[min(channel, len(clip) - 1)]
        spread = found.labelled[channel] if channel < len(found.labelled) else None
        every = regions["all voxels"][channel]
        charts.append(_histogram(channel, histogram, spread, every, ends))
        for name, statistics in regions.items():
            if statistics[channel].count:  # nothing may be labelled
                rows.append(_statistics(channel, name, statistics[channel]))
    columns = [
        Column("Channel"), Column("Of"), Column("Mean", number=True), Column("Std", number=True),
        Column("Least", number=True), Column("0.5%", number=True), Column("50%", number=True),
        Column("99.5%", number=True), Column("Most", number=True),
    ]  # fmt: skip
    table = Table(columns, rows, "Intensities of each channel")
    kind = told.normalisation.get("kind", "none")
    note = (
        "Of the voxels that train, in the units of the files; percentiles are dotted, what "
        "clipping cuts off is shaded. "
        f"Images are normalised by {kind}" + ("." if clip is None else ", once clipped.")
    )
    if len(charts) == 1:
        return Section("Intensities", note, [Beside([Charts(charts), table])])
    return Section("Intensities", note, [Charts(charts), table])


def _histogram(
    channel: int,
    histogram: Any,
    spread: Distribution | None,
    every: Statistics,
    clip: tuple[float, float] | None,
) -> Chart:
    counts = np.array(histogram.counts, np.float64)
    bins = np.linspace(histogram.start, histogram.stop, len(counts) + 1)
    bars, total = _Bars.of(bins, every, clip), max(1.0, counts.sum())
    edges = bars.edges(bins)
    curves = [Curve(edges, bars.join(counts) / total)]
    legend = [("var(--bar)", "all voxels")]
    if spread is not None and spread.counts:
        shares = bars.join(_rebinned(spread, bins, counts))
        curves.append(Curve(edges, shares, "bar2"))
        legend.append(("var(--line2)", "labelled voxels"))
    if clip is not None:
        outside = f"clipped to {number_text(clip[0])} to {number_text(clip[1])}"
        if spread is not None and spread.counts:
            outside += f", which cuts {spread.outside(*clip):.2%} of labelled voxels"
        legend.append(("var(--val)", outside))
    rest = 1 - curves[0].shares.sum()
    if bars.cut:
        ends = f"{number_text(every.minimum)} to {number_text(every.maximum)}"
        legend.append(("none", f"{100 * max(rest, 0):.2g}% of all voxels lie beyond, in {ends}"))
    marks = [(every.percentile(q), f"{q:g}%") for q in (0.5, 50.0, 99.5)]
    svg = draw_curves(
        f"Grey values, channel {channel}", curves, across="grey value", up="share of voxels",
        marks=marks, clip=None if clip is None else (clip[0], clip[1]),
    )  # fmt: skip
    return Chart(svg, legend)


@dataclass(frozen=True)
class _Bars:
    """Which bins of a histogram are drawn, and how many of them as one bar."""

    first: int
    last: int
    each: int
    cut: bool

    @classmethod
    def of(
        cls, bins: npt.NDArray[np.float64], every: Statistics, clip: tuple[float, float] | None
    ) -> _Bars:
        """All of them, or where a few voxels lie far out those of the others."""
        low, high = every.percentile(0.01), every.percentile(99.99)
        if clip is not None:
            low, high = min(low, clip[0]), max(high, clip[1])
        first, last = 0, len(bins) - 1
        cut = bins[-1] - bins[0] > _STRETCHED * (high - low) > 0
        if cut:
            room = 0.05 * (high - low)
            first = max(0, int(np.searchsorted(bins, low - room, "right")) - 1)
            last = min(last, int(np.searchsorted(bins, high + room)))
        return cls(first, last, max(1, math.ceil((last - first) / _BARS)), bool(cut))

    def join(self, values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """The sum in each bar."""
        part = values[self.first : self.last]
        padded = np.pad(part, (0, -len(part) % self.each))
        return np.asarray(padded.reshape(-1, self.each).sum(1))

    def edges(self, bins: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Of the bars."""
        count = math.ceil((self.last - self.first) / self.each)
        step = (bins[-1] - bins[0]) / max(1, len(bins) - 1)
        return np.asarray(bins[0] + step * (self.first + self.each * np.arange(count + 1)))


def _rebinned(
    spread: Distribution, edges: npt.NDArray[np.float64], every: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """Shares of a distribution in bins; within a range they are spread as all voxels are."""
    first, last = np.array(spread.first), np.array(spread.last)
    counts = np.array(spread.counts, np.float64)
    shares = np.zeros(len(edges) - 1)
    # A range of one value counts where it lies, others where they overlap a bin.
    single = first == last
    where = np.clip(np.searchsorted(edges, first[single], "right") - 1, 0, len(shares) - 1)
    np.add.at(shares, where, counts[single])
    for low, high, count in zip(first[~single], last[~single], counts[~single], strict=True):
        inside = np.clip(np.minimum(edges[1:], high) - np.maximum(edges[:-1], low), 0, None)
        inside = inside * every if (inside * every).sum() > 0 else inside
        if inside.sum() > 0:
            shares += count * inside / inside.sum()
    return np.asarray(shares / max(1.0, counts.sum()))


def _statistics(channel: int, name: str, found: Statistics) -> Row:
    numbers = [
        found.mean, found.std, found.minimum, found.percentile(0.5), found.percentile(50.0),
        found.percentile(99.5), found.maximum,
    ]  # fmt: skip
    return Row([str(channel), name, *(Value(number_text(n), n) for n in numbers)])


def _objects(told: Overview) -> Section | None:
    found = told.fingerprint
    if found is None or not found.has_labels:
        return None
    if told.classes is not None:
        return _class_section(told, found)
    voxel = None if told.plan.spacing is None else math.prod(told.plan.spacing)
    charts = []
    sizes = [
        n for c in found.cases if c.labels and c.labels.voxels for n in c.labels.voxels.values()
    ]
    if sizes:
        charts.append(_sizes_chart(np.array(sizes, np.float64)))
    counted = [(c.name, c.labels.n_ids) for c in found.cases if c.labels]
    shown = sorted(counted, key=lambda each: -each[1])[:12]
    bars = [(name, float(n), f"{n:,}") for name, n in shown]
    if len(bars) > 1:
        title = "Objects of each case" + (", the most" if len(counted) > 12 else "")
        charts.append(Chart(draw_bars(title, bars)))
    median = found.sizes.get("50")
    note = f"{_count(found.n_objects, 'object')} in the training part"
    if median is not None:
        note += f", of {number_text(median)} voxels in the median"
        if voxel is not None and told.plan.target_spacing is None:
            unit, times = _unit_of(voxel ** (1 / 3))
            note += f" ({number_text(median * voxel * times**3)} {unit}³)"
    listed = sum(c.labels.n_ids for c in found.cases if c.labels and c.labels.voxels is None)
    note += "." + (f" Sizes of {listed:,} objects are not listed one by one." if listed else "")
    rows = [Row(["voxels of an object", *(Value(number_text(v), v) for v in found.sizes.values())])]
    columns = [Column("Percentile"), *(Column(f"{q}%", number=True) for q in found.sizes)]
    touching = sum(c.labels.touching for c in found.cases if c.labels)
    words = Words(f"{touching:,} of them touch another one." if touching else "None touch another.")
    table = Html(Table(columns, rows, "Sizes").html() + words.html())
    if len(charts) == 1:
        return Section("Objects", note, [Beside([Charts(charts), table])])
    return Section("Objects", note, [Charts(charts), table])


def _sizes_chart(sizes: npt.NDArray[np.float64]) -> Chart:
    low, high = float(sizes.min()), float(sizes.max())
    edges = np.logspace(math.log10(low) - 0.02, math.log10(max(high, low * 1.5)) + 0.02, 25)
    counts, _ = np.histogram(sizes, edges)
    svg = draw_curves(
        "Sizes of objects", [Curve(edges, counts.astype(np.float64))],
        across="voxels of an object, log", up="objects", log_x=True, log_y=False,
        marks=[(float(np.median(sizes)), "median")],
    )  # fmt: skip
    return Chart(svg)


def _class_voxels(told: Overview, found: Fingerprint) -> dict[int, int]:
    """Training voxels of each class."""
    voxels = found.class_voxels or {}
    return {**({0: found.background_voxels} if 0 in (told.classes or {}) else {}), **voxels}


def _untrained(told: Overview) -> list[str]:
    """Names of the classes that do not occur in what trains."""
    found = told.fingerprint
    if found is None or not found.has_labels or told.classes is None:
        return []
    if found.class_voxels is None:  # too many to be listed
        return []
    counted = _class_voxels(told, found)
    return [name for value, name in sorted(told.classes.items()) if not counted.get(value)]


def _class_section(told: Overview, found: Fingerprint) -> Section:
    names, counted = told.classes or {}, _class_voxels(told, found)
    total = max(1, sum(counted.values()))
    bars = [
        (names.get(value, f"value {value}"), count / total, f"{count / total:.2%}")
        for value, count in sorted(counted.items())[:_MOST_CLASSES]
    ]
    note = "As shares of the training voxels that are annotated."
    if len(counted) > _MOST_CLASSES:
        note += f" The first {_MOST_CLASSES} of {len(counted)} are drawn."
    absent = _untrained(told)
    if absent:
        some = ", ".join(absent[:8]) + (", ..." if len(absent) > 8 else "")
        note += (
            f" Of the {_count(len(names), 'class', 'classes')} {len(absent)} do not occur in what "
            f"trains, and cannot be learnt: {some.removesuffix('.')}."
        )
    return Section("Classes", note, [Charts([Chart(draw_bars("Share of each class", bars))])])


_NAMES = {
    "median_shape": "Median shape", "target_spacing": "Target spacing", "patch_size": "Patch",
    "batch_size": "Batch", "pool": "Poolings", "aug_patch_size": "Stored patch",
    "augment": "Augmentation", "steps": "Steps an epoch", "n_positions": "Distinct places",
    "n_patches": "Training patches", "strides": "Strides", "features": "Feature maps",
    "kernel_sizes": "Kernels", "store": "Kept as",
}  # fmt: skip


def _plan(told: Overview) -> Section:
    plan = told.plan
    sizes = _bytes_of(told)
    reasons = dict(plan.reasons)
    values = {name: getattr(plan, name, "") for name in reasons}
    if "aug_patch_size" in reasons and told.stored != plan.aug_patch_size:
        # The plan knows of no blocks: where they are smaller, what they hold is stored.
        reasons["aug_patch_size"] += (
            f"; of {_shape(plan.aug_patch_size)} as much is stored as there is room for"
        )
        values["aug_patch_size"] = told.stored
    rows = [
        Row([
            _NAMES.get(name, name.replace("_", " ")), _said(values[name]),
            ("given by you; " if name in plan.given else "") + reason,
            Value(sizes.get(name, ("", 0))[0], sizes.get(name, ("", 0))[1] or None),
        ])
        for name, reason in reasons.items()
    ]  # fmt: skip
    columns = [Column("Choice"), Column("Value"), Column("Why"), Column("Bytes", number=True)]
    parts = [(name.replace("_", " "), float(n), format_bytes(n)) for name, n in plan.memory.items()]
    chart = Chart(draw_bars("Memory of a training step", parts))
    blocks: list[Block] = [Table(columns, rows, "What was chosen and why")]
    beside: list[Block] = [Charts([chart])]
    if told.choices:
        beside.append(Html(f"<h3>With another memory</h3>{_choices(told).html()}"))
    blocks.append(Beside(beside))
    note = (
        f"For {format_memory(plan.memory_budget)} of memory, {plan.precision} precision, by the "
        f"planner “{plan.planner}”; {format_bytes(plan.memory_bytes)} are used, the reserve "
        "included."
    )
    return Section("Plan", note, blocks)


def _bytes_of(told: Overview) -> dict[str, tuple[str, int]]:
    """What choices take: of a patch as the network gets it, of a stored one, and of all of them."""
    plan = told.plan
    channels, labelled = plan.n_channels, told.label_kind is not None
    patch = math.prod(plan.patch_size) * (4 * channels + 8 * labelled)
    case = told.cases[0] if told.cases else None
    item = 4 if case is None else np.dtype(case.dtype).itemsize
    stored = math.prod(told.stored) * (item * channels + 4 * labelled)
    found = {
        "patch_size": (f"{format_bytes(patch)} loaded", patch),
        "batch_size": (f"{format_bytes(patch * plan.batch_size)} loaded", patch * plan.batch_size),
        "aug_patch_size": (f"{format_bytes(stored)} raw", stored),
    }
    if plan.n_patches:
        found["n_patches"] = (
            f"{format_bytes(stored * plan.n_patches)} raw",
            stored * plan.n_patches,
        )
    return found


def _choices(told: Overview) -> Table:
    plan = told.plan
    columns = [
        Column("Memory", number=True), Column("Patch"), Column("Batch", number=True),
        Column("Stages", number=True), Column("Used", number=True), Column("Against this plan"),
    ]  # fmt: skip
    rows = []
    here = Choice(plan.memory_budget, plan)
    for choice in sorted([*told.choices, here], key=lambda each: each.memory):
        memory = Value(format_memory(choice.memory), choice.memory)
        other = choice.plan
        if other is None:
            rows.append(Row([memory, "none fits", "", "", "", choice.why]))
            continue
        ratio = math.prod(other.patch_size) / math.prod(plan.patch_size)
        words = [f"{number_text(ratio)} times the voxels"] * (not 0.99 < ratio < 1.01)
        batch = other.batch_size / plan.batch_size
        words += [f"{number_text(batch)} times the batch"] * (other.batch_size != plan.batch_size)
        same = "the same: the data and not the memory decides"
        told_of = "this plan" if choice is here else ", ".join(words) or same
        rows.append(
            Row([
                memory, _shape(other.patch_size),
                Value(str(other.batch_size), other.batch_size),
                Value(str(len(other.strides)), len(other.strides)),
                Value(format_bytes(other.memory_bytes), other.memory_bytes), told_of,
            ])
        )  # fmt: skip
    return Table(columns, rows, "What another memory would give")


def _splits(told: Overview) -> Section:
    splits = told.splits
    gap = f" A gap of {_shape(splits.gap)} voxels lies between blocks." if any(splits.gap) else ""
    how = {"kfold": f"fold {splits.fold} of {splits.folds}"}.get(splits.kind, splits.kind)
    note = f"Divided by {how}, seed {splits.seed}: {_sides(told)}.{gap}"
    blocks: list[Block] = [Html(_strip(told.cases))] if len(told.cases) > 1 else []
    notices = [_sentence(str(notice)) for notice in splits.notices]
    blocks += [Words(notice) for notice in notices]
    for case in told.maps:
        cells = coverage_cells(case)
        blocks += [Words(case.name, heading=True), Gallery(cells)]
    if told.maps:
        shown = (
            "" if len(told.maps) == len(told.cases)
            else f" Shown are {len(told.maps)} of {len(told.cases):,} cases."
        )  # fmt: skip
        blocks.insert(
            (len(told.cases) > 1) + len(notices),
            Words(
                "Green is for training, orange for validation, what has no colour is used by "
                "neither. Dots are the middles of patches; maps say how often voxels are seen: "
                f"black never, bright as often as the scale says, grey in no block.{shown}"
            ),
        )
    return Section("Splits and coverage", note, blocks)


def _strip(cases: Sequence[CaseView]) -> str:
    """A square for each case, in the colour of its side."""
    shown = cases[:_MOST_SQUARES]
    per_row, size = 60, 11
    rows = math.ceil(len(shown) / per_row)
    squares = []
    for n, case in enumerate(shown):
        x, y = n % per_row * (size + 2), n // per_row * (size + 2)
        name = f"<title>{escape(case.name)}: {case.side}</title>"
        halves = {"training": ["train"], "validation": ["val"], "divided": ["train", "val"]}
        kinds = halves.get(case.side, ["gap"])
        width = size / len(kinds)
        squares += [
            f'<rect class="{kind}" x="{x + k * width:.1f}" y="{y}" width="{width:.1f}" '
            f'height="{size}">{name}</rect>'
            for k, kind in enumerate(kinds)
        ]
    width = min(per_row, len(shown)) * (size + 2)
    more = f", the first {_MOST_SQUARES}" if len(cases) > len(shown) else ""
    return (
        f'<figure class="chart"><svg role="img" aria-label="The side of each case{more}" '
        f'viewBox="0 0 {width} {rows * (size + 2)}" style="max-width:{width}px" '
        f'width="{width}" height="{rows * (size + 2)}">{"".join(squares)}</svg></figure>'
        '<ul class="legend"><li><i style="background:var(--train)"></i>training</li>'
        '<li><i style="background:var(--val)"></i>validation</li></ul>'
    )


def _samples(told: Overview, title: str, samples: Sequence[SampleView]) -> Section | None:
    if not samples:
        return None
    if samples is told.train:
        note = (
            "As the network gets them in epoch 0, by the loader's own code: normalised, augmented, "
            "cut to the patch, with targets; the checksums are of the image's float32 bytes. "
        )
    else:
        note = "As the network gets them: normalised, not augmented, a fixed tiling. "
    note += "One window of grey values for all; outlines are labels."
    return Section(title, note, draw_samples(samples, told.plan.spacing))


def _provenance(told: Overview) -> Section:
    blocks: list[Block] = []
    if told.stages:
        columns = [Column("Stage"), Column("Units", number=True), Column("On disk", number=True)]
        rows = [
            Row([name, Value(f"{units:,}", units), Value(format_bytes(n) if n else "", n)])
            for name, units, n in told.stages
        ]
        blocks += [Words("Stages", heading=True), Table(columns, rows, "Stages"), Html(COSTS)]
    if told.inputs:
        columns = [Column("File"), Column("Size", number=True), Column("SHA-256")]
        rows = [
            Row(
                [path, Value(format_bytes(size), size), Value(sha, html=f"<code>{sha[:16]}</code>")]
            )
            for path, size, sha in told.inputs[:_MOST_INPUTS]
        ]
        total = sum(size for _, size, _ in told.inputs)
        title = f"{_count(len(told.inputs), 'input file')}, {format_bytes(total)}"
        if len(told.inputs) > _MOST_INPUTS:
            title += f" (the first {_MOST_INPUTS}; all of them stand in manifest.json)"
        blocks.append(Fold(title, [Table(columns, rows, "Input files")]))
    if told.versions:
        rows = [Row([name, version]) for name, version in told.versions.items()]
        table = Table([Column("Package"), Column("Version")], rows, "Versions")
        blocks.append(Fold("Versions", [table]))
    if told.config:
        blocks.append(_config(told.config))
    note = "What it was made from, and by what."
    if told.stages:
        note += (
            " Times and memory are no part of the set, which would otherwise differ from run to "
            "run: volprep report shows them on the machine that prepared it."
        )
    return Section("Provenance", note, blocks)


def _config(text: str) -> Fold:
    shown = Html(f'<pre tabindex="0">{escape(text)}</pre>')
    return Fold("The config with every default", [shown])


def _next(told: Overview) -> Section:
    if not told.made:
        commands = [
            ("volprep prepare CONFIG", "Make the patch set, with a report like this one in it."),
            ("volprep preview-augment CONFIG", "See what each augmentation does to your data."),
            ("volprep autoconfig CONFIG --explain", "Read how patch and batch were chosen."),
        ]
        return Section("What to do next", "", [Commands(commands)])
    python = (
        "from volprep import dataloader\n\n"
        'for batch in dataloader("PATCHES", "train"):\n'
        '    image, label = batch["image"], batch["label"]'
    )
    if told.label_kind is None:
        python = python.replace("image, label", "image").replace(', batch["label"]', "")
    commands = [
        (python, "Train in Python: batches as shown above."),
        (
            "python scripts/train_from_config.py PATCHES",
            "Train the planned U-Net, to begin with, by a script of volprep's sources.",
        ),
        (
            f"volprep export PATCHES {_trainer(told)}",
            "Or train with another tool; volprep explain exports lists them.",
        ),
        ("volprep bench-loader PATCHES --step-ms 50", "See whether the loader keeps up."),
        (
            "volprep preview-augment PATCHES/config.resolved.yaml",
            "See what each augmentation does to your data.",
        ),
        ("volprep verify PATCHES", "Compare every file with what was written."),
    ]
    return Section("What to do next", "", [Commands(commands)])


def _trainer(told: Overview) -> str:
    """How to hand the set to a trainer that takes such labels."""
    if told.label_kind is None:
        return "--to careamics --out for_careamics"
    if told.label_kind == "instances":
        return "--to monai --out for_monai"
    name = re.sub(r"[^A-Za-z0-9]+", "_", told.name).strip("_") or "data"
    return f"--to nnunet --out nnUNet_raw/Dataset001_{name} --plans"


def _count(n: int, one: str, many: str | None = None) -> str:
    plural = many or (one + "es" if one.endswith("ch") else one + "s")
    return f"{n:,} {one if n == 1 else plural}"


def _shape(shape: Sequence[int]) -> str:
    """``32 × 128 × 128``; of a flat one without its one plane."""
    shown = shape[1:] if len(shape) == 3 and shape[0] == 1 else shape
    return " × ".join(str(n) for n in shown)


def _spacing(spacing: Spacing3 | None) -> str:
    return "spacing unknown" if spacing is None else f"voxels of {_step(spacing)}"


def _unit_of(length: float) -> tuple[str, float]:
    """In what a length in micrometres is told, and how many of that a micrometre is."""
    if length < 0.1:
        return "nm", 1e3
    return ("µm", 1.0) if length < 1e3 else ("mm", 1e-3)


def _figures(lengths: Iterable[float], times: float) -> str:
    """Three figures of each, never as a power of ten."""
    return " × ".join(f"{float(f'{v * times:.3g}'):,g}" for v in lengths)


def _step(spacing: Spacing3 | None) -> str:
    if spacing is None:
        return ""
    unit, times = _unit_of(max(spacing))
    return f"{_figures(spacing, times)} {unit}"


def _lengths(shape: Shape3, spacing: Spacing3 | None) -> str:
    if spacing is None:
        return "pixels (y, x)" if shape[0] == 1 else "voxels (z, y, x)"
    lengths = [n * s for n, s in zip(shape, spacing, strict=True)]
    lengths = lengths[1:] if shape[0] == 1 else lengths
    unit, times = _unit_of(max(lengths))
    return f"{_figures(lengths, times)} {unit} ({'y, x' if shape[0] == 1 else 'z, y, x'})"


def _said(value: Any) -> str:
    """A value of the plan, short."""
    if isinstance(value, tuple) and value and isinstance(value[0], tuple):
        return ", ".join("×".join(map(str, v)) for v in value)
    if isinstance(value, tuple) and value and isinstance(value[0], Mapping):
        return ", ".join(", ".join(v) for v in value)
    if isinstance(value, tuple) and value and isinstance(value[0], float):
        return " × ".join(f"{v:.4g}" for v in value)
    if isinstance(value, tuple) and value and isinstance(value[0], int):
        return " × ".join(map(str, value))
    if isinstance(value, tuple | list):
        return ", ".join(map(str, value)) or "none"
    if isinstance(value, int):
        return f"{value:,}"
    return str(value)
