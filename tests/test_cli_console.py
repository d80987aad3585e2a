"""What the commands print on terminals of any width, into pipes, and where there is nothing."""

from __future__ import annotations

import fcntl
import os
import pty
import signal
import struct
import subprocess
import sys
import termios
from pathlib import Path

import numpy as np
import pytest
import tifffile

from volprep.cli.console import amount, spacing_text

VOLPREP = [sys.executable, "-m", "volprep"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("raw")
    for kind in ("images", "labels"):
        (folder / kind).mkdir()
    for number in range(45):
        rng = np.random.default_rng(number)
        image = rng.integers(0, 99, (4, 16, 16)).astype(np.uint8)
        label = np.zeros((4, 16, 16), np.uint8)
        label[1:3, 4:9, 4:9] = 1
        label[1:3, 10:14, 4:9] = 2
        meta = {"axes": "ZYX", "spacing": 0.3, "unit": "um"}
        for kind, volume in (("images", image), ("labels", label)):
            path = folder / kind / f"long_name_{number}.tif"
            tifffile.imwrite(path, volume, imagej=True, resolution=(10, 10), metadata=meta)
    return folder


def on_a_terminal(columns: int, *args: object, **environment: str) -> tuple[int, str]:
    """Exit code and output of a command that runs on a terminal of so many columns."""
    child, terminal = pty.fork()
    if child == 0:
        os.environ.update({"TERM": "xterm", "COLUMNS": str(columns), **environment})
        fcntl.ioctl(1, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
        os.execv(sys.executable, [*VOLPREP, *map(str, args)])
    text = b""
    while True:
        try:
            part = os.read(terminal, 1 << 16)
        except OSError:  # the child has closed its side
            break
        if not part:
            break
        text += part
    _, status = os.waitpid(child, 0)
    os.close(terminal)
    return os.waitstatus_to_exitcode(status), text.decode().replace("\r", "\n")


@pytest.mark.parametrize("columns", [40, 80, 140])
def test_a_table_fits_a_terminal_of_any_width(data: Path, columns: int) -> None:
    code, text = on_a_terminal(columns, "check", data, NO_COLOR="1", TERM="xterm")
    assert code == 0
    assert "1 x 4 x 16 x 16" in text  # no cell is broken
    assert "long_name_0" in text
    lines = [line for line in text.splitlines() if "\x1b" not in line]
    assert max(map(len, lines)) <= columns
    assert "36 more: --json lists all" in text


def test_colours_stay_away_when_asked(data: Path) -> None:
    for environment in ({"NO_COLOR": "1"}, {"TERM": "dumb"}):
        code, text = on_a_terminal(80, "check", data, **environment)
        assert code == 0
        for colour in range(30, 38):
            assert f"\x1b[{colour}" not in text
    assert "\x1b" not in text, "a terminal that knows nothing gets plain lines"


def test_a_pipe_gets_plain_lines_and_all_of_them(data: Path) -> None:
    done = subprocess.run([*VOLPREP, "check", data], capture_output=True, text=True, check=True)
    table = done.stdout.split("level\t")[0].splitlines()
    assert len(table) == 46
    assert all(line.count("\t") == 7 for line in table)
    assert "check: " in done.stderr


def test_quiet_tells_nothing_but_results(data: Path) -> None:
    for args in (["--quiet", "check", data], ["check", data, "-q"]):
        done = subprocess.run([*VOLPREP, *args], capture_output=True, text=True, check=True)
        assert done.stderr == ""
        assert "long_name_0" in done.stdout
    done = subprocess.run([*VOLPREP, "check", "nowhere", "-q"], capture_output=True, text=True)
    assert done.returncode == 3
    assert done.stderr.startswith("error: ")


@pytest.mark.parametrize("after", [0, 1])
def test_a_reader_that_goes_is_no_traceback(data: Path, after: int) -> None:
    with subprocess.Popen(
        [*VOLPREP, "explain"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        if after:
            process.stdout.readline()
        process.stdout.close()
        assert process.stderr is not None
        told = process.stderr.read().decode()
    assert "Traceback" not in told
    assert "Exception ignored" not in told
    assert process.returncode == 0


def test_work_goes_on_when_nobody_reads_its_progress(data: Path, tmp_path: Path) -> None:
    """A run whose messages are piped into `head` must not end half-way and say that it is fine."""
    out = tmp_path / "out.json"
    with subprocess.Popen(
        [*VOLPREP, "fingerprint", data, "-o", out],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stderr is not None
        process.stderr.close()
    assert process.returncode == 0
    assert out.is_file()


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&-", ">&- 2>&-"])
def test_closed_streams_are_no_fault(data: Path, closed: str) -> None:
    command = f"'{sys.executable}' -m volprep check '{data}' --headers-only {closed}"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr


def test_streams_of_few_letters_get_what_they_can_show(data: Path) -> None:
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    done = subprocess.run([*VOLPREP, "check", data], capture_output=True, env=environment)
    assert done.returncode == 0
    assert b"spacing (um)" in done.stdout
    done = subprocess.run([*VOLPREP, "check", data, "--json"], capture_output=True, env=environment)
    assert done.stdout.isascii()


def test_amounts_are_told_as_people_say_them() -> None:
    said = [amount(1, "cases"), amount(1, "patches"), amount(6_553_600, "voxels")]
    assert said == ["1 case", "1 patch", "6.55 M voxels"]
    assert [amount(n, "bytes") for n in (12, 4096, 1.5e9)] == ["12 B", "4 KiB", "1.4 GiB"]
    assert amount(0.25, "patches") == "0.25 patches"


def test_spacings_are_told_in_a_unit_that_people_use() -> None:
    assert spacing_text((0.05, 0.004, 0.004)) == "50 x 4 x 4 nm"
    assert spacing_text((0.3, 0.1, 0.1)) == "0.3 x 0.1 x 0.1 µm"
    assert spacing_text((3000.0, 700.0, 700.0)) == "3 x 0.7 x 0.7 mm"
    assert spacing_text((3000.0, 0.5, 0.5), micrometres=True) == "3000 x 0.5 x 0.5"


def test_no_letter_of_a_folded_cell_is_lost() -> None:
    code, text = on_a_terminal(80, "explain", NO_COLOR="1")
    assert code == 0
    assert "Where the volumes and labels are." in " ".join(text.split())


def test_a_mapped_file_that_becomes_shorter_is_no_silent_death(tmp_path: Path) -> None:
    (tmp_path / "data/images").mkdir(parents=True)
    np.save(tmp_path / "data/images/a.npy", np.zeros((64, 512, 512), np.uint8))
    code = f"""
import os, sys
from volprep.cli import main
from volprep.sources.array import MappedVolume
read = MappedVolume._read
def shorter(self, box):
    block = read(self, box)
    os.truncate(self.path, 4096)
    return block
MappedVolume._read = shorter
sys.argv = ["volprep", "check", {str(tmp_path / "data")!r}]
main()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == -signal.SIGBUS
    assert "Fatal Python error" in done.stderr  # more where no other thread meets it, too
