"""`volprep autoconfig`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from volprep.cli.app import Set, app
from volprep.cli.completion import one_of
from volprep.cli.console import print_json, print_table, print_text, say, shape_text, spacing_text
from volprep.errors import ConfigError


@app.command()
def autoconfig(
    source: Annotated[
        Path | None,
        typer.Argument(readable=False, help="A config, or a folder of volumes; not with --median."),
    ] = None,
    median: Annotated[
        str | None, typer.Option(help="Median shape z,y,x instead of data, such as 96,512,512.")
    ] = None,
    spacing: Annotated[
        str | None, typer.Option(help="Spacing z,y,x in µm, such as 0.3,0.1,0.1 or '50,4,4 nm'.")
    ] = None,
    memory: Annotated[str | None, typer.Option(help="Memory for training, such as 8GiB.")] = None,
    planner: Annotated[
        str | None,
        typer.Option(help="memory or biom3d.", autocompletion=one_of("memory", "biom3d")),
    ] = None,
    precision: Annotated[
        str | None, typer.Option(help="mixed or fp32.", autocompletion=one_of("mixed", "fp32"))
    ] = None,
    patch_size: Annotated[str | None, typer.Option(help="Your own patch z,y,x.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Your own batch size.")] = None,
    channels: Annotated[int | None, typer.Option(help="Input channels, with --median.")] = None,
    classes: Annotated[int | None, typer.Option(help="Output classes, with --median.")] = None,
    changes: Set = None,
    explain: Annotated[
        bool, typer.Option("--explain", help="Print the reasoning, and the bytes by part.")
    ] = False,
    measure: Annotated[
        bool, typer.Option("--measure", help="Train two steps on the device at hand and compare.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Decide patch, pooling, batch and augmentation patch, from data or from a median shape."""
    given: dict[str, Any] = {
        "memory": memory,
        "planner": planner,
        "precision": precision,
        "patch_size": _numbers("--patch-size", patch_size),
        "batch_size": batch_size,
    }
    given = {name: value for name, value in given.items() if value is not None}
    plan = _plan(
        source, _numbers("--median", median), spacing, channels, classes, given, changes or ()
    )
    step = _measured(plan) if measure else None
    if as_json:
        print_json({**plan.to_dict(), **({} if step is None else {"measured": vars(step)})})
    elif explain:
        print_text("\n".join(plan.explain()))
    else:
        rows: list[list[object]] = [
            ["median shape", shape_text(plan.median_shape)],
            ["spacing", spacing_text(plan.spacing)],
            ["patch size", shape_text(plan.patch_size)],
            ["augmentation patch", shape_text(plan.aug_patch_size)],
            ["pooling", shape_text(plan.pool)],
            ["batch size", plan.batch_size],
            ["memory", f"{plan.memory_bytes / 2**30:.2f} of {plan.memory_budget / 2**30:.2f} GiB"],
        ]
        print_table(f"plan ({plan.planner})", ["what", "value"], rows)
    if step is not None and not as_json:
        used = plan.memory_bytes - plan.memory["reserve"]
        print(
            f"measured on {step.device}: {step.bytes / 2**30:.2f} GiB, estimated "
            f"{used / 2**30:.2f} GiB without the reserve ({step.bytes / used - 1:+.0%}); "
            f"{step.seconds:.2f} s a step"
        )


def _measured(plan: Any) -> Any:
    from volprep import pipeline

    say(f"training two steps of {shape_text(plan.patch_size)} x {plan.batch_size}")
    return pipeline.measure_plan(plan)


def _plan(
    source: Path | None,
    median: tuple[int, ...] | None,
    spacing: str | None,
    channels: int | None,
    classes: int | None,
    given: dict[str, Any],
    changes: Sequence[str],
) -> Any:
    from volprep import pipeline

    if (source is None) == (median is None):
        raise ConfigError("autoconfig: give either a config or folder, or --median z,y,x")
    if median is None:
        for option, value in (("--channels", channels), ("--classes", classes)):
            if value is not None:
                raise ConfigError(f"autoconfig: {option} goes with --median; data says it itself")
        config = pipeline.load_target(
            source or Path(), plan=given, spacing=spacing, changes=changes
        )
        return pipeline.plan_of(config)
    if changes:
        raise ConfigError("autoconfig: --set goes with a config or a folder, not with --median")
    return pipeline.plan_of_shape(
        median, spacing=spacing, n_channels=channels or 1, n_classes=classes or 2, plan=given
    )


def _numbers(option: str, text: str | None) -> tuple[int, ...] | None:
    if text is None:
        return None
    try:
        values = tuple(int(part) for part in text.replace("x", ",").split(","))
    except ValueError:
        values = ()
    if len(values) != 3:
        raise ConfigError(f"{option}: found {text!r}; give three whole numbers z,y,x")
    return values
