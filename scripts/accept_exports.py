"""Do other trainers accept what `volprep export` writes? Each is installed and asked.

    python scripts/accept_exports.py            # every target
    python scripts/accept_exports.py nnunet monai --keep
    python scripts/accept_exports.py --resume   # after an interruption: what is known is not asked

For each target an environment of its own is made from PyPI. Nine sets are prepared (instances,
classes with a valid mask, anisotropic and resampled, two channels, one volume in blocks, whole
volumes kept with their inputs taken away, 2D pictures in colour, 2D classes, planes of volumes) and
exported; then `scripts/acceptance/ask_TARGET.py` runs in that environment: it loads the export by
the trainer's own code, compares cases, sides, spacing, axes, voxels, labels, patch and batch with
what the set holds, and lets the trainer train one step. What it could not compare it says. The
table at the end is the README's. A trainer that cannot be installed is "not tried".
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from volprep import load_config, pipeline
from volprep.errors import DataCheckError, VolprepError
from volprep.exports import TABLE
from volprep.geometry import Box, three

HERE = Path(__file__).parent
PINS = HERE.parent / "constraints.txt"
#: What is installed for a target beside its peer.
BESIDE: dict[str, list[str]] = {
    "monai": ["nibabel", "pyyaml", "tqdm"],
    "stardist": ["tensorflow-cpu", "tf-keras", "tensorboard"],
    "careamics": [
        "lightning!=2.6.2,!=2.6.3", "pydantic<=2.14.1", "bioimageio-core<=0.11.0", "torchmetrics",
        "microssim", "zarr", "scikit-image", "tifffile", "matplotlib", "psutil", "tensorboard",
    ],
    "connectomics": [
        "torchvision==0.28.0", "monai", "pytorch-lightning", "torchmetrics", "omegaconf", "scipy",
        "scikit-learn", "scikit-image", "opencv-python-headless", "h5py", "imageio", "nibabel",
        "matplotlib", "tensorboard", "tqdm", "einops", "psutil", "connected-components-3d",
        "fastremap", "kimimaro", "crackle-codec", "mahotas", "fastmorph", "zarr", "tifffile",
        "yacs", "gputil",
    ],
    "skoots": [
        "scikit-image", "tqdm", "yacs", "scipy", "numba", "tensorboard", "matplotlib", "zarr",
        "click", "h5py", "kimimaro", "imagecodecs", "setuptools<81", "triton",
    ],
    "cellpose": [
        "scikit-image", "fastremap", "fill-voids", "natsort", "roifile", "opencv-python-headless",
        "tifffile", "scipy", "tqdm", "imagecodecs",
    ],
}  # fmt: skip
#: Trainers that are not on PyPI: where their source is.
SOURCES = {
    "connectomics": "github.com/PytorchConnectomics/pytorch_connectomics",
    "connectomics-v1": "github.com/PytorchConnectomics/pytorch_connectomics, tag v1.0.0",
}
#: Other versions of a trainer that one export serves: their target, in whose environment they run.
VERSIONS = {"connectomics-v1": "connectomics"}
#: Trainers that want torchvision, whose releases on PyPI fit a torch for CUDA alone (and of
#: CAREamics an older one than our pin): they come without what they ask for, and `novision`
#: stands in for what is missing of torchvision.
ALONE: dict[str, list[str]] = {
    "careamics": ["torchvision==0.28.0"],
    "skoots": ["torchvision==0.28.0", "bism"],
    "cellpose": ["torchvision==0.28.0", "segment_anything"],
}
OPTIONS: dict[str, dict[str, Any]] = {"nnunet": {"plans": True}}
POINTS = 200
#: Seconds that a trainer has for one set: one that hangs is not waited for.
PATIENCE = 1800
CONFIG = """
data: {{root: data, label_kind: {kind}, spacing: "{spacing}"}}
plan: {{memory: {memory}, max_batch: 2}}
preprocess: {{target_spacing: {target}}}
patching: {{patches_per_case: 4}}
output: {{dir: out}}
"""


def balls(shape: tuple[int, int, int], count: int, seed: int) -> np.ndarray:
    """Labels with balls of several sizes, ids with gaps and some beyond 16 bits."""
    rng = np.random.default_rng(seed)
    label = np.zeros(shape, np.uint32)
    grid = np.indices(shape, dtype=np.float32)
    for number in range(1, count + 1):
        centre = [rng.uniform(3, n - 3) for n in shape]
        radii = [rng.uniform(2, max(3.0, n / 6)) for n in shape]
        inside = sum(((g - c) / r) ** 2 for g, c, r in zip(grid, centre, radii, strict=True)) < 1
        label[inside] = 3 * number if number % 5 else 70000 + number
    return label


def image_of(label: np.ndarray, seed: int, channels: int = 1) -> np.ndarray:
    """Noise with signal where there are labels; each channel is another."""
    rng = np.random.default_rng(1000 + seed)
    planes = [
        (rng.integers(0, 400, label.shape) + (900 + 500 * c) * (label > 0)).astype(np.uint16)
        for c in range(channels)
    ]
    return planes[0] if channels == 1 else np.stack(planes, axis=1)  # ZCYX, as ImageJ has it


def write(folder: Path, name: str, image: np.ndarray, label: np.ndarray) -> None:
    for where, array in {"images": image, "labels": label}.items():
        path = folder / "data" / where / f"{name}.tif"
        path.parent.mkdir(parents=True, exist_ok=True)
        axes = {2: "YX", 3: "ZYX", 4: "ZCYX"}[array.ndim]
        if array.ndim == 3 and array.shape[-1] == 3:
            tifffile.imwrite(path, array, photometric="rgb")
        else:
            tifffile.imwrite(path, array, metadata={"axes": axes})


def configure(folder: Path, kind: str, spacing: str, target: str = "none", more: str = "") -> None:
    text = CONFIG.format(kind=kind, spacing=spacing, target=target, memory="2GiB") + more
    (folder / "c.yaml").write_text(text)


def instances(folder: Path) -> None:
    for n in range(4):
        label = balls((32, 72, 64), 14, n)
        write(folder, f"cell {n}", image_of(label, n), label)
    configure(folder, "instances", "0.3, 0.3, 0.3 µm")


def classes(folder: Path) -> None:
    """Three classes, one of them not next in number; what is not annotated is 255."""
    for n in range(4):
        label = (balls((32, 64, 72), 12, 10 + n) // 3 % 3 * 2).astype(np.uint8)
        image = image_of(label, n)
        label[:, 40:] = np.where(np.arange(72) > 50, 255, label[:, 40:])
        write(folder, f"scan{n}", image, label)
    configure(folder, "classes", "1, 1, 1 µm")
    text = (folder / "c.yaml").read_text()
    (folder / "c.yaml").write_text(text.replace("root: data,", "root: data, ignore: 255,"))


def anisotropic(folder: Path) -> None:
    """Cases that are resampled to sections four times as far apart as voxels in them."""
    for n in range(4):
        label = balls((20, 80, 88), 12, 20 + n)
        write(folder, f"stack-{n}", image_of(label, n), label)
    configure(folder, "instances", "0.2, 0.05, 0.05 µm", "[0.24, 0.06, 0.06]")


def channels(folder: Path) -> None:
    for n in range(4):
        label = balls((24, 64, 56), 10, 30 + n)
        write(folder, f"two{n}", image_of(label, n, channels=2), label)
    configure(folder, "instances", "0.5, 0.25, 0.25 µm")


def blocks(folder: Path) -> None:
    label = balls((48, 128, 112), 40, 40)
    write(folder, "block", image_of(label, 0), label)
    configure(folder, "instances", "0.3, 0.2, 0.2 µm")


def volumes(folder: Path) -> None:
    """Cases that the set keeps whole, so that nothing else is needed; 65535 is not annotated."""
    for n in range(4):
        label = balls((24, 72, 64), 12, 50 + n)
        image = image_of(label, n)
        label[:, :, 52:] = 65535
        write(folder, f"kept{n}", image, label)
    configure(folder, "instances", "300, 300, 300 nm")
    text = (folder / "c.yaml").read_text().replace("root: data,", "root: data, ignore: 65535,")
    (folder / "c.yaml").write_text(text.replace("dir: out", "dir: out, store: volumes"))


def pictures(folder: Path) -> None:
    """2D pictures in colour, with instances."""
    for n in range(6):
        label = balls((12, 120, 136), 20, 60 + n)[6]
        grey = (image_of(label[None], n)[0] // 8).astype(np.uint8)
        write(folder, f"photo{n}", np.stack([grey, 255 - grey, grey // 2], axis=-1), label)
    configure(folder, "instances", "0.5, 0.5, 0.5 µm")
    many_images(folder)


def sections(folder: Path) -> None:
    """2D images with classes."""
    for n in range(6):
        label = (balls((12, 136, 120), 20, 70 + n)[6] // 3 % 3).astype(np.uint8)
        write(folder, f"section{n}", image_of(label[None], n)[0], label)
    configure(folder, "classes", "0.5, 0.5, 0.5 µm")
    many_images(folder)


def planes(folder: Path) -> None:
    """Volumes of which planes across y are trained on."""
    for n in range(4):
        label = balls((40, 24, 48), 12, 80 + n)
        write(folder, f"plane{n}", image_of(label, n), label)
    configure(folder, "instances", "0.3, 0.6, 0.3 µm")
    text = (folder / "c.yaml").read_text()
    (folder / "c.yaml").write_text(text.replace("patching: {", "patching: {do_2d: y, "))


def many_images(folder: Path) -> None:
    """2D images are not the slices of one stack."""
    text = (folder / "c.yaml").read_text()
    (folder / "c.yaml").write_text(text.replace("root: data,", "root: data, slices: false,"))


SETS: dict[str, Callable[[Path], None]] = {
    "instances": instances,
    "classes": classes,
    "anisotropic": anisotropic,
    "channels": channels,
    "blocks": blocks,
    "volumes": volumes,
    "pictures": pictures,
    "sections": sections,
    "planes": planes,
}


def facts_of(folder: Path) -> dict[str, Any]:
    """What the set holds, read from its own files and not from the export."""
    out = folder / "out"
    store = json.loads((out / "manifest.json").read_text())
    splits = json.loads((out / "splits.json").read_text())
    opened = pipeline.open_prepared(out)
    prepared = {case.name: (case.image, case.label, case.mask) for case in opened}
    rng, cases = np.random.default_rng(5), {}
    for side in ("train", "val"):
        for part in splits[side]:
            image, label, mask = prepared[part["case"]]
            box = Box.whole(image.shape)
            if part["box"] is not None:
                box = Box(three(part["box"][0]), three(part["box"][1]))
            voxels, ids = image.read(box), label.read(box)[0].astype(np.int64)
            valid = np.ones(ids.shape, bool) if mask is None else mask.read(box)[0] != 0
            points = np.stack([rng.integers(0, n, POINTS) for n in ids.shape], axis=1)
            where = tuple(points.T)
            plain = re.sub(r"[^A-Za-z0-9_-]", "_", part["case"])
            name = plain if part["box"] is None else f"{plain}_{side}"
            cases[name] = {
                "side": side,
                "shape": list(box.shape),
                "spacing": list(image.spacing),
                "points": points.tolist(),
                "image": voxels[(slice(None), *where)].T.astype(float).tolist(),
                "label": ids[where].tolist(),
                "valid": valid[where].tolist(),
                "ids": np.unique(ids[valid]).tolist(),
            }
    return {"cases": cases, "training": store["training"]}


def prepare_set(name: str, folder: Path) -> None:
    """Make the data of a set, the set, and what is known of it; once."""
    if not (folder / "facts.json").exists():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        SETS[name](folder)
        pipeline.prepare(load_config(folder / "c.yaml"))
        (folder / "facts.json").write_text(json.dumps(facts_of(folder)))
    if name == "volumes":
        shutil.rmtree(folder / "data", ignore_errors=True)


def environment(target: str, folder: Path) -> Path:
    """The Python of a fresh environment with the trainer in it, and the torch of our pins."""
    python = folder / "bin" / "python"
    if python.exists():
        return python
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    torch = next(line for line in PINS.read_text().splitlines() if line.startswith("torch=="))
    pin = folder / "torch.txt"
    pin.write_text(torch + "\n")
    # First and alone, so that no other build of it is pulled in.
    subprocess.run([*pip, torch], check=True)
    peer, alone = TABLE[target].peer, ALONE.get(target)
    elsewhere = alone or target in SOURCES
    wanted = [*([] if elsewhere else [peer]), *BESIDE.get(target, [])]
    subprocess.run([*pip, "-c", pin, *wanted], check=True)
    if alone:
        subprocess.run([*pip, "--no-deps", peer, *alone], check=True)
    return python


def accept(
    target: str, work: Path, sets: Sequence[str], checkouts: dict[str, Path], *, resume: bool
) -> dict[str, Any]:
    """What the trainer did with each of the sets; each answer is kept in ``WORK/results``."""
    results: dict[str, Any] = {"target": target, "sets": {}}
    kept = {name: work / "results" / target / f"{name}.json" for name in sets}
    if resume:
        known = {name: json.loads(p.read_text()) for name, p in kept.items() if p.exists()}
        results["sets"] = {name: found for name, found in known.items() if "failed" not in found}
    left = [name for name in sets if name not in results["sets"]]
    if not left:
        return results
    if target in SOURCES and target not in checkouts:
        where = f"not on PyPI; give --checkout {target}=FOLDER of {SOURCES[target]}"
        return {"target": target, "not tried": where}
    to = VERSIONS.get(target, target)
    try:
        python = environment(to, work / "env" / to)
    except subprocess.CalledProcessError as error:
        return {"target": target, "not tried": f"cannot be installed: {error}"}
    for name in left:
        found = ask(target, python, work / "sets" / name, work / "exports", checkouts.get(target))
        results["sets"][name] = found
        kept[name].parent.mkdir(parents=True, exist_ok=True)
        kept[name].write_text(json.dumps(found, indent=1))
        print(f"{target} {name}: {found.get('failed', found)}", file=sys.stderr)
    return results


def ask(
    target: str, python: str | Path, prepared: Path, exports: Path, checkout: Path | None
) -> dict[str, Any]:
    """Export a set, and let the trainer that a Python has say what it makes of it.

    What it asserted and what not; or ``refused``, what the export says it cannot express; or
    ``failed``, the end of what the trainer said.
    """
    to = VERSIONS.get(target, target)
    export = exports / target / prepared.name
    if to == "nnunet":
        export = export / "raw" / "Dataset001_accept"
    shutil.rmtree(export, ignore_errors=True)
    try:
        pipeline.export(prepared / "out", to, export, **OPTIONS.get(to, {}))
    except DataCheckError as error:
        return {"refused": str(error)}
    except VolprepError as error:
        return {"failed": f"not exported: {error}"}
    report = export.with_name(f"{export.name}.report.json")
    report.unlink(missing_ok=True)
    script = HERE / "acceptance" / f"ask_{target.replace('-', '_')}.py"
    path = {} if checkout is None else {"PYTHONPATH": str(checkout)}
    try:
        done = subprocess.run(
            [python, script, export, prepared / "facts.json", report],
            capture_output=True, text=True, cwd=exports, env={**os.environ, **path},
            timeout=PATIENCE,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return {"failed": f"no answer within {PATIENCE} s"}
    if done.returncode or not report.exists():
        return {"failed": "\n".join((done.stdout + done.stderr).splitlines()[-25:])}
    found: dict[str, Any] = json.loads(report.read_text())
    return found


def row(result: dict[str, Any]) -> list[str]:
    target = result["target"]
    peer = TABLE[VERSIONS.get(target, target)].peer
    if "not tried" in result:
        return [target, peer, "", f"not tried: {result['not tried']}", ""]
    good = [found for found in result["sets"].values() if "asserted" in found]
    bad = [name for name, found in result["sets"].items() if "failed" in found]
    version = ", ".join(sorted({found["version"] for found in good}))
    asserted = list(dict.fromkeys(what for found in good for what in found["asserted"]))
    left = list(dict.fromkeys(what for found in good for what in found["not"]))
    refused = [f"NOT ACCEPTED: {', '.join(bad)}"] if bad else []
    said = [f"{n} not exported, which is said" for n, f in result["sets"].items() if "refused" in f]
    rest = "; ".join([*refused, *said, *left])
    return [target, peer, version, ", ".join(asserted), rest]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("targets", nargs="*", default=[], metavar="TARGET")
    default = Path(tempfile.gettempdir()) / "volprep-accept"
    parser.add_argument("--work", type=Path, default=default, help="where all is written")
    parser.add_argument("--keep", action="store_true", help="keep the environments")
    parser.add_argument(
        "--resume", action="store_true", help="take what WORK/results has, but for failures"
    )
    parser.add_argument("--sets", nargs="+", choices=list(SETS), help="of these alone")
    parser.add_argument(
        "--checkout", action="append", default=[], metavar="TARGET=FOLDER",
        help="the source of a trainer that is not on PyPI; else WORK/source/TARGET",
    )  # fmt: skip
    arguments = parser.parse_args()
    known = [*TABLE, *VERSIONS]
    for target in arguments.targets:
        if target not in known:
            parser.error(f"no target is called {target}; known are {', '.join(known)}")
    pairs = (given.split("=", 1) for given in arguments.checkout)
    checkouts = {target: Path(folder).absolute() for target, folder in pairs}
    targets, sets = arguments.targets or known, arguments.sets or list(SETS)
    work = arguments.work.absolute()
    for target in SOURCES.keys() - checkouts.keys():
        if (work / "source" / target).exists():
            checkouts[target] = work / "source" / target
    for name in sets:
        prepare_set(name, work / "sets" / name)
    rows = []
    for target in targets:
        rows.append(row(accept(target, work, sets, checkouts, resume=arguments.resume)))
        needed = {VERSIONS.get(name, name) for name in targets[len(rows) :]}
        if not arguments.keep and VERSIONS.get(target, target) not in needed:
            shutil.rmtree(work / "env" / VERSIONS.get(target, target), ignore_errors=True)
    head = ["target", "peer", "version", "asserted", "not"]
    print("| " + " | ".join(head) + " |\n|" + "---|" * len(head))
    for cells in rows:
        print("| " + " | ".join(cells) + " |")
    return int(any(cells[4].startswith("NOT") for cells in rows))


if __name__ == "__main__":
    sys.exit(main())
