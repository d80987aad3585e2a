"""Pages to be looked at: `volprep report`, `preview-augment` and `preview-patches`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from volprep.cli.app import Set, app
from volprep.cli.completion import transforms
from volprep.cli.console import local, print_json, say, stage
from volprep.errors import ConfigError


@app.command()
def report(
    source: Annotated[
        Path,
        typer.Argument(readable=False, help="A patch set, or the YAML that one can be made from."),
    ],
    changes: Set = None,
    out: Annotated[
        Path,
        typer.Option(
            "--out", "-o", readable=False, help="The HTML page, which needs no other file."
        ),
    ] = Path("report.html"),
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Show a patch set, or what a config would make, as one HTML page to look at.

    The page of a patch set lies in it (report.html); this writes it with what its making took,
    where this machine knows. Of a YAML nothing is prepared: the page shows cases, findings, plan,
    split and where patches would come from; of data that prepare would refuse, what is wrong with
    it and what can be read.
    """
    from volprep import pipeline
    from volprep.report import with_names
    from volprep.store import write_text

    out = local(out, "--out")
    if pipeline.is_config(source):
        config = pipeline.load_target(source, changes=changes or ())
        html = with_names(pipeline.report_of_config(config, stage, tell=say), CONFIG=source)
    else:
        if changes:
            raise ConfigError("--set: goes with a YAML, not with a patch set")
        html = pipeline.report_of_set(source)
    write_text(out, html)
    if as_json:
        print_json({"html": str(out), "bytes": out.stat().st_size})
    else:
        print(out)


@app.command()
def preview_augment(
    config: Annotated[
        Path, typer.Argument(readable=False, help="The YAML, with what to do under augment.")
    ],
    changes: Set = None,
    case: Annotated[
        str | None, typer.Option(help="Name of the case; the first with labels if not given.")
    ] = None,
    index: Annotated[int, typer.Option(min=0, help="Another index, another place.")] = 0,
    seed: Annotated[
        int | None, typer.Option(min=0, help="Of place and draws, over the YAML's.")
    ] = None,
    n: Annotated[int, typer.Option("--n", "-n", min=1, max=64, help="Draws in each row.")] = 8,
    only: Annotated[
        list[str] | None,
        typer.Option(
            help="Show one transform alone, such as misalignment; may be repeated.",
            autocompletion=transforms,
        ),
    ] = None,
    out: Annotated[
        Path,
        typer.Option("--out", "-o", readable=False, help="The HTML page; a PNG goes beside it."),
    ] = Path("preview.html"),
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Draw the original beside its augmentations: an HTML page and a PNG contact sheet."""
    from volprep.config import load_config, parse_changes
    from volprep.pipeline import preview

    if not out.name:
        raise ConfigError(
            f"--out: found {str(out)!r}; give the name of a page, such as preview.html"
        )
    page = preview.preview_augment(
        load_config(config, parse_changes(changes or ())),
        case=case,
        index=index,
        seed=seed,
        n=n,
        only=only or (),
    )
    sheet = out.with_suffix(".png")
    page.write(out, sheet)
    if as_json:
        print_json(
            {"html": str(out), "png": str(sheet), "rows": [row.title for row in page.sections]}
        )
        return
    print(out)
    print(sheet)


@app.command()
def preview_patches(
    config: Annotated[Path, typer.Argument(readable=False, help="The YAML.")],
    changes: Set = None,
    case: Annotated[
        list[str] | None, typer.Option(help="Draw this case alone; may be repeated.")
    ] = None,
    out: Annotated[
        Path,
        typer.Option("--out", "-o", readable=False, help="The folder for a page and a PNG a case."),
    ] = Path("preview-patches"),
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Draw where the patches of each case come from, and how often voxels are seen."""
    from volprep.config import load_config, parse_changes
    from volprep.pipeline import preview_patches as pages

    drawn = {}
    for name, page in pages.preview_patches(
        load_config(config, parse_changes(changes or ())), cases=case or (), reporter=stage
    ):
        out.mkdir(parents=True, exist_ok=True)
        html, sheet = out / f"{name}.html", out / f"{name}.png"
        page.page.write(html, sheet)
        drawn[name] = {"html": str(html), "png": str(sheet), **page.facts}
        if not as_json:
            print(html)
            print(sheet)
    if as_json:
        print_json(drawn)
