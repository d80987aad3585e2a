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
    (tmp_path / "a.czi").write_bytes(b"x")
    with pytest.raises(SourceError, match=r"is of no known format; give one of .*\.h5.*\.tif"):
        open_volume(tmp_path / "a.czi")


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
