"""`volprep prepare`, `inspect` and `schema`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from volprep.cli.app import app
from volprep.cli.console import print_json, print_table, say, shape_text, spacing_text, stage
from volprep.errors import ConfigError

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]


@app.command()
def prepare(
    config: Annotated[Path, typer.Argument(help="The YAML, as volprep init writes it.")],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder of the patch set, over the YAML's.")
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Make a patch set that is there already anew.")
    ] = False,
    workers: Annotated[
        int | None, typer.Option("--workers", "-j", min=1, help="Threads, over the YAML's.")
    ] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="End with exit 4 on warnings, too.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Make the patch set: check, fingerprint, plan, split, cut, and a generated train.yaml."""
    from volprep import pipeline

    if config.suffix.lower() not in (".yaml", ".yml"):
        raise ConfigError(f"{config}: no .yaml; write one with: volprep init {config}")
    settings = pipeline.load_target(config)
    if out is not None:
        output = settings.output.model_copy(update={"dir": out.resolve()})
        settings = settings.model_copy(update={"output": output})
    if workers is not None:
        compute = settings.compute.model_copy(update={"workers": workers})
        settings = settings.model_copy(update={"compute": compute})
    store = pipeline.prepare(settings, overwrite=overwrite, strict=strict, reporter=stage)
    if as_json:
        print_json({"path": str(store.path), "training": store.manifest["training"]})
        return
    _show(store.path, store.manifest)
    say(f"next: in Python: volprep.dataloader({str(store.path)!r})")


@app.command()
def inspect(
    out: Annotated[Path, typer.Argument(help="The folder that volprep prepare wrote.")],
    verify: Annotated[
        bool, typer.Option("--verify", help="Read every patch and compare its checksum.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Show what a patch set holds: sizes, splits, cases, files."""
    from volprep.errors import StoreError
    from volprep.findings import Finding
    from volprep.store import PatchStore, load_json

    store = PatchStore(out)
    readers = {split: store.split(split) for split in store.manifest["training"]["patches"]}
    damaged = list(store.damaged()) if verify else []
    cases = store.manifest["cases"]
    rows = []
    for split, reader in readers.items():
        for number, name in enumerate(cases):
            mine = reader.index[reader.index[:, 0] == number]
            if len(mine):
                voxels = len(mine) * _voxels(reader.spec("image").patch_shape[1:])
                padded = int((mine[:, 4:10].sum(axis=1) > 0).sum())
                rows.append([split, name, len(mine), f"{mine[:, 10].sum() / voxels:.1%}", padded])
    if as_json:
        print_json(
            {
                "path": str(out),
                "training": store.manifest["training"],
                "splits": load_json(out / "splits.json"),
                "cases": [
                    dict(zip(("split", "case", "patches", "foreground", "padded"), r, strict=True))
                    for r in rows
                ],
                "inputs": store.manifest["inputs"],
                "versions": store.manifest["versions"],
                **load_json(out / "findings.json"),
                "damaged": damaged,
            }
        )
    else:
        _show(out, store.manifest)
        print_table("cases", ["split", "case", "patches", "foreground", "padded"], rows)
        found = [Finding.from_dict(each) for each in load_json(out / "findings.json")["findings"]]
        if found:
            print_table("findings", ["level", "finding"], [[f.level, str(f)] for f in found])
    if damaged:
        raise StoreError("\n".join(damaged))


@app.command()
def schema(
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Write it there instead of printing.")
    ] = None,
) -> None:
    """Print the JSON Schema of the YAML: every key with its meaning, for editors."""
    from volprep.config import json_schema

    if out is None:
        print_json(json_schema())
        return
    import json

    from volprep.store import write_text

    write_text(out, json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n")
    say(f"wrote {out}")


def _voxels(shape: tuple[int, ...]) -> int:
    count = 1
    for n in shape:
        count *= n
    return count


def _show(path: Path, manifest: dict[str, Any]) -> None:
    training = manifest["training"]
    patches = ", ".join(f"{n} {split}" for split, n in training["n_patches"].items())
    rows: list[list[object]] = [
        ["patch set", path],
        ["patches", patches],
        ["patch size", f"{shape_text(training['patch_size'])} voxels (z y x)"],
        ["stored for training", f"{shape_text(training['stored_patch_size'])} voxels"],
        ["batch size", training["batch_size"]],
        ["pooling", shape_text(training["pool"])],
        ["spacing", spacing_text(training["spacing"])],
        ["channels", training["n_channels"]],
        ["labels", training["label_kind"] or "none"],
        ["normalisation", training["normalisation"]["kind"]],
        *_skeletons(manifest["skeletons"]),
        ["training config", path / "train.yaml"],
    ]
    print_table("volprep", ["what", "value"], rows)


def _skeletons(counts: dict[str, dict[str, int]]) -> list[list[object]]:
    """How many skeletons were made, and how many of them are one point; no row without any."""
    made = sum(found.get("components", 0) for found in counts.values())
    fell_back = sum(found.get("fell_back", 0) for found in counts.values())
    text = f"{made} components, {fell_back} of them fell back to one point"
    return [["skeletons", text]] if made else []
