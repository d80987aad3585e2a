"""What cannot be read is an error that names the file, whatever the format."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from volprep.errors import SourceError
from volprep.sources import SUFFIXES, list_datasets, open_labels, open_volume
from volprep.sources.base import reading

FILES = sorted(s for s, kind in SUFFIXES.items() if kind != "zarr")


@pytest.mark.parametrize("suffix", sorted(SUFFIXES))
def test_a_missing_file_is_an_error(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"missing{suffix}"
    for use in (open_volume, open_labels, list_datasets):
        with pytest.raises(SourceError, match=r"missing.*: does not exist; check the path"):
            use(path)


@pytest.mark.parametrize("suffix", FILES)
def test_an_empty_file_is_an_error(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"empty{suffix}"
    path.touch()
    with pytest.raises(SourceError, match="empty"):
        open_volume(path)


@pytest.mark.parametrize("suffix", FILES)
@pytest.mark.parametrize("size", [1, 7, 64, 5000])
def test_noise_is_an_error(tmp_path: Path, suffix: str, size: int) -> None:
    path = tmp_path / f"noise{suffix}"
    path.write_bytes(np.random.default_rng(size).bytes(size))
    with pytest.raises(SourceError, match="noise"):
        open_volume(path).read()


@pytest.mark.parametrize("suffix", FILES)
def test_a_folder_in_place_of_a_file_is_an_error(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"folder{suffix}"
    path.mkdir()
    with pytest.raises(SourceError, match="folder"):
        open_volume(path)


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may read everything")
@pytest.mark.parametrize("suffix", FILES)
def test_a_file_that_may_not_be_read_is_an_error(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"locked{suffix}"
    path.write_bytes(b"x" * 1000)
    path.chmod(0)
    with pytest.raises(SourceError, match="locked"):
        open_volume(path)


def test_an_unknown_format_is_an_error_that_lists_the_known(tmp_path: Path) -> None:
    (tmp_path / "a.xyz").write_bytes(b"x")
    with pytest.raises(SourceError, match=r"is of no known format; give one of .*\.h5.*\.tif"):
        open_volume(tmp_path / "a.xyz")


def test_errors_cross_processes_whole() -> None:
    error = SourceError("a.tif", "is cut short", "copy it again")
    assert str(pickle.loads(pickle.dumps(error))) == "a.tif: is cut short; copy it again"


def test_formats_are_loaded_when_they_are_needed() -> None:
    code = (
        "import sys, volprep.sources; heavy = {'zarr', 'h5py', 'tifffile', 'nibabel', 'isal',"
        " 'imagecodecs', 'numcodecs'}; print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (PermissionError(13, "denied"), "may not be read; check its permissions"),
        (MemoryError(), "does not fit into memory"),
        (OSError(5, "Input/output error"), "cannot be read as a volume (OSError"),
        (RuntimeError("odd\nmore"), "(RuntimeError: odd)"),
    ],
)
def test_whatever_goes_wrong_names_the_file(error: Exception, words: str) -> None:
    with pytest.raises(SourceError) as caught, reading("a.tif"):
        raise error
    assert str(caught.value).startswith("a.tif: ")
    assert words in str(caught.value)
    assert caught.value.__cause__ is error


CONTENTS = {
    "web page": b"<!DOCTYPE html>\n<html><body>Sign in</body></html>",
    "Git LFS pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 5\n",
    "PNG picture": b"\x89PNG\r\n\x1a\n" + bytes(50),
    "JPEG picture": b"\xff\xd8\xff\xe0" + bytes(50),
    "HDF5 file": b"\x89HDF\r\n\x1a\n" + bytes(50),
    "TIFF file": b"II*\0" + bytes(50),
    "gzipped file": b"\x1f\x8b\x08" + bytes(50),
    "zip archive": b"PK\x03\x04" + bytes(50),
    "nothing but zeros": bytes(5000),
    "XML text": b"<?xml version='1.0'?><a/>",
    "text": b"Please find the data on the server.\n",
    "is empty": b"",
}
KINDS = {
    ".tif": "TIFF file", ".png": "PNG picture", ".h5": "HDF5 file", ".nii.gz": "gzipped file",
    ".nii": "gzipped file", ".npz": "zip archive", ".npy": "zip archive",
}  # fmt: skip


@pytest.mark.parametrize("suffix", sorted(KINDS))
@pytest.mark.parametrize("what", sorted(CONTENTS))
def test_a_file_that_is_something_else_says_what_it_is(
    tmp_path: Path, suffix: str, what: str
) -> None:
    path = tmp_path / f"a{suffix}"
    path.write_bytes(CONTENTS[what])
    own = KINDS[suffix] == what or (suffix == ".png" and what == "JPEG picture")
    for use in (open_volume, open_labels):
        with pytest.raises(SourceError, match=f"a{suffix}" if own else what):
            use(path)


@pytest.mark.parametrize("what", ["web page", "Git LFS pointer", "is empty", "HDF5 file"])
def test_a_slice_that_is_something_else_says_what_it_is(tmp_path: Path, what: str) -> None:
    (tmp_path / "0.png").write_bytes(CONTENTS[what])
    with pytest.raises(SourceError, match=rf"0\.png.*{what}"):
        open_volume(tmp_path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes on this system")
@pytest.mark.parametrize("suffix", [*FILES, ".zarr", ""])
def test_pipes_sockets_and_links_to_nowhere_are_named_and_nothing_waits(
    tmp_path: Path, suffix: str
) -> None:
    os.mkfifo(tmp_path / f"pipe{suffix}")
    (tmp_path / f"loop{suffix}").symlink_to(f"loop{suffix}")
    (tmp_path / f"gone{suffix}").symlink_to("nothing")
    (tmp_path / "file").touch()
    told = {
        f"pipe{suffix}": "is a named pipe",
        f"loop{suffix}": "a link that leads back to itself",
        f"gone{suffix}": "is a link to nothing, which is not there",
        f"file/a{suffix}": "a part of its path is a file",
        f"{'x' * 300}{suffix}": "File name too long",
        f"a\0{suffix}": "is no path that a file can have",
    }
    for name, words in told.items():
        for use in (open_volume, open_labels, list_datasets):
            with pytest.raises(SourceError, match=words):
                use(tmp_path / name)
    with pytest.raises(SourceError, match="is a device"):
        open_volume("/dev/null")


SNIFFED = [
    ("a.tif", b"NRRD0004\ntype: uint8\n", "is a NRRD file"),
    ("a.tif", b"ObjectType = Image\nNDims = 3\n", "is a MetaImage file"),
    ("a.h5", b"ZISRAWFILE" + bytes(99), "is a Zeiss CZI file"),
    ("a.nii", b"\xda\xce\xbe\x0a" + bytes(999), "is a Nikon ND2 file"),
    ("a.png", bytes(range(1, 209)) + b"MAP " + bytes(900), "is an MRC file"),
    ("a.npy", b"PK\x03\x04" + bytes(99), "is a zip archive"),
    ("a.npz", b"\x93NUMPY" + bytes(99), "is a NumPy file"),
    ("a.mha", b"<!DOCTYPE html><html>", "is a web page"),
    ("a.nrrd", b"<!DOCTYPE html><html>", "is a web page"),
    ("a.json", b'<?xml version="1.0"?><Error/>', "is XML text"),
]


@pytest.mark.parametrize(("name", "content", "words"), SNIFFED)
def test_content_of_newer_formats_is_known_behind_any_suffix(
    tmp_path: Path, name: str, content: bytes, words: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(SourceError, match=words):
        open_volume(tmp_path / name)


NRRD = "NRRD0004\ntype: uint8\ndimension: 3\nsizes: 4 5 6\nencoding: raw\n"
NRRD_SAYS = [
    (NRRD + "line skip: 99999999999\n", "is cut short"),
    (NRRD + "byte skip: -9\n", "byte skip = -9"),
    (NRRD + "data file: nothing.raw\n", "nothing.raw, which is not there"),
    (NRRD.replace("uint8", "banana"), "holds banana"),
    (NRRD.replace("uint8", "float128"), "holds float128"),
    (NRRD.replace("4 5 6", "4 5"), "sizes = "),
    (NRRD.replace("4 5 6", "-4 5 6"), "sizes = "),
    (NRRD.replace("NRRD0004", "NRRD0009"), "header cannot be used"),
    (NRRD + 'spacings: 1 1\nunits: "um" "um"\n', "spacings"),
]


@pytest.mark.parametrize(("header", "words"), NRRD_SAYS)
def test_nrrd_headers_that_cannot_be_are_named(tmp_path: Path, header: str, words: str) -> None:
    pytest.importorskip("nrrd")
    (tmp_path / "a.nrrd").write_bytes(f"{header}\n".encode() + bytes(120))
    with pytest.raises(SourceError) as caught:
        open_volume(tmp_path / "a.nrrd").read()
    assert words in str(caught.value)
    assert "damaged" not in str(caught.value)


@pytest.mark.parametrize("spacings", ["0 1 1", "-1 1 1", "nan 1 1"])
def test_nrrd_spacings_that_are_no_lengths_are_told_and_never_repaired(
    tmp_path: Path, spacings: str
) -> None:
    pytest.importorskip("nrrd")
    text = f'{NRRD}spacings: {spacings}\nunits: "um" "um" "um"\n\n'
    (tmp_path / "a.nrrd").write_bytes(text.encode() + bytes(120))
    volume = open_volume(tmp_path / "a.nrrd")
    assert volume.spacing is None
    assert [note.name for note in volume.notes] == ["spacing-unread"]


@pytest.mark.parametrize("sizes", ["4 5 6", "1000000 1000000 1000000"])
def test_metaimages_that_promise_more_than_they_hold_are_cut_short(
    tmp_path: Path, sizes: str
) -> None:
    pytest.importorskip("SimpleITK")
    for packed in ("True", "False"):
        (tmp_path / "a.mha").write_text(
            f"ObjectType = Image\nNDims = 3\nBinaryData = True\nCompressedData = {packed}\n"
            f"DimSize = {sizes}\nElementType = MET_DOUBLE\nElementDataFile = LOCAL\n"
        )
        with pytest.raises(SourceError, match="is cut short"):
            open_volume(tmp_path / "a.mha")
