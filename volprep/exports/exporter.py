"""What every target has in common, and what it may say before anything is written."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import resources
from typing import Any, Protocol

from volprep.exports.files import ExportFile
from volprep.exports.given import ExportSet
from volprep.exports.labels import Ids
from volprep.findings import Finding

__all__ = [
    "Exporter",
    "changes",
    "common_losses",
    "facts",
    "impossible",
    "loses",
    "masks_note",
    "needs_validation",
    "no_mask",
    "only_instances",
    "renumbered",
    "shorter",
    "some",
    "template",
]


class Exporter(Protocol):
    """One target: a frozen dataclass in a file of its own, whose fields are its options."""

    def losses(self, given: ExportSet) -> Iterator[Finding]:
        """What the target cannot express, or takes in another form; errors forbid to write."""
        ...

    def files(self, given: ExportSet) -> Iterator[ExportFile]:
        """Every file, none of them written yet."""
        ...


def loses(found: str, todo: str | None = None) -> Finding:
    """Something that the target cannot express, so that it trains on something else."""
    return Finding("export-loses", found, todo=todo)


def changes(found: str) -> Finding:
    """Something that the target has in another form, with nothing lost."""
    return Finding("export-changes", found)


def impossible(found: str, todo: str) -> Finding:
    """Something without which the target cannot train."""
    return Finding("export-impossible", found, todo=todo)


def common_losses(
    given: ExportSet, *, needs_labels: bool = True, normalised: bool = False
) -> Iterator[Finding]:
    """What holds for every target; `normalised` says that intensities are on one scale already."""
    if needs_labels and not given.labelled:
        missing = [case.name for case in given.cases if case.label is None]
        yield impossible(
            f"no label for {some(missing)}", "choose a target that trains without, or label"
        )
    if given.renamed:
        names = [f"{wanted} is called {name}" for wanted, name in given.renamed.items()]
        yield changes(f"{some(names)} (manifest.json has all names)")
    blocks = [case.name for case in given.cases if case.name != case.case and case.side == "val"]
    if any(case.box.shape != case.image.shape[1:] for case in given.cases):
        held = f", {', '.join(blocks)} held out" if blocks else ""
        yield changes(
            f"the target knows no blocks of a volume: each is a volume of its own{held}, and what "
            "lies between them is left out"
        )
    if given.training["do_2d"] in ("y", "x"):
        rows = {"y": "z and x", "x": "z and y"}[given.training["do_2d"]]
        yield changes(
            f"{given.training['do_2d']} of the volumes is z here, and rows and columns are their "
            f"{rows}, as patching.do_2d has it: sections are the planes that are trained on"
        )
    if not given.of("val"):
        yield loses("nothing is held out for validation", "set split.fraction above 0")
    if len({case.spacing for case in given.cases}) > 1:
        yield loses(
            "cases differ in spacing, and volumes are handed over as they were prepared",
            "set preprocess.target_spacing, if the target does not resample",
        )
    if given.training["case_normalisation"] and not normalised:
        yield loses(
            "intensities are brought to one scale case by case, which is not handed over",
            "let the target normalise each image",
        )


def renumbered(given: ExportSet, form: Ids) -> Iterator[Finding]:
    """The cases whose ids are beyond what the target holds."""
    beyond = [case.name for case in given.cases if case.label is not None and form.renumbers(case)]
    if beyond:
        yield changes(
            f"{some(beyond)}: ids beyond {form.limit} are numbered from 1 on; the table of them "
            "stands beside the labels"
        )


def no_mask(given: ExportSet, what: str) -> Iterator[Finding]:
    """For targets that know no valid mask."""
    if given.masked:
        yield loses(f"the target knows no valid mask: what is not annotated is {what}")


def needs_validation(given: ExportSet, peer: str) -> Iterator[Finding]:
    """For targets that do not train without cases to validate on."""
    if not given.of("val"):
        yield impossible(
            f"{peer} does not train without validation, and nothing is held out",
            "set split.fraction above 0",
        )


def shorter(given: ExportSet, what: str) -> Iterator[Finding]:
    """For targets that draw no patch from a volume that is shorter; `what` is done about it."""
    short = [
        case.name
        for case in given.cases
        if any(n < p for n, p in zip(case.shape, given.patch_size, strict=True))
    ]
    if short:
        patch = " x ".join(map(str, given.patch_size))
        yield changes(f"{some(short)}: shorter than the patch ({patch}) along an axis: {what}")


def some(names: list[str]) -> str:
    """The first of many names, and how many more there are."""
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(names[:5]) + more


def only_instances(given: ExportSet, peer: str) -> Iterator[Finding]:
    """For targets that learn no classes."""
    if given.classes is not None:
        yield impossible(
            f"{peer} learns instances, and the labels are classes",
            "choose nnunet or monai, or set data.label_kind to instances",
        )


def masks_note(given: ExportSet) -> str:
    """What a README says of valid masks, where there are any."""
    return "\n`masks/` is 1 where labels are annotated." if given.masked else ""


def facts(given: ExportSet) -> dict[str, Any]:
    """What a trainer's own script needs to know, in plain values; sizes are (z, y, x)."""
    wanted = (
        "label_kind", "n_channels", "class_names", "patch_size", "batch_size", "strides",
        "kernel_sizes", "features", "steps_per_epoch", "spacing", "normalisation",
    )  # fmt: skip
    classes = 2 if given.classes is None else len(given.classes)
    return {**{name: given.training[name] for name in wanted}, "n_classes": classes}


def template(name: str) -> str:
    """A script that an export brings along; it imports the target, and so is no module of ours."""
    folder = resources.files("volprep.exports") / "templates"
    text, shared = ((folder / f"{n}.txt").read_text("utf-8") for n in (name, "normalised.py"))
    return text.replace("# NORMALISED\n", shared)
