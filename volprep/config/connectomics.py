"""The block form of PyTorch Connectomics' YAML, as a config of volprep."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from volprep.errors import ConfigError

__all__ = ["is_block_form", "translated"]

_ELSEWHERE = "volprep.TileDataset takes it"
#: Keys that need no counterpart, with why.
_NEEDLESS = {
    "DATASET.DO_CHUNK_TITLE": "tiles are read where a patch touches them",
    "DATASET.INPUT_PATH": "", "DATASET.IMAGE_NAME": "", "DATASET.LABEL_NAME": "",
    "DATASET.VALID_MASK_NAME": "", "INFERENCE.IS_ABSOLUTE_PATH": "", "INFERENCE.IMAGE_NAME": "",
    "INFERENCE.DO_SINGLY": "every image is read on its own",
    "DATASET.LOAD_2D": "an image of two axes is 2D, and a list of images is as many cases",
}  # fmt: skip
_NOT_HERE = {"DATASET.DATA_CHUNK_NUM": _ELSEWHERE, "DATASET.DATA_CHUNK_ITER": _ELSEWHERE}


def is_block_form(content: Mapping[str, Any]) -> bool:
    """Whether a YAML is written as PyTorch Connectomics' are."""
    return "data" not in content and ("DATASET" in content or "INFERENCE" in content)


def translated(content: Mapping[str, Any], where: str) -> tuple[dict[str, Any], list[str]]:
    """A config from the block form, and what of it is not translated.

    Parameters
    ----------
    content : mapping
        As the YAML holds it.
    where : str
        For messages.

    Returns
    -------
    config : dict
        As a YAML of volprep holds it.
    left : list of str
        Each key that has no meaning here, with why.

    Notes
    -----
    ``DATASET``: INPUT_PATH, IMAGE_NAME, LABEL_NAME and VALID_MASK_NAME (a name, a list, or
    names joined by ``@``) are the cases; REJECT_SAMPLING and VALID_RATIO ``patching.reject``;
    DO_2D ``patching.do_2d: z``; LOAD_2D asks for what is done anyway. ``INFERENCE``'s
    IMAGE_NAME is taken where DATASET names no images. ``MODEL.INPUT_SIZE``,
    ``SOLVER.SAMPLES_PER_BATCH`` and ``AUGMENTOR`` are the patch, the batch and ``augment``.

    Raises
    ------
    ConfigError
        If no image is named, or image, label and mask are not equally many.
    """
    flat = dict(_flat(content))
    config: dict[str, Any] = {"data": {"cases": _cases(flat, where)}}
    rules: dict[str, Callable[[Any], None]] = {
        "DATASET.REJECT_SAMPLING.SIZE_THRES": _into(config, "patching", "reject", "size_thres"),
        "DATASET.REJECT_SAMPLING.DIVERSITY": _into(config, "patching", "reject", "diversity"),
        "DATASET.REJECT_SAMPLING.P": _into(config, "patching", "reject", "p"),
        "DATASET.VALID_RATIO": _into(config, "patching", "reject", "valid_ratio"),
        "MODEL.INPUT_SIZE": _into(config, "plan", "patch_size"),
        "SOLVER.SAMPLES_PER_BATCH": _into(config, "plan", "batch_size"),
    }
    left = []
    for key, value in flat.items():
        if key in rules:
            rules[key](value)
        elif key == "DATASET.DO_2D":
            continue
        elif key.startswith("AUGMENTOR."):
            config["augment"] = content["AUGMENTOR"]
        elif key not in _NEEDLESS:
            left.append(f"{key}: not translated; {_NOT_HERE.get(key, 'no part of preparing data')}")
    if flat.get("DATASET.DO_2D"):
        _two_dimensions(config, flat.get("MODEL.INPUT_SIZE"), where)
    # The block's own rule is to reject at 0.5, whatever the mask.
    if flat.get("DATASET.VALID_MASK_NAME"):
        config.setdefault("patching", {}).setdefault("reject", {}).setdefault("valid_ratio", 0.5)
    return config, left


def _flat(content: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for key, value in content.items():
        if isinstance(value, Mapping):
            found += _flat(value, f"{prefix}{key}.")
        else:
            found.append((f"{prefix}{key}", value))
    return found


def _cases(flat: Mapping[str, Any], where: str) -> list[dict[str, Any]]:
    own = "DATASET.IMAGE_NAME" if flat.get("DATASET.IMAGE_NAME") else "INFERENCE.IMAGE_NAME"
    images = _names(flat.get(own))
    if not images:
        raise ConfigError(f"{where}: DATASET.IMAGE_NAME: missing; name the images")
    folder = str(flat.get("DATASET.INPUT_PATH") or "")
    if own.startswith("INFERENCE") and flat.get("INFERENCE.IS_ABSOLUTE_PATH"):
        folder = ""
    parts = {"image": images}
    for key, name in (("label", "LABEL_NAME"), ("mask", "VALID_MASK_NAME")):
        parts[key] = _names(flat.get(f"DATASET.{name}"))
        if parts[key] and len(parts[key]) != len(images):
            raise ConfigError(
                f"{where}: DATASET.{name}: names {len(parts[key])} files, and {own} "
                f"{len(images)}; give one for each image"
            )
    return [
        {key: _joined(folder, names[i]) for key, names in parts.items() if names}
        for i in range(len(images))
    ]


def _names(value: Any) -> list[str]:
    if value is None:
        return []
    names = [str(v) for v in value] if isinstance(value, list) else str(value).split("@")
    return [name for name in names if name]


def _joined(folder: str, name: str) -> str:
    return name if not folder or name.startswith("/") else f"{folder.rstrip('/')}/{name}"


def _into(config: dict[str, Any], *keys: str) -> Callable[[Any], None]:
    def put(value: Any) -> None:
        section = config
        for key in keys[:-1]:
            section = section.setdefault(key, {})
        section[keys[-1]] = value

    return put


def _two_dimensions(config: dict[str, Any], size: Any, where: str) -> None:
    """Patches of one section; of a size that is given y and x count."""
    config.setdefault("patching", {})["do_2d"] = "z"
    if size is None:
        return
    if not isinstance(size, list) or len(size) not in (2, 3):
        raise ConfigError(
            f"{where}: MODEL.INPUT_SIZE: found {size!r}; with DATASET.DO_2D give [1, y, x]"
        )
    config.setdefault("plan", {})["patch_size"] = [1, *size[-2:]]
