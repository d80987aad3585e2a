"""`volprep bake-skeletons`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from volprep.cli.app import Executor, Scheduler, Set, Threads, app
from volprep.cli.completion import one_of
from volprep.cli.console import local, print_json, print_table, stage
from volprep.errors import ConfigError


@app.command()
def bake_skeletons(
    config: Annotated[
        Path | None,
        typer.Argument(readable=False, help="A config or a folder of cases; not with --labels."),
    ] = None,
    changes: Set = None,
    labels: Annotated[
        Path | None, typer.Option(readable=False, help="One label volume, instead of a config.")
    ] = None,
    key: Annotated[
        str | None, typer.Option(help="Dataset inside an HDF5 or Zarr file of --labels.")
    ] = None,
    spacing: Annotated[
        str | None, typer.Option(help="(z, y, x) in µm, or '50,4,4 nm', of --labels.")
    ] = None,
    out: Annotated[
        Path, typer.Option("--out", "-o", readable=False, help="Folder to write to.")
    ] = Path("skeletons"),
    method: Annotated[
        str | None, typer.Option(help="lee or teasar.", autocompletion=one_of("lee", "teasar"))
    ] = None,
    field: Annotated[
        bool, typer.Option("--field", help="Bake the field: each voxel's nearest point.")
    ] = False,
    target: Annotated[
        str,
        typer.Option(
            help="Of the field: offset (point minus voxel) or position.",
            autocompletion=one_of("offset", "position"),
        ),
    ] = "offset",
    mask: Annotated[bool, typer.Option("--mask", help="Paint the skeleton mask.")] = False,
    form: Annotated[
        str, typer.Option("--format", help="Of field and mask: zarr (OME-Zarr) or tiff.")
    ] = "zarr",
    anisotropy: Annotated[
        str | None,
        typer.Option(help="Weights of the field's distances (z, y, x); the spacing if not given."),
    ] = None,
    average: Annotated[
        bool | None,
        typer.Option(help="Smooth the field within each instance (as the config has it, or yes)."),
    ] = None,
    radius: Annotated[
        float | None, typer.Option(min=0, help="Of the mask's discs, in voxels (7).")
    ] = None,
    flank_radius: Annotated[
        float | None, typer.Option(min=0, help="Of the discs on the slices beside (3).")
    ] = None,
    trch: Annotated[bool, typer.Option("--trch", help="Write SKOOTS' .trch, too.")] = False,
    swc: Annotated[bool, typer.Option("--swc", help="Write an SWC file per instance.")] = False,
    workers: Threads = None,
    executor: Executor = None,
    scheduler: Scheduler = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Make skeletons of every instance, and bake fields and masks from them."""
    from volprep import pipeline

    if (config is None) == (labels is None):
        raise ConfigError("bake-skeletons: give either a config (or folder), or --labels FILE")
    if changes and config is None:
        raise ConfigError("bake-skeletons: --set goes with a config or a folder")
    summaries = pipeline.run_bake(
        config,
        labels=labels,
        key=key,
        spacing=spacing,
        out=local(out, "--out"),
        workers=workers,
        executor=executor,
        scheduler=scheduler,
        changes=changes or (),
        reporter=stage,
        method=method,
        field=field,
        mask=mask,
        target=target,
        form=form,
        anisotropy=anisotropy,
        average=average,
        radius=radius,
        flank_radius=flank_radius,
        trch=trch,
        swc=swc,
    )
    if as_json:
        print_json([summary.to_dict() for summary in summaries])
        return
    counts = ["instances", "components", "points", "smallest", "fell back"]
    header = ["case", *counts, "resumed", "files"]
    rows = [
        [
            s.case,
            s.instances,
            s.components,
            s.points,
            s.smallest,
            s.fell_back,
            "yes" if s.resumed else "no",
            ", ".join(Path(file).name for file in s.files),
        ]
        for s in summaries
    ]
    print_table(f"skeletons in {out}", header, rows)
