"""What `train.yaml` suggests beyond the plan: classes, targets, loss, optimiser, epochs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from volprep.autoconfig import Plan, training_recipe
from volprep.config import Config
from volprep.findings import Finding
from volprep.fingerprint import Fingerprint
from volprep.geometry import Shape3
from volprep.splits import Splits
from volprep.targets import targets_from_config

__all__ = ["one_sided", "training_suggestions"]

#: Arrays of targets that say where others count, and are no output of a network.
_NO_OUTPUT = ("_mask", "_weight")


def training_suggestions(
    config: Config,
    plan: Plan,
    train: Fingerprint,
    classes: Sequence[int] | None,
    *,
    names: Mapping[int, str],
) -> dict[str, Any]:
    """The keys of a `TrainingConfig` that follow from the kind of labels.

    Parameters
    ----------
    config : Config
    plan : Plan
    train : Fingerprint
        Of the training voxels.
    classes : sequence of int or None
        Label value of each class; None for instances.
    names : mapping of int to str
        Of label values, where they are known.
    """
    kind: Literal["instances", "classes"] | None = (
        "classes" if classes is not None else "instances" if train.has_labels else None
    )
    called = None if classes is None else _names(classes, names)
    recipe = training_recipe(
        kind,
        plan.strides,
        class_names=called,
        background=train.background,
        spacing=plan.spacing,
        targets=config.targets,
    )
    return {
        "features": list(plan.features),
        "steps_per_epoch": config.epoch.steps,
        "augment_warm_up": config.epoch.augment_warm_up,
        "n_positions": plan.n_positions,
        "class_names": called,
        "class_frequencies": _frequencies(classes, train),
        "suggested_targets": recipe.targets,
        "output_channels": recipe.channels or _channels(recipe.targets, plan.patch_size),
        "loss": recipe.loss,
        "optimiser": recipe.optimiser,
        "deep_supervision": {"strides": recipe.supervised, "weights": recipe.weights},
    }


def one_sided(
    classes: Sequence[int] | None,
    names: Mapping[int, str],
    splits: Splits,
    train: Fingerprint,
    voxels: Mapping[str, Mapping[int, int]] | None,
) -> list[Finding]:
    """Classes that only one side of the split holds, as far as that is known without reading.

    Parameters
    ----------
    classes : sequence of int or None
        Their values; None where labels are instances.
    names : mapping of int to str
        Those that the data gives.
    splits : Splits
    train : Fingerprint
        Of the training part.
    voxels : mapping or None
        Of each value in each whole case; None where that was not counted.
    """
    trained = train.class_voxels
    if classes is None or trained is None or not train.has_labels:
        return []
    trained = {0: train.background_voxels, **trained}
    called = dict(zip(classes, _names(classes, names), strict=True))
    absent = [called[value] for value in classes if not trained.get(value)]
    found = [Finding("class-untrained", f"{_some(absent)} in the training part")] if absent else []
    if not splits.val or voxels is None or not all(part.case in voxels for part in splits.val):
        return found
    if all(part.box is None for part in splits.val):
        left = Counter[int]()
        for part in splits.val:
            left.update(voxels[part.case])
    else:  # what is in the gap cannot be told from what is held out
        left = Counter[int]()
        for each in voxels.values():
            left.update(each)
        left.subtract(trained)
    unseen = [called[value] for value in classes if trained.get(value) and left[value] <= 0]
    if unseen:
        found.append(Finding("class-unvalidated", f"{_some(unseen)} in the validation part"))
    return found


def _some(names: Sequence[str]) -> str:
    listed = ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
    return f"{listed} does not occur" if len(names) == 1 else f"{listed} do not occur"


def _names(classes: Sequence[int], named: Mapping[int, str]) -> list[str]:
    """The name of each class; 0 is the background."""
    return [named.get(v, "background" if v == 0 else f"class {v}") for v in classes]


def _frequencies(classes: Sequence[int] | None, train: Fingerprint) -> list[float] | None:
    """The share of the labelled training voxels of each class."""
    voxels = train.class_voxels
    if classes is None or voxels is None:
        return None
    counts = [voxels.get(v, 0) if v else train.background_voxels for v in classes]
    return [n / max(1, sum(counts)) for n in counts]


def _channels(targets: Sequence[Any], size: Shape3) -> list[str]:
    """The channels that targets have, one name each."""
    arrays = [a for target in targets_from_config(targets) for a in target.arrays(size)]
    return [
        array.name if array.channels is None else f"{array.name} {channel}"
        for array in arrays
        if not array.name.endswith(_NO_OUTPUT)
        for channel in range(array.channels or 1)
    ]
