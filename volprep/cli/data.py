"""`volprep init`, `check` and `fingerprint`: what lies in a folder."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from volprep.cli.app import Set, app
from volprep.cli.completion import finding_names, one_of
from volprep.cli.console import (
    local,
    print_json,
    print_table,
    print_text,
    say,
    shape_text,
    spacing_text,
    stage,
    told,
)
from volprep.errors import ConfigError, DataCheckError

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
Source = Annotated[
    Path, typer.Argument(readable=False, help="A config, or a folder (or file or URL) of volumes.")
]
LabelDir = Annotated[
    str | None, typer.Option(help="Name of the label folder, where there are several.")
]
ImageDir = Annotated[
    str | None, typer.Option(help="Name of the image folder, where there are several.")
]
ImageKey = Annotated[str | None, typer.Option(help="Image dataset inside HDF5 or Zarr files.")]
LabelKey = Annotated[str | None, typer.Option(help="Label dataset inside HDF5 or Zarr files.")]
Axes = Annotated[str | None, typer.Option(help="Axes of the image files, such as CZYX.")]
LabelAxes = Annotated[str | None, typer.Option(help="Axes of the label files, such as ZYX.")]
Slices = Annotated[
    bool | None,
    typer.Option("--slices/--images", help="A folder of pictures is one stack, or many 2D images."),
]


#: Cases that `check` shows on a terminal.
_MOST_CASES = 10


@app.command()
def init(
    data: Annotated[
        Path,
        typer.Argument(readable=False, help="Folder (or file or URL) with volumes and labels."),
    ],
    out: Annotated[
        Path, typer.Option("--out", "-o", readable=False, help="The YAML to write.")
    ] = Path("volprep.yaml"),
    patches: Annotated[
        Path | None,
        typer.Option(readable=False, help="Folder of the patch set; beside the YAML if not given."),
    ] = None,
    image_dir: ImageDir = None,
    label_dir: LabelDir = None,
    mask_dir: Annotated[str | None, typer.Option(help="Name of the valid-mask folder.")] = None,
    image_key: ImageKey = None,
    label_key: LabelKey = None,
    axes: Axes = None,
    label_axes: LabelAxes = None,
    slices: Slices = None,
    spacing: Annotated[
        str | None, typer.Option(help="(z, y, x) in µm, or '50,4,4 nm', where files carry none.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite the YAML.")] = False,
) -> None:
    """Look at a folder and write a commented YAML for it."""
    from volprep import pipeline
    from volprep.store import write_text

    for path, option in ((out, "--out"), (patches, "--patches")):
        if path is not None:
            local(path, option)
    if out.exists() and not force:
        raise ConfigError(f"{out}: exists; add --force to overwrite it, or give another --out")
    options: dict[str, Any] = {
        "image_dir": image_dir,
        "label_dir": label_dir,
        "mask_dir": mask_dir,
        "image_key": image_key,
        "label_key": label_key,
        "axes": axes,
        "label_axes": label_axes,
        "slices": slices,
        "spacing": spacing,
    }
    if not out.resolve().parent.is_dir():
        raise ConfigError(f"{out}: its folder does not exist; make it first")
    text, summary = pipeline.start(
        data, out, options=options, output=patches or out.with_name(f"{out.stem}_patches")
    )
    write_text(out, text)
    for line in summary:
        say(line)
    name = shlex.quote(str(out))
    say(f"wrote {out}; next: volprep check {name}  and  volprep prepare {name}")


@app.command()
def check(
    source: Annotated[
        Path | None,
        typer.Argument(readable=False, help="A config, or a folder (or file or URL) of volumes."),
    ] = None,
    image_dir: ImageDir = None,
    label_dir: LabelDir = None,
    image_key: ImageKey = None,
    label_key: LabelKey = None,
    axes: Axes = None,
    label_axes: LabelAxes = None,
    slices: Slices = None,
    changes: Set = None,
    headers_only: Annotated[
        bool, typer.Option("--headers-only", help="Do not read a voxel.")
    ] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Exit 4 on warnings, too.")] = False,
    explain: Annotated[
        str | None,
        typer.Option(
            help="Explain a finding by its name, or all of them.", autocompletion=finding_names
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """List the cases, and everything that is wrong or doubtful about them."""
    if explain is not None:
        _explain(explain, as_json=as_json)
        return
    if source is None:
        raise ConfigError("check: give a config or a folder, or --explain NAME")
    from volprep import pipeline
    from volprep.findings import in_short

    config = pipeline.load_target(
        source,
        image_dir=image_dir,
        label_dir=label_dir,
        image_key=image_key,
        label_key=label_key,
        axes=axes,
        label_axes=label_axes,
        slices=slices,
        changes=changes or (),
    )
    cases = pipeline.list_cases(config)
    with stage("check", pipeline.voxel_count(cases), "voxels") as advance:
        report = pipeline.check(config, cases, headers_only=headers_only, progress=advance)
    if as_json:
        print_json({"layout": cases.layout, "reason": cases.reason, **report.to_dict()})
    else:
        header = [
            "case",
            "image (c z y x)",
            "dtype",
            "axes",
            "spacing (µm)",
            "label",
            "ids",
            "mask",
        ]
        rows = [_case_row(facts) for facts in report.facts]
        title = f"{told('case', len(cases))}: {cases.reason}"
        # What is wrong is to stand on the first screen of a terminal, whatever the cases.
        print_table(title, header, rows, most=_MOST_CASES)
        found = [[f.level, str(f)] for f in in_short(report.findings)]
        print_table("findings", ["level", "finding"], found or [["", "none: all is well"]])
    ends = ("error", "warning") if strict else ("error",)
    counts = {level: sum(f.level == level for f in report.findings) for level in ends}
    if any(counts.values()):
        listed = [f"{n} {level}{'s' if n > 1 else ''}" for level, n in counts.items() if n]
        say(f"{' and '.join(listed)}: see above; more on each: volprep check --explain NAME")
        raise typer.Exit(DataCheckError.exit_code)


@app.command()
def tiles_json(
    folder: Annotated[
        Path, typer.Argument(readable=False, help="Folder with the tiles of one volume.")
    ],
    out: Annotated[
        Path, typer.Option("--out", "-o", readable=False, help="The JSON to write.")
    ] = Path("volume.json"),
    missing: Annotated[
        str,
        typer.Option(
            help="error, or fill: images 0 there, labels not valid.",
            autocompletion=one_of("error", "fill"),
        ),
    ] = "error",
    force: Annotated[bool, typer.Option("--force", help="Overwrite the JSON.")] = False,
) -> None:
    """Describe a folder of tiles, so that they can be read as one volume."""
    from volprep import pipeline

    if missing not in ("error", "fill"):
        raise ConfigError(f"--missing: found {missing!r}; give error or fill")
    if out.exists() and not force:
        raise ConfigError(f"{out}: exists; add --force to overwrite it, or give another --out")
    shape, notes = pipeline.write_tiles_json(folder, out, missing=missing)
    for note in notes:
        say(note)
    name = shlex.quote(str(out))
    say(f"wrote {out}: {shape_text(shape)} (z y x); it is a volume now: volprep check {name}")


@app.command()
def formats(as_json: Json = False) -> None:
    """List the formats that are read, and what to install for those that cannot be read here."""
    from volprep.sources import FORMATS

    if as_json:
        print_json([
            {**row._asdict(), "installed": row.installed, "install": row.install}
            for row in FORMATS
        ])  # fmt: skip
        return
    rows = [
        [row.title, " ".join(row.suffixes), row.read, row.install or "read here"] for row in FORMATS
    ]
    print_table("formats", ["format", "suffixes", "what is read", "here"], rows)


def _explain(name: str, *, as_json: bool) -> None:
    """What a finding means; of all of them the names first."""
    from volprep.findings import TABLE, explain

    names = list(TABLE) if name == "all" else [name]
    try:
        texts = [explain(each) for each in names]
    except KeyError as error:
        raise ConfigError(f"--explain: {error.args[0]}") from None
    if as_json:
        print_json({each: TABLE[each]._asdict() for each in names})
        return
    print_text("\n\n".join(texts))


def _case_row(facts: Any) -> list[object]:
    image, label = facts.image, facts.label
    return [
        facts.case.name,
        "-" if image is None else shape_text(image.shape),
        "-" if image is None else image.dtype,
        "-" if image is None else image.axes,
        "-" if image is None else spacing_text(image.spacing, micrometres=True),
        "none" if label is None else label.dtype,
        "-" if facts.labels is None else len(facts.labels.ids),
        "yes" if facts.mask is not None else "no",
    ]


@app.command()
def fingerprint(
    source: Source,
    masks: Annotated[
        Path | None,
        typer.Option(readable=False, help="Folder of masks, for a plain folder of images."),
    ] = None,
    headers_only: Annotated[
        bool, typer.Option("--headers-only", help="Shapes and spacings, without reading a voxel.")
    ] = False,
    changes: Set = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", readable=False, help="Also write it as JSON.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Measure shapes, spacings, intensities and labels."""
    from volprep import pipeline
    from volprep.fingerprint import clip_table, draw_histogram
    from volprep.store import write_json

    config = pipeline.load_target(source, masks=masks, changes=changes or ())
    found = pipeline.fingerprint(config, headers_only=headers_only, reporter=stage)
    clips = clip_table(found) if found.pooled else []
    facts = {**found.to_dict(), "clip": clips}
    if out is not None:
        write_json(out, facts)
    if as_json:
        print_json(facts)
        return
    for title, header, rows in fingerprint_tables(found):
        print_table(title, header, rows)
    for channel, clip in enumerate(clips):
        title = f"what preprocess.clip would cut of channel {channel}"
        print_table(title, CLIPS, [_clip_row(row) for row in clip])
    for channel, histogram in enumerate(found.histograms):
        print()
        print_text(f"intensities of channel {channel}, bars by the logarithm of the count")
        room = shutil.get_terminal_size().columns - 20  # beside the values and the shares
        print("\n".join(draw_histogram(histogram, width=min(60, max(room, 8)))))


CLIPS = ["clip", "low", "high", "of the labelled voxels", "why"]


def _clip_row(row: dict[str, Any]) -> list[object]:
    clip, cut = row["clip"], row["cut"]
    return [
        clip if isinstance(clip, str) else f"[{clip[0]:g}, {clip[1]:g}]",
        f"{row['low']:g}",
        f"{row['high']:g}",
        "no labels" if cut is None else f"{cut:.2%}",
        row["reason"],
    ]


def fingerprint_tables(found: Any) -> Iterator[tuple[str, list[str], list[list[object]]]]:
    """The facts as tables: each case, then the pooled intensities, then the labels."""
    yield (
        "cases",
        ["case", "shape (c z y x)", "dtype", "spacing"],
        [[c.name, shape_text(c.shape), c.dtype, spacing_text(c.spacing)] for c in found.cases],
    )
    yield (
        "pooled",
        ["what", "value"],
        [
            ["median shape", shape_text(found.median_shape)],
            ["median spacing", spacing_text(found.median_spacing)],
            ["anisotropy", "-" if found.anisotropy is None else f"{found.anisotropy:.3g}"],
            ["channels", found.n_channels],
            ["dtypes", ", ".join(found.dtypes)],
            ["objects", found.n_objects if found.has_labels else "no labels"],
        ],
    )
    if not found.pooled:
        return
    percentiles = found.pooled["voxel"]["all"][0].percentiles
    for channel in range(found.n_channels):
        columns = {
            f"{region}, each {weighting} alike": regions[region][channel]
            for weighting, regions in found.pooled.items()
            for region in regions
        }
        yield (
            f"intensities of channel {channel}",
            ["what", *columns],
            [
                [
                    what if what[0].isalpha() else f"p{what}",
                    *(_figure(what, statistics) for statistics in columns.values()),
                ]
                for what in ("voxels", "mean", "std", "minimum", *percentiles, "maximum")
            ],
        )
    if found.has_labels:
        yield "labels", LABELS, [_label_row(case.name, case.labels) for case in found.cases]
    classes = found.class_voxels
    if classes and len(classes) <= MOST_CLASSES:
        total = sum(classes.values())
        shares = [[name, count, f"{count / total:.2%}"] for name, count in classes.items()]
        yield "ids over all cases", ["id", "voxels", "of the foreground"], shares


#: More ids than this are objects, not classes, and are not listed one by one.
MOST_CLASSES = 16

LABELS = ["case", "ids", "greatest", "foreground", "voxels of an id: p5, median, p95", "touching"]


def _label_row(name: str, labels: Any) -> list[object]:
    if labels is None:
        return [name, "no labels", *["-"] * (len(LABELS) - 2)]
    return [
        name,
        labels.n_ids,
        labels.largest_id,
        f"{labels.foreground:.2%}",
        ", ".join(f"{labels.sizes[q]:.0f}" for q in ("5", "50", "95") if labels.sizes),
        labels.touching,
    ]


def _figure(what: str, statistics: Any) -> str:
    """One number of a Statistics, by its name or its percentile."""
    if what == "voxels":
        return str(statistics.count)
    if what in ("mean", "std", "minimum", "maximum"):
        return f"{getattr(statistics, what):.6g}"
    return f"{statistics.percentiles[what]:g}" if statistics.count else "-"
