"""The page of data that `prepare` refuses: the findings, and pictures of what can be read."""

from __future__ import annotations

from collections import Counter

import numpy as np

from volprep.checks import CheckedCase, Report
from volprep.config import Config
from volprep.errors import SourceError
from volprep.geometry import Box, Shape3, three
from volprep.pipeline.describe import config_text
from volprep.pipeline.pictures import ALL_PICTURES, PICTURED, affordable
from volprep.report import CaseView, Picture, Seen, draw_case, render_refused
from volprep.sources import Volume

__all__ = ["refused_page"]

#: Labels up to so many voxels are read as a whole, to show a slice that has some.
_SEARCHED = 2**23


def refused_page(name: str, config: Config, report: Report) -> str:
    """What is wrong with some data, and what can be seen of it.

    Parameters
    ----------
    name : str
        What the data is called.
    config : Config
    report : Report
        With errors among its findings.
    """
    wrong = Counter(f.case for f in report.findings if f.level == "error")
    # Those with errors first: they are what one wants to see.
    facts = sorted(report.facts, key=lambda each: wrong[each.case.name] == 0)
    views: list[CaseView] = []
    room = ALL_PICTURES
    for each in facts:
        picture, lines, cost = (None, list[str](), 0)
        if sum(view.picture is not None for view in views) < PICTURED:
            picture, lines, cost = _drawn(each, room)
        room -= cost
        views.append(_view(each, wrong=wrong[each.case.name] > 0, picture=picture, lines=lines))
    findings = report.findings
    seen = Seen(name=name, findings=findings, cases=views, config=config_text(config))
    return render_refused(seen).html()


def _view(each: CheckedCase, *, wrong: bool, picture: Picture | None, lines: list[str]) -> CaseView:
    image, labels = each.image, each.labels
    shape = None if image is None else (image.shape[0], *three(image.shape[1:]))
    return CaseView(
        each.case.name,
        "with errors" if wrong else "without errors",
        shape,
        None if image is None else image.spacing,
        "" if image is None else str(image.dtype),
        each.label is not None,
        foreground=None if labels is None else labels.foreground,
        picture=picture,
        lines=lines,
    )


def _drawn(each: CheckedCase, room: int) -> tuple[Picture | None, list[str], int]:
    """A case as far as it can be read, what is shown of it, and what was decoded for it."""
    image, label = each.image, each.label
    if image is None:
        return None, [], 0
    most, cost = affordable(image)
    if most is None or cost > room:
        return None, [], 0
    shape = three(image.shape[1:])
    fits = label is not None and label.shape[1:] == image.shape[1:]
    for outlined in (label, None) if fits else (None,):  # a label that cannot be read hides nothing
        try:
            at = _place(shape, outlined)
            label_of = None if outlined is None else (lambda box, of=outlined: of.read(box)[0])
            picture, lines, _ = draw_case(
                shape, image.spacing, image.read, label_of, at=at, most=most
            )
        except SourceError:
            continue
        if label is not None and outlined is None:
            lines.append("its label is not drawn, since it does not fit or cannot be read")
        return picture, lines, cost
    return None, [], cost


def _place(shape: Shape3, label: Volume | None) -> Shape3:
    """The middle, on the slice that shows most labels where that is found soon."""
    z, y, x = (n // 2 for n in shape)
    if label is None or label.shape[1] * label.shape[2] * label.shape[3] > _SEARCHED:
        return z, y, x
    shown = np.count_nonzero(label.read(Box.whole(label.shape))[0], axis=(1, 2))
    good = np.flatnonzero(shown >= 0.8 * shown.max()) if shown.any() else np.array([z])
    return int(good[np.abs(good - z).argmin()]), y, x
