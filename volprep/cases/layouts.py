"""The folder layouts people have, each a function that recognises its own.

A layout takes one `Search` and returns the cases it sees, or None where the
folder is not of its kind; `LAYOUTS` lists them in the order in which they are
tried. Where two readings are possible, the error names both and the option
that chooses between them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from volprep.cases.case import Case, Cases, FileRef
from volprep.cases.naming import (
    PLANE_SUFFIXES,
    bare_stem,
    by_stem,
    channel_of,
    entries_in,
    holds_datasets,
    is_image_dir,
    is_image_key,
    is_label_dir,
    is_label_key,
    is_mask_dir,
    label_word,
    partner_stems,
    role_of,
    runs,
    skeletons_in,
    subfolders_of,
    volumes_in,
)
from volprep.errors import SourceError
from volprep.sources import is_volume_path, list_datasets, open_volume, stem_of
from volprep.sources.names import is_zarr

__all__ = ["LAYOUTS", "Search", "advice", "one_file"]


@dataclass(frozen=True, slots=True)
class Search:
    """Where to look, and what the user has decided already (see `find_cases`)."""

    root: Path
    image_dir: str | None = None
    label_dir: str | None = None
    mask_dir: str | None = None
    image_key: str | None = None
    label_key: str | None = None
    mask_key: str | None = None
    axes: str | None = None
    label_axes: str | None = None
    slices: bool | None = None

    def image(self, path: Path, key: str | None = None) -> FileRef:
        """An image file with the options that go with it."""
        return FileRef(path, key or self.image_key, self.axes)

    def label(self, path: Path | None, key: str | None = None) -> FileRef | None:
        """A label file with the options that go with it."""
        return None if path is None else FileRef(path, key or self.label_key, self.label_axes)

    def mask(self, path: Path | None, key: str | None = None) -> FileRef | None:
        """A valid mask with the options that go with it."""
        return None if path is None else FileRef(path, key or self.mask_key, self.label_axes)


def nnunet(search: Search) -> Cases | None:
    """``imagesTr/CASE_0000.*`` with one file a channel, ``labelsTr/CASE.*``, ``dataset.json``."""
    channels: dict[str, dict[int, Path]] = {}
    for path in volumes_in(search.root / "imagesTr"):
        named = channel_of(path)
        if named is None:
            return None
        channels.setdefault(named[0], {})[named[1]] = path
    if not channels:
        return None
    stated = _stated_channels(search.root)
    count = stated or max(len(paths) for paths in channels.values())
    labels = by_stem(volumes_in(search.root / "labelsTr"))
    items = [
        Case(name, _all_channels(search, name, paths, count), search.label(labels.pop(name, None)))
        for name, paths in channels.items()
    ]
    notices = [*_unlabelled(items), *_orphans(labels)]
    if stated is None:
        notices.append("dataset.json does not name the channels: counted from the file names")
    if (search.root / "imagesTs").is_dir():
        notices.append("imagesTs/: test images are left alone")
    return Cases(tuple(items), "nnunet", "imagesTr/CASE_0000.* + labelsTr/", tuple(notices))


def folders(search: Search) -> Cases | None:
    """``images/`` beside ``labels/`` (``masks/``, ``annotation_*/``, ...), paired by stem."""
    images = _image_dir(search)
    if images is None:
        return None
    if not entries_in(images):
        if search.image_dir is None:
            return None
        raise SourceError(images, "holds no volume", "`image_dir` names a folder of images")
    labels, masks = _label_dir(search, images), _mask_dir(search, images)
    reason = " + ".join(f"{folder.name}/" for folder in (images, labels, masks) if folder)
    skeletons = skeletons_in([images, labels, search.root / "skeletons"])
    stack, why = _is_stack(images, labels, search)
    if stack:
        points = next(iter(skeletons.values()), None)
        case = Case(
            search.root.resolve().name,
            (search.image(images),),
            search.label(_whole(labels)),
            search.mask(_whole(masks)),
            points,
        )
        return Cases((case,), "folders", reason, (why,))
    pictures = by_stem(entries_in(images))
    truths, valid = by_stem(entries_in(labels)), by_stem(entries_in(masks))
    partners = partner_stems(pictures, truths)
    items = tuple(
        Case(
            stem,
            (search.image(path),),
            search.label(truths.get(partners.get(stem, ""))),
            search.mask(valid.get(stem)),
            skeletons.get(stem),
        )
        for stem, path in pictures.items()
    )
    orphans = {stem: path for stem, path in truths.items() if stem not in partners.values()}
    if orphans and not partners:
        raise SourceError(
            next(iter(orphans.values())).parent,
            f"no label has the name of an image ({_some(orphans)}; images: {_some(pictures)})",
            f"name labels like their images in {images.name}/, or list the cases by hand",
        )
    notices = [*([why] if why else []), *_unlabelled(items), *_orphans(orphans)]
    return Cases(items, "folders", reason, tuple(notices))


def containers(search: Search) -> Cases | None:
    """HDF5 files or Zarr stores that hold an image and its label each (OME-Zarr included)."""
    found = [path for path in volumes_in(search.root) if holds_datasets(path)]
    items, notices = [], []
    for path in found:
        case = _container_case(search, path)
        if case is None:
            notices.append(f"{path.name}: left out, it holds no image that its names tell")
        else:
            items.append(case)
    if not any(case.label for case in items):
        return None
    kinds = " and ".join(sorted({path.suffix or "Zarr" for path in found}))
    reason = f"{kinds} with image and label inside"
    return Cases(tuple(items), "containers", reason, (*notices, *_unlabelled(items)))


def suffix(search: Search) -> Cases | None:
    """``X.tif`` + ``X.labels.tif`` (+ ``X.skeletons.*``), ``X_img`` + ``X_masks``, ``mask_X``."""
    items, notices = _pair_by_role(search, volumes_in(search.root))
    if not any(case.label for case in items):
        return None
    reason = "files named X and X.labels (or X_img and X_mask, ...)"
    return Cases(tuple(items), "suffix", reason, (*notices, *_unlabelled(items)))


def images(search: Search) -> Cases | None:
    """Images alone: files, one stack of slices, or a folder of slices each."""
    paths = volumes_in(search.root)
    stack, why = _is_stack(search.root, None, search) if paths else (False, "")
    if stack:
        case = Case(search.root.resolve().name, (search.image(search.root),))
        return Cases((case,), "images", "a folder of slices", (why, *_unlabelled([case])))
    if not paths:
        return None
    items, notices = _pair_by_role(search, paths)
    reason = "image files without labels"
    return Cases(tuple(items), "images", reason, (*notices, *_unlabelled(items)))


#: Every layout by its name, in the order in which they are tried.
LAYOUTS: dict[str, Callable[[Search], Cases | None]] = {
    "nnunet": nnunet,
    "folders": folders,
    "containers": containers,
    "suffix": suffix,
    "images": images,
}


def one_file(search: Search) -> Cases | None:
    """A single file or Zarr store: its own label inside, or a label file beside it."""
    path = search.root
    if path.is_dir() and not is_zarr(path):
        return None
    if not is_volume_path(path):
        raise SourceError(path, "not a volume", "give a TIFF, NIfTI, HDF5, Zarr, .npy or PNG")
    if holds_datasets(path):
        case = _container_case(search, path)
        if case is None:
            raise SourceError(path, f"holds {_datasets(path)}", "choose with `image_key`")
        return Cases((case,), "file", "one file", tuple(_unlabelled([case])))
    beside, _ = _pair_by_role(replace(search, root=path.parent), _related(path))
    alone = Case(stem_of(path), (search.image(path),))
    case = next((each for each in beside if each.image.path == path), alone)
    return Cases((case,), "file", "one file", tuple(_unlabelled([case])))


def advice(search: Search) -> str:
    """What to do about a folder in no known layout."""
    below = [
        folder.name
        for folder in subfolders_of(search.root)
        if any(is_label_dir(f.name) for f in subfolders_of(folder))
        and any(is_image_dir(f.name) for f in subfolders_of(folder))
    ]
    if below:
        return f"point at one of the folders that hold images/ and labels/: {', '.join(below)}"
    labels = [folder.name for folder in subfolders_of(search.root) if is_label_dir(folder.name)]
    if labels:
        return (
            f"{', '.join(labels)} may hold labels, but no folder is called images: name it with "
            "`image_dir` (a path such as ../raw works too), or list the cases by hand"
        )
    return (
        "wanted images/ + labels/, X.tif + X.labels.tif, imagesTr/ + labelsTr/, HDF5 or Zarr with "
        "raw and label, or image files; else name the folders with `image_dir` and `label_dir`, "
        "or list the cases by hand"
    )


def _stated_channels(root: Path) -> int | None:
    path = root / "dataset.json"
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SourceError(path, f"cannot be read as JSON ({error})", "mend or remove it") from error
    names = content.get("channel_names") or content.get("modality")
    return len(names) if names else None


def _all_channels(
    search: Search, name: str, paths: dict[int, Path], count: int
) -> tuple[FileRef, ...]:
    if sorted(paths) != list(range(count)):
        numbers = ", ".join(f"_{channel:04d}" for channel in sorted(paths))
        raise SourceError(
            search.root / "imagesTr" / name,
            f"has the channels {numbers}",
            f"each case needs all {count}, from _0000 to _{count - 1:04d}",
        )
    return tuple(search.image(paths[channel]) for channel in range(count))


def _image_dir(search: Search) -> Path | None:
    if search.image_dir is not None:
        return _chosen(search.root, search.image_dir, "image_dir")
    found = [folder for folder in subfolders_of(search.root) if is_image_dir(folder.name)]
    return _only(search.root, found, "images", "image_dir")


def _label_dir(search: Search, images: Path) -> Path | None:
    if search.label_dir is not None:
        return _chosen(search.root, search.label_dir, "label_dir")
    found = [
        folder
        for folder in subfolders_of(search.root)
        if folder not in (images, search.root / (search.mask_dir or "."))
        and is_label_dir(folder.name)
        and entries_in(folder)
    ]
    return _only(search.root, found, "labels", "label_dir")


def _mask_dir(search: Search, images: Path) -> Path | None:
    if search.mask_dir is not None:
        return _chosen(search.root, search.mask_dir, "mask_dir")
    found = [
        folder
        for folder in subfolders_of(search.root)
        if folder not in (images, search.root / (search.label_dir or "."))
        and is_mask_dir(folder.name)
    ]
    return _only(search.root, found, "valid masks", "mask_dir")


def _chosen(root: Path, name: str, option: str) -> Path:
    folder = root / name
    if not folder.is_dir():
        names = ", ".join(path.name for path in subfolders_of(root)) or "none"
        raise SourceError(folder, "no such folder", f"`{option}` names one of: {names}")
    return folder


def _only(root: Path, found: Sequence[Path], what: str, option: str) -> Path | None:
    if len(found) > 1:
        names = ", ".join(folder.name for folder in found)
        raise SourceError(
            root,
            f"{len(found)} folders may hold the {what}: {names}",
            f"choose one with `{option}: {found[0].name}`",
        )
    return found[0] if found else None


def _is_stack(images: Path, labels: Path | None, search: Search) -> tuple[bool, str]:
    """Whether the files of a folder are the planes of one volume, and the notice that says so."""
    if search.slices is not None:
        option = f"slices: {str(search.slices).lower()}"
        return search.slices, f"{images.name}/: read as `{option}` says"
    files = volumes_in(images)
    beside = volumes_in(labels)
    if len(files) < 2 or not all(path.suffix.lower() in PLANE_SUFFIXES for path in files):
        return False, ""
    if len(files) >= 3 and runs(files):
        why = "with running numbers"
    elif len(beside) == 1:
        why = f"beside one label volume, {beside[0].name},"
    else:
        return False, ""
    plane = _plane(files[0])
    if plane is None or any(_plane(path) != plane for path in files[1:]):
        return False, ""
    size = "x".join(str(n) for n in plane)
    return True, (
        f"{images.name}/: {len(files)} {files[0].suffix[1:].upper()} of {size} {why} "
        "read as one stack; set `slices: false` for separate images"
    )


def _plane(path: Path) -> tuple[int, int] | None:
    """(Y, X) of a file that holds one plane, else None."""
    try:
        _, z, y, x = open_volume(path).shape
    except SourceError:
        return None
    return (y, x) if z == 1 else None


def _container_case(search: Search, path: Path) -> Case | None:
    """The image and label that a file's dataset names tell; None where no image is told.

    A file that cannot be read stays a case, so that `check` reports it with the others.
    """
    try:
        keys = [key for key, shape, _ in list_datasets(path) if len(shape) >= 2]
    except SourceError:
        return Case(stem_of(path), (search.image(path),), search.label(path))
    image = _one_key(path, [key for key in keys if is_image_key(key)], search.image_key, "image")
    others = [key for key in keys if not is_label_key(key)]
    if image is None and len(others) == 1:
        image = others[0]
    label = _one_key(path, [key for key in keys if is_label_key(key)], search.label_key, "label")
    if image is None:
        return None
    skeletons = skeletons_in([path.parent]).get(stem_of(path))
    mask = search.mask(path if search.mask_key else None)
    label_ref = search.label(path, label) if label else None
    return Case(stem_of(path), (search.image(path, image),), label_ref, mask, skeletons)


def _one_key(path: Path, found: list[str], given: str | None, what: str) -> str | None:
    if given is not None:
        return given
    if len(found) > 1:
        raise SourceError(
            path,
            f"{len(found)} datasets may be the {what}: {', '.join(found)}",
            f"choose one with `{what}_key: {found[0]}`",
        )
    return found[0] if found else None


def _datasets(path: Path) -> str:
    return ", ".join(f"{key} {shape}" for key, shape, _ in list_datasets(path)) or "no dataset"


def _pair_by_role(search: Search, paths: Sequence[Path]) -> tuple[list[Case], list[str]]:
    """Cases of files whose names end in the word for their role, and notices."""
    word = search.label_dir.lstrip("._ -") if search.label_dir else None
    roles = {path: role_of(path, word) for path in paths}
    bases = {base for base, role in roles.values() if role == "image"}
    labels: dict[str, list[Path]] = {}
    masks: dict[str, Path] = {}
    for path, (base, role) in roles.items():
        if role == "label":
            labels.setdefault(base, []).append(path)
        elif role == "mask":
            masks[base] = path
    orphans = {base: files[0] for base, files in labels.items() if base not in bases}
    skeletons = skeletons_in([search.root])
    items = [
        Case(
            base if base in labels else stem_of(path),
            (search.image(path),),
            search.label(_only_label(path, labels.get(base, []))),
            search.mask(masks.get(base)),
            skeletons.get(base),
        )
        for path, (base, role) in roles.items()
        if role == "image"
    ]
    return items, _orphans(orphans)


def _related(path: Path) -> list[Path]:
    """The volumes beside `path` that are named after the same thing."""
    base = bare_stem(stem_of(path))
    return [other for other in volumes_in(path.parent) if bare_stem(stem_of(other)) == base]


def _only_label(image: Path, found: Sequence[Path]) -> Path | None:
    if len(found) > 1:
        names = ", ".join(path.name for path in found)
        raise SourceError(
            image,
            f"{len(found)} files may be its label: {names}",
            f"choose one kind with `label_dir: {label_word(stem_of(found[0]))}`",
        )
    return found[0] if found else None


def _whole(folder: Path | None) -> Path | None:
    """The one volume in a folder, or the folder itself as a stack of slices."""
    found = volumes_in(folder)
    return found[0] if len(found) == 1 else folder


def _unlabelled(items: Sequence[Case]) -> list[str]:
    names = [case.name for case in items if case.label is None]
    if not names:
        return []
    return [f"{len(names)} of {len(items)} images have no label: {_some(names)}"]


def _orphans(labels: dict[str, Path]) -> list[str]:
    if not labels:
        return []
    return [f"{len(labels)} labels have no image and are left out: {_some(labels)}"]


def _some(names: Iterable[str]) -> str:
    listed = list(names)
    return ", ".join(listed[:3]) + (", ..." if len(listed) > 3 else "")
