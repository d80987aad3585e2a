"""`volprep view`: look at a volume, its labels and a patch."""

from __future__ import annotations

import contextlib
import threading
from pathlib import Path
from typing import Annotated, Literal

import typer

from volprep.cli.app import Set, app
from volprep.cli.console import print_json, say, stage
from volprep.errors import VolprepError


@app.command()
def view(
    source: Annotated[
        Path,
        typer.Argument(
            readable=False, help="A config, data, or the folder that volprep prepare wrote."
        ),
    ],
    changes: Set = None,
    case: Annotated[
        str | None, typer.Option(help="Name of the case; the first if not given.")
    ] = None,
    patch: Annotated[
        int | None, typer.Option(min=0, help="Number of the patch to look at, from 0 on.")
    ] = None,
    split: Annotated[Literal["train", "val"], typer.Option(help="Of the patch.")] = "train",
    tool: Annotated[
        Literal["neuroglancer", "napari"], typer.Option("--with", help="What shows it.")
    ] = "neuroglancer",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Open a volume with labels, skeletons and patch box: in Neuroglancer by a link, or napari."""
    from volprep import pipeline, viewer

    scene = pipeline.scene_of(
        source, case=case, patch=patch, split=split, changes=changes or (), reporter=stage
    )
    if tool == "napari":
        viewer.open_napari(scene)
        return
    try:
        served = viewer.serve(scene, port=port)
    except OSError as error:
        raise VolprepError(
            f"--port: {port} cannot be listened on ({error}); give another"
        ) from None
    # Ctrl-C is how it is meant to end; what is being read for the page is not waited for.
    with contextlib.suppress(KeyboardInterrupt), contextlib.closing(served):
        if as_json:
            layers = list(served.layers)
            print_json({"url": served.url, "layers": layers, "position": list(served.position)})
        else:
            print(served.url, flush=True)
        say("open the link in a browser of this machine; Ctrl-C ends it")
        threading.Event().wait()
