"""What stands beside the patches: the config, the plan, the splits, and what training needs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from volprep.cases import Cases
from volprep.config import Config, TrainingConfig, dump_yaml
from volprep.findings import Finding
from volprep.fingerprint import Fingerprint
from volprep.pipeline.decide import Decision
from volprep.pipeline.identity import Inputs
from volprep.pipeline.patches import Patches
from volprep.pipeline.run import Run
from volprep.pipeline.targets import stored_targets
from volprep.pipeline.training import training_suggestions
from volprep.preprocess import Normalisation
from volprep.store import FORMAT
from volprep.targets import Target
from volprep.version import __version__

__all__ = [
    "CONFIG",
    "Intensities",
    "config_text",
    "describe",
    "manifest",
    "training_config",
]


#: The config that made a set, as the set keeps it.
CONFIG = "config.resolved.yaml"


@dataclass(frozen=True, slots=True)
class Intensities:
    """What was measured of what trains, and the rules that follow."""

    fingerprint: Fingerprint
    common: Normalisation
    of_case: Mapping[str, Normalisation]
    reason: str | None


def describe(
    run: Run, decision: Decision, intensities: Intensities, audit: Sequence[Finding],
    training: TrainingConfig,
) -> None:  # fmt: skip
    """Write everything that stands beside the patches."""
    splits = {**decision.splits.to_dict(), "audit": [finding.to_dict() for finding in audit]}
    run.text(CONFIG, config_text(run.config))
    run.text("fingerprint.json", _json(intensities.fingerprint.to_dict()))
    run.text("plan.yaml", dump_yaml(decision.plan.to_dict()))
    run.text("splits.json", _json(splits))
    run.text("train.yaml", dump_yaml(training))
    run.text("findings.json", _json(run.told.to_dict()))


def config_text(config: Config) -> str:
    """The config as the set keeps it: it does not tell of the machine, nor where things lie."""
    return dump_yaml(
        config.model_copy(
            update={
                "output": config.output.model_copy(update={"dir": Path(), "url": None}),
                "compute": type(config.compute).model_validate({}),
                "exports": [],
            }
        )
    )


def manifest(
    cases: Cases,
    inputs: Inputs,
    training: TrainingConfig,
    *,
    lost_ids: Mapping[str, Sequence[int]],
    skeletons: Mapping[str, Mapping[str, int]],
    patches: Patches,
    pad_mode: str,
) -> dict[str, Any]:
    """What the manifest says of the set beside its files."""
    return {
        "format": FORMAT,
        "cases": [case.name for case in cases],
        "files": [case.to_dict() for case in cases],
        "inputs": [found.to_dict() for _, found in sorted(inputs.by_path.items())],
        "lost_ids": dict(lost_ids),
        "skeletons": dict(skeletons),
        "label_repairs": {case.name: done for case in cases if (done := case.repaired())},
        "versions": _versions(),
        "training": training.model_dump(mode="json"),
        "store": training.store,
        "volumes": dict(sorted(patches.volumes.items())),
        "arrays": patches.arrays,
        "samples": patches.samples,
        "places": patches.places,
        "pad_mode": pad_mode,
        "metadata": {
            split: [list(file) for file in files] for split, files in patches.metadata.items()
        },
    }


def training_config(
    config: Config,
    cases: Cases,
    decision: Decision,
    intensities: Intensities,
    patches: Patches,
    targets: Sequence[Target],
) -> TrainingConfig:
    """What `train.yaml` holds."""
    plan, labelled = decision.plan, any(case.label is not None for case in cases)
    drawn = plan.store == "volumes"
    return TrainingConfig.model_validate(
        {
            "volprep_version": __version__,
            "store": plan.store,
            "patches": {s: f"patches/{s}.zarr" for s in patches.counts if not drawn},
            "volumes": {name: f"volumes/{name}.ome.zarr" for name in sorted(patches.volumes)},
            "n_patches": dict(patches.counts),
            "patch_size": plan.patch_size,
            "stored_patch_size": patches.stored,
            "batch_size": plan.batch_size,
            "pool": plan.pool,
            "strides": plan.strides,
            "kernel_sizes": plan.kernel_sizes,
            "spacing": plan.spacing,
            "do_2d": config.patching.do_2d,
            "n_channels": plan.n_channels,
            "label_kind": cases.label_kind if labelled else None,
            "n_classes": plan.n_classes if decision.classes is not None else None,
            "class_values": decision.classes,
            **training_suggestions(
                config,
                plan,
                intensities.fingerprint,
                decision.classes,
                names=cases.class_names,
            ),
            "normalisation": {
                **intensities.common.to_dict(),
                "reason": intensities.reason,
            },
            "case_normalisation": {n: rule.to_dict() for n, rule in intensities.of_case.items()},
            "augment": plan.augment,
            "targets": [target.to_dict() for target in targets],
            "stored_targets": [t.name for t in stored_targets(config, targets) if not drawn],
            "splits": "splits.json",
            "seed": config.seed,
            "precision": plan.precision,
            "memory_bytes": plan.memory_bytes,
        }
    )


def _versions() -> dict[str, str]:
    from importlib.metadata import version

    names = ("numpy", "zarr", "tifffile", "imagecodecs", "h5py", "scipy", "numba", "pillow")
    return {"volprep": __version__, **{name: version(name) for name in names}}


def _json(content: object) -> str:
    return json.dumps(content, indent=2, allow_nan=False, ensure_ascii=False) + "\n"
