"""The folder layouts people have, each a function that recognises its own.

A layout takes one `Search` and returns the cases it sees, or None where the
folder is not of its kind; `LAYOUTS` lists them in the order in which they are
tried. Where two readings are possible, the error names both and the option
that chooses between them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from volprep.cases.case import Case, Cases
from volprep.cases.naming import (
    Roles,
    by_stem,
    entries_in,
    holds_datasets,
    is_image_dir,
    is_label_dir,
    is_mask_dir,
    partner_stems,
    skeletons_in,
    stem,
    subfolders_of,
    volumes_in,
)
from volprep.cases.nnunet import nnunet
from volprep.cases.search import Search, left_alone, orphans, some, unlabelled
from volprep.cases.stacks import is_stack
from volprep.errors import SourceError
from volprep.findings import Finding
from volprep.sources import (
    is_image_key,
    is_label_key,
    is_volume_folder,
    is_volume_path,
    list_datasets,
)

__all__ = ["LAYOUTS", "advice", "one_file"]


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
    beside = left_alone(search.root, [images, labels, masks, search.root / "skeletons"])
    stack, told = is_stack(images, labels, search)
    if stack:
        points = next(iter(skeletons.values()), None)
        case = Case(
            search.root.resolve().name,
            (search.image(images),),
            search.label(_whole(labels)),
            search.mask(_whole(masks)),
            points,
        )
        told += unlabelled([case], search.root)
        return Cases((case,), "folders", reason, (*told, *beside))
    pictures = by_stem(entries_in(images))
    truths, valid = by_stem(entries_in(labels)), by_stem(entries_in(masks))
    partners = partner_stems(pictures, truths, search.roles)
    masked = partner_stems(pictures, valid, search.roles)
    items = tuple(
        Case(
            name,
            (search.image(path),),
            search.label(truths.get(partners.get(name, ""))),
            search.mask(valid.get(masked.get(name, ""))),
            skeletons.get(name),
        )
        for name, path in pictures.items()
    )
    taken = set(partners.values())
    alone = {name: path for name, path in truths.items() if name not in taken}
    if alone and not partners:
        raise SourceError(
            next(iter(alone.values())).parent,
            f"no label has the name of an image ({some(alone)}; images: {some(pictures)})",
            f"name labels like their images in {images.name}/, say what their names end in with "
            "`label_suffix` and `image_suffix`, or list the cases by hand",
        )
    findings = [*told, *unlabelled(items, images), *beside]
    findings += orphans(alone, labels or search.root)
    return Cases(items, "folders", reason, tuple(findings))


def containers(search: Search) -> Cases | None:
    """HDF5 files or Zarr stores that hold an image and its label each (OME-Zarr included)."""
    found = [path for path in volumes_in(search.root) if holds_datasets(path)]
    items, findings = [], list[Finding]()
    for path in found:
        case, told = _container_case(search, path)
        findings += told
        if case is None:
            findings.append(
                Finding(
                    "file-left-out",
                    f"left out: it holds {_datasets(path)}, and none is called as images are",
                    todo="choose with `image_key`",
                    path=path,
                )
            )
        else:
            items.append(case)
    if not any(case.label for case in items):
        return None
    kinds = " and ".join(sorted({path.suffix or "Zarr" for path in found}))
    reason = f"{kinds} with image and label inside"
    findings += unlabelled(items, search.root)
    others = [path for path in volumes_in(search.root) if path not in found]
    findings += _unused(others, search.root)
    return Cases(tuple(items), "containers", reason, tuple(findings))


def suffix(search: Search) -> Cases | None:
    """``X.tif`` + ``X.labels.tif`` (+ ``X.skeletons.*``), ``X_img`` + ``X_masks``, ``mask_X``."""
    items, findings = _pair_by_role(search, volumes_in(search.root))
    if not any(case.label for case in items):
        return None
    reason = "files named X and X.labels (or X_img and X_mask, ...)"
    findings += [*unlabelled(items, search.root), *left_alone(search.root, [search.root])]
    return Cases(tuple(items), "suffix", reason, tuple(findings))


def images(search: Search) -> Cases | None:
    """Images alone: files, one stack of slices, or a folder that holds one stack of slices."""
    root = search.root
    paths = volumes_in(root)
    below = [folder for folder in subfolders_of(root) if entries_in(folder)]
    if not paths and len(below) == 1 and is_stack(below[0], None, search)[0]:
        root, paths = below[0], volumes_in(below[0])
    if not paths:
        return None
    _refuse_labels_alone(root, paths, search)
    stack, told = is_stack(root, None, search)
    if stack:
        items = [Case(search.root.resolve().name, (search.image(root),))]
        reason = "a folder of slices"
    else:
        items, told = _pair_by_role(search, paths)
        reason = "image files without labels"
    told += [*unlabelled(items, root), *left_alone(search.root, [root], files=False)]
    return Cases(tuple(items), "images", reason, tuple(told))


def _refuse_labels_alone(root: Path, paths: Sequence[Path], search: Search) -> None:
    """Labels that lie without images are never taken for images."""
    named = [path for path in paths if search.roles.of(stem(path))[1] == "label"]
    where = root.resolve()
    images_beside = any(is_image_dir(folder.name) for folder in subfolders_of(where.parent))
    # A data set may be called "segmentation of ..."; a folder beside images/ is none.
    labels = is_label_dir(where.name) and (where.name.isalpha() or images_beside)
    if labels or len(named) == len(paths):
        what = f"{where.name}/ is" if labels else f"{some(p.name for p in named)}: are"
        raise SourceError(
            root,
            f"{what} called as labels are, and there is no image",
            "give the folder that holds images and labels, or, if these are images, list them by "
            "hand as `image:`",
        )


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
    if path.is_dir() and not is_volume_folder(path):
        return None
    if not is_volume_path(path):
        raise SourceError(path, "not a volume", "give a TIFF, NIfTI, HDF5, Zarr, .npy or PNG")
    if holds_datasets(path):
        case, told = _container_case(search, path)
        if case is None:
            raise SourceError(path, f"holds {_datasets(path)}", "choose with `image_key`")
        return Cases((case,), "file", "one file", (*told, *unlabelled([case], path)))
    beside, _ = _pair_by_role(replace(search, root=path.parent), _related(path, search))
    # Whoever points at a label means its case; an image in no pair is a case of its own.
    own = [each for each in beside if path in each.paths()]
    if not own and search.roles.of(stem(path))[1] == "label":
        raise SourceError(
            path,
            "is called as labels are, and there is no image beside it",
            "give the image, or, if this is one, list it by hand as `image:`",
        )
    items = tuple(own[:1]) or (Case(stem(path), (search.image(path),)),)
    return Cases(items, "file", "one file", tuple(unlabelled(items, path)))


def advice(search: Search) -> str:
    """What to do about a folder in no known layout."""
    below = [
        folder.name
        for folder in subfolders_of(search.root)
        if any(is_label_dir(f.name) for f in subfolders_of(folder))
        and any(is_image_dir(f.name) for f in subfolders_of(folder))
    ]
    empty = [f.name for f in subfolders_of(search.root) if is_image_dir(f.name)]
    if empty:
        return f"{empty[0]}/ holds no volume that can be read: put the images there"
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


def _container_case(search: Search, path: Path) -> tuple[Case | None, list[Finding]]:
    """The image and label that a file's dataset names tell; None where no image is told.

    A file that cannot be read stays a case, so that `check` reports it with the others.
    """
    try:
        held = list_datasets(path, allow_external=search.allow_external)
        keys = [key for key, shape, _ in held if len(shape) >= 2]
    except SourceError:
        return Case(stem(path), (search.image(path),), search.label(path)), []
    image = _one_key(path, [key for key in keys if is_image_key(key)], search.image_key, "image")
    others = [key for key in keys if not is_label_key(key)]
    if image is None and len(others) == 1:
        image = others[0]
    label = _one_key(path, [key for key in keys if is_label_key(key)], search.label_key, "label")
    if image is None:
        return None, []
    skeletons = skeletons_in([path.parent]).get(stem(path))
    mask = search.mask(path if search.mask_key else None)
    label_ref = search.label(path, label) if label else None
    case = Case(stem(path), (search.image(path, image),), label_ref, mask, skeletons)
    used = {key.strip("/") for key in (image, label, search.mask_key) if key is not None}
    idle = [key for key in keys if key not in used and not _is_level(key, used)]
    told = [] if not idle else [
        Finding(
            "siblings-unused",
            f"datasets that are not used: {some(idle)}",
            todo="choose others with `image_key`, `label_key` and `mask_key`",
            case=case.name,
            path=path,
        )
    ]  # fmt: skip
    return case, told


def _is_level(key: str, used: set[str]) -> bool:
    """Whether a dataset is another resolution of one that is used, as in OME-Zarr."""
    head, _, last = key.rpartition("/")
    return last.isdigit() and any(u.rpartition("/")[0] == head and u[-1:].isdigit() for u in used)


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


def _pair_by_role(search: Search, paths: Sequence[Path]) -> tuple[list[Case], list[Finding]]:
    """Cases of files whose names end in the word for their role, and what is left out."""
    names = {path: stem(path) for path in paths}
    roles = {path: search.roles.of(name) for path, name in names.items()}
    bases = {base for base, role in roles.values() if role == "image"}
    labels: dict[str, list[Path]] = {}
    masks: dict[str, Path] = {}
    for path, (base, role) in roles.items():
        if role == "label":
            labels.setdefault(base, []).append(path)
        elif role == "mask":
            masks[base] = path
    alone = {base: files[0] for base, files in labels.items() if base not in bases}
    skeletons = skeletons_in([search.root])
    items = [
        Case(
            base if base in labels else names[path],
            (search.image(path),),
            search.label(_only_label(path, labels.get(base, []))),
            search.mask(masks.get(base)),
            skeletons.get(base),
        )
        for path, (base, role) in roles.items()
        if role == "image"
    ]
    others = [path for path, (_, role) in roles.items() if role == "other"]
    return items, [*orphans(alone, search.root), *_unused(others, search.root)]


def _unused(paths: Sequence[Path], root: Path) -> list[Finding]:
    if not paths:
        return []
    todo = "name them as images or labels are, or list the cases by hand"
    return [
        Finding("siblings-unused", f"not used: {some(p.name for p in paths)}", todo=todo, path=root)
    ]


def _related(path: Path, search: Search) -> list[Path]:
    """The volumes beside `path` that are named after the same thing."""
    base = search.roles.base(stem(path))
    return [p for p in volumes_in(path.parent) if search.roles.base(stem(p)) == base]


def _only_label(image: Path, found: Sequence[Path]) -> Path | None:
    if len(found) > 1:
        names = ", ".join(path.name for path in found)
        raise SourceError(
            image,
            f"{len(found)} files may be its label: {names}",
            f"choose one kind with `label_dir: {Roles.label_word(stem(found[0]))}`",
        )
    return found[0] if found else None


def _whole(folder: Path | None) -> Path | None:
    """The one volume in a folder, or the folder itself as a stack of slices."""
    found = volumes_in(folder)
    return found[0] if len(found) == 1 else folder
