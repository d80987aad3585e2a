"""What the scripts of all trainers share; it runs in their environments, with NumPy alone."""

from __future__ import annotations

import importlib
import json
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np


class Asking:
    """What is known of a set, and what the trainer's own code has been found to agree with.

    Attributes
    ----------
    export : Path
    cases : dict of str to dict
        By the name of the export: side, shape, spacing (z, y, x), ids; and at `points` (z, y, x)
        drawn at random: image (a value for each channel), label, valid.
    training : dict
        Of the set's ``train.yaml``.
    """

    def __init__(self, peer: str, *, given: str = "") -> None:
        self.export, facts, self._report = (Path(given) for given in sys.argv[1:4])
        content = json.loads(facts.read_text())
        self.cases, self.training = content["cases"], content["training"]
        self._version = version(peer) if peer else given
        self._asserted: list[str] = []
        self._not: list[str] = []

    @property
    def flat(self) -> bool:
        """Whether all are 2D images."""
        return all(case["shape"][0] == 1 for case in self.cases.values())

    def script(self, name: str) -> Any:
        """A Python module that the export brings along."""
        if str(self.export) not in sys.path:
            sys.path.insert(0, str(self.export))
        return importlib.import_module(name)

    def names(self, side: str) -> list[str]:
        """The cases of a side, sorted."""
        return sorted(name for name, case in self.cases.items() if case["side"] == side)

    def same(self, what: str, found: Any, wanted: Any) -> None:
        """Assert that two plain values, or arrays, are equal."""
        same = np.array_equal(np.asarray(found), np.asarray(wanted))
        if not same:
            raise AssertionError(f"{what}: found {found!r}, wanted {wanted!r}")
        self.asserted(what)

    def near(self, what: str, found: Any, wanted: Any, tolerance: float = 1e-4) -> None:
        """Assert that numbers are equal but for rounding."""
        np.testing.assert_allclose(
            np.asarray(found, float), np.asarray(wanted, float), rtol=tolerance, atol=tolerance,
            err_msg=what,
        )  # fmt: skip
        self.asserted(what)

    def voxels(self, name: str, image: Any) -> None:
        """Assert that an image (C, Z, Y, X) has our voxels, and so our axes."""
        case, array = self.cases[name], np.asarray(image)
        self.same("axes", array.shape, (self.training["n_channels"], *case["shape"]))
        found = array[(slice(None), *np.transpose(case["points"]))].T
        self.same("voxels", found.astype(float), np.asarray(case["image"], float))

    def labels(self, name: str, label: Any, *, table: Path | None = None, ignore: Any = 0) -> None:
        """Assert that labels (Z, Y, X) have our ids, by the table where they are renumbered."""
        case, found = self.cases[name], np.asarray(label).astype(np.int64)
        if table is not None and table.exists():
            rows = np.loadtxt(table, delimiter=",", skiprows=1, dtype=np.int64, ndmin=2)
            back = np.zeros(rows[:, 0].max() + 1, np.int64)
            back[rows[:, 0]] = rows[:, 1]
            found = back[found]
        self._compare(case, found, np.asarray(case["label"]), ignore)
        ids = sorted({int(n) for n in np.unique(found)} - {ignore, 0})
        self.same("ids", ids, [n for n in case["ids"] if n])

    def classes(self, name: str, label: Any, *, ignore: Any, first: int = 0) -> None:
        """Assert that labels (Z, Y, X) have our classes from 0, or of instances one class."""
        case, values = self.cases[name], self.training["class_values"]
        wanted = np.asarray(case["label"])
        wanted = (wanted > 0).astype(int) if values is None else np.searchsorted(values, wanted)
        self._compare(case, np.asarray(label).astype(np.int64), wanted + first, ignore)
        self.asserted("classes")

    def _compare(self, case: dict[str, Any], found: Any, wanted: Any, ignore: Any) -> None:
        self.same("axes", found.shape, case["shape"])
        valid = np.asarray(case["valid"])
        wanted = np.where(valid, wanted, ignore)
        self.same("labels", found[tuple(np.transpose(case["points"]))], wanted)

    def asserted(self, what: str) -> None:
        """Note that something was compared and was equal."""
        if what not in self._asserted:
            self._asserted.append(what)

    def not_asserted(self, what: str) -> None:
        """Note what could not be compared, or not be done."""
        if what not in self._not:
            self._not.append(what)

    def step(self, loss: float) -> None:
        """Note that the trainer trained a step."""
        if not np.isfinite(loss):
            raise AssertionError(f"the loss is {loss}")
        self.asserted("one training step")

    def done(self) -> None:
        """Write the report."""
        content = {"version": self._version, "asserted": self._asserted, "not": self._not}
        self._report.write_text(json.dumps(content))
