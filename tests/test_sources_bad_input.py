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
