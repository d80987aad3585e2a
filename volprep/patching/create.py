"""A strategy by the name in a config."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from volprep.errors import did_you_mean
from volprep.patching.fixed import FixedPatching, WholeSamplePatching
from volprep.patching.grid import SequentialPatching, TiledPatching
from volprep.patching.random import FixedRandomPatching, RandomPatching
from volprep.patching.samples import check_patch
from volprep.patching.specs import Patching, PatchSpecs
from volprep.patching.stratified import StratifiedPatching

__all__ = ["create_patching"]

Shapes = Sequence[Sequence[int]]


def create_patching(data_shapes: Shapes, patching_config: object) -> Patching:
    """Make the strategy that a config names.

    Parameters
    ----------
    data_shapes : list of (sequence of int)
        Shapes of the image stacks, SC(Z)YX.
    patching_config : mapping or object
        With a `name` (``random``, ``fixed_random``, ``sequential``, ``stratified``,
        ``tiled``, ``whole`` or ``fixed``) and the parameters of that strategy, as
        keys or as attributes; its class does not matter.

    Returns
    -------
    Patching
        Of the class that goes with the name.

    Raises
    ------
    ValueError
        If there is no such strategy, a parameter is missing, a mapping has a key
        that the strategy does not know, or the values do not go together.

    Notes
    -----
    After CAREamics' `create_patching`. Differs: ``sequential`` and ``fixed`` are
    taken too, and an unknown key is an error.
    """
    name = _name(patching_config)
    if name not in _STRATEGIES:
        raise ValueError(f"patching name {name!r}: unknown{did_you_mean(name, _STRATEGIES)}")
    make, wanted, optional = _STRATEGIES[name]
    given = _parameters(patching_config, (*wanted, *optional))
    missing = [key for key in wanted if key not in given]
    if missing:
        raise ValueError(f"{name} patching: {', '.join(missing)} not given")
    return make(data_shapes, **given)


def _fixed(data_shapes: Shapes, fixed_patch_specs: Sequence[PatchSpecs]) -> FixedPatching:
    for specs in fixed_patch_specs:
        if not 0 <= specs["data_idx"] < len(data_shapes):
            raise ValueError(f"fixed patch {specs}: there are {len(data_shapes)} image stacks")
        (shape,), patch = check_patch([data_shapes[specs["data_idx"]]], specs["patch_size"])
        ends = [c + p for c, p in zip(specs["coords"], patch, strict=True)]
        outside = any(e > n for e, n in zip(ends, shape[2:], strict=True))
        if outside or min(specs["coords"]) < 0 or not 0 <= specs["sample_idx"] < shape[0]:
            raise ValueError(f"fixed patch {specs}: not inside its image stack of shape {shape}")
    return FixedPatching(fixed_patch_specs)


def _whole(data_shapes: Shapes) -> WholeSamplePatching:
    return WholeSamplePatching(data_shapes)


# name: (maker, parameters it must have, parameters it may have)
_STRATEGIES: dict[str, tuple[Callable[..., Patching], tuple[str, ...], tuple[str, ...]]] = {
    "random": (RandomPatching, ("patch_size",), ("seed",)),
    "fixed_random": (FixedRandomPatching, ("patch_size",), ("seed",)),
    "sequential": (SequentialPatching, ("patch_size",), ("overlaps",)),
    "stratified": (StratifiedPatching, ("patch_size",), ("seed", "uniform")),
    "tiled": (TiledPatching, ("patch_size", "overlaps"), ()),
    "whole": (_whole, (), ()),
    "fixed": (_fixed, ("fixed_patch_specs",), ()),
}


def _name(config: object) -> str:
    try:
        name = config["name"] if isinstance(config, Mapping) else config.name  # type: ignore[attr-defined]
    except (KeyError, AttributeError):
        raise ValueError(f"patching config {config!r}: has no name") from None
    return str(getattr(name, "value", name))  # an enum's value, as configs of others have it


def _parameters(config: object, known: Sequence[str]) -> dict[str, Any]:
    if not isinstance(config, Mapping):
        return {key: getattr(config, key) for key in known if hasattr(config, key)}
    for key in config:
        if key != "name" and key not in known:
            raise ValueError(
                f"{config['name']} patching: unknown {key!r}{did_you_mean(key, known)}"
            )
    return {key: config[key] for key in known if key in config}
