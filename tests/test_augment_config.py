"""What a config says about augmentation, in volprep's words and in PyTorch Connectomics'."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import numpy as np
import pytest
import yaml

from volprep.augment import (
    TRANSFORMS,
    CutBlur,
    Flip,
    MisAlignment,
    Rotate,
    compose_from_config,
    transforms_from_config,
)
from volprep.errors import ConfigError
from volprep.randomness import sample_generator


def test_a_list_holds_names_sections_and_sections_with_a_name() -> None:
    spec = yaml.safe_load(
        """
        - flip
        - rotate: {p: 0.25, rot90: false}
        - {name: cut_blur, length_ratio: 0.6, enabled: false}
        - misalignment:
        """
    )
    assert transforms_from_config(spec) == [
        Flip(),
        Rotate(p=0.25, rot90=False),
        CutBlur(length_ratio=0.6, enabled=False),
        MisAlignment(),
    ]
    assert transforms_from_config(None) == []
    assert transforms_from_config([]) == []


@pytest.mark.parametrize("name", ["cut_blur", "CutBlur", "CUTBLUR", "cut-blur", "cutblur"])
def test_names_may_be_written_as_in_either_system(name: str) -> None:
    assert transforms_from_config([name]) == [CutBlur()]


@pytest.mark.parametrize("name", list(TRANSFORMS))
def test_parameters_of_every_transform_go_into_a_config_and_back(name: str) -> None:
    transform = TRANSFORMS[name]()
    spec = yaml.safe_load(yaml.safe_dump([{name: _plain(transform.parameters())}]))
    assert transforms_from_config(spec) == [transform]


def _plain(parameters: dict[str, Any]) -> dict[str, Any]:
    return {k: list(v) if isinstance(v, tuple) else v for k, v in parameters.items()}


def test_the_documented_block_turns_one_transform_off() -> None:
    spec = yaml.safe_load(
        """
        AUGMENTOR:
          ADDITIONAL_TARGETS_NAME: ['label', 'valid_mask']
          ADDITIONAL_TARGETS_TYPE: ['mask', 'mask']
          MISALIGNMENT:
            ENABLED: False
        """
    )
    transforms = transforms_from_config(spec)
    assert "misalignment" not in [transform.name for transform in transforms]
    compose = compose_from_config(spec, (4, 16, 16))
    assert compose.targets == {"image": "img", "label": "mask", "valid_mask": "mask"}
    assert not compose.smooth
    own = compose_from_config(spec, (4, 16, 16), {"mask": "mask"})
    assert own.targets == {"image": "img", "mask": "mask"}
    assert compose_from_config({"AUGMENTOR": {}}, (4, 16, 16)).targets == {
        "image": "img",
        "label": "mask",
    }


def test_a_block_without_sections_is_connectomics_default_pipeline_in_its_order() -> None:
    found = {t.name: t for t in transforms_from_config({"AUGMENTOR": {}})}
    assert list(found) == [
        "cut_noise", "cut_blur", "motion_blur", "misalignment", "missing_section",
        "missing_parts", "grayscale", "elastic", "rescale", "rotate", "flip",
    ]  # fmt: skip
    assert {name: t.p for name, t in found.items()} == {
        "rotate": 1.0, "rescale": 0.5, "flip": 1.0, "elastic": 0.75, "grayscale": 0.75,
        "missing_parts": 0.9, "missing_section": 0.5, "misalignment": 0.5,
        "motion_blur": 0.5, "cut_blur": 0.5, "cut_noise": 0.75,
    }  # fmt: skip
    parameters = {name: t.parameters() for name, t in found.items()}
    assert parameters["misalignment"]["rotate_ratio"] == 0.5
    assert parameters["cut_blur"]["length_ratio"] == 0.4
    assert parameters["cut_noise"]["scale"] == 0.3
    assert parameters["missing_parts"]["iterations"] == 64


def test_keys_of_a_block_reach_their_parameters() -> None:
    spec = {
        "ROTATE": {"ROT90": False, "P": 0.3, "SKIP": ["valid_mask"]},
        "MISSINGSECTION": {"NUM_SECTION": 4},
        "COPYPASTE": {"ENABLED": True, "AUG_THRES": 0.5},
        "SMOOTH": True,
        "ADDITIONAL_TARGETS_NAME": None,
    }
    found = {t.name: t for t in transforms_from_config(spec)}
    assert found["rotate"].parameters()["rot90"] is False
    assert found["rotate"].p == 0.3
    assert found["rotate"].skip_targets == ("valid_mask",)
    assert found["missing_section"].parameters()["num_sections"] == 4
    assert found["copy_paste"].parameters()["aug_thres"] == 0.5
    compose = compose_from_config(spec, (4, 16, 16), {"label": "mask"})
    assert compose.smooth
    assert compose.targets == {"image": "img", "label": "mask"}


def test_a_block_that_is_off_does_nothing() -> None:
    assert transforms_from_config({"AUGMENTOR": {"ENABLED": False}}) == []


def test_a_compose_of_a_config_runs() -> None:
    compose = compose_from_config(["flip", "grayscale"], (2, 8, 8), value_range=(0, 255))
    result = compose({"image": np.zeros((2, 8, 8), np.uint8)}, sample_generator(0))
    assert result["image"].shape == (2, 8, 8)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (["rotat"], r"augment\[0\].rotat: unknown transform; did you mean rotate?"),
        (["flip", {"gama": {}}], r"augment\[1\].gama: unknown transform; did you mean gamma?"),
        ([{"rotate": {"rot09": 1}}], r"augment\[0\].rotate.rot09: .*did you mean rot90?"),
        ([{"rotate": {"p": 2}}], r"augment\[0\].rotate.p: found 2; wanted a probability"),
        ([{"rotate": {"p": "x"}}], r"augment\[0\].rotate.p: found 'x'; wanted a number"),
        ([{"rotate": 0.5}], r"augment\[0\].rotate: found 0.5; wanted parameters"),
        ([{"a": 1, "b": 2}], r"augment\[0\]: found .*; wanted a name"),
        (["mixup"], r"augment\[0\].mixup: acts on batches"),
        (7, "augment: found 7; wanted a list"),
        ("flip", "augment: found 'flip'; wanted a list"),
        ({"rotate": {"p": 1}}, "did you mean ROTATE?.* begins each with a dash"),
        ({"AUGMENTOR": {"ROTAT": {}}}, "augment.ROTAT: unknown section; did you mean ROTATE?"),
        ({"FLIP": {"DO_ZTRAN": 1}}, "augment.FLIP.DO_ZTRAN: .*did you mean DO_ZTRANS?"),
        ({"FLIP": True}, "augment.FLIP: found True; wanted keys"),
        ({"AUGMENTOR": 5}, "augment.AUGMENTOR: found 5"),
        (
            {"ADDITIONAL_TARGETS_NAME": ["a", "b"]},
            r"ADDITIONAL_TARGETS_TYPE: found \['mask'\] for the names \['a', 'b'\]",
        ),
        (
            {"ADDITIONAL_TARGETS_TYPE": ["masks"]},
            "ADDITIONAL_TARGETS_TYPE: found 'masks'; wanted img, mask or points",
        ),
    ],
)  # fmt: skip
def test_mistakes_say_where_and_what_is_nearest(spec: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        transforms_from_config(spec)


ODD = ["a", [1, 2], [3, "a"], None, True, {"x": 1}, -1, 1e308, float("nan"), [2, 1], 0.5]


@pytest.mark.parametrize("name", TRANSFORMS)
def test_any_value_of_any_parameter_is_taken_or_refused_in_one_form(name: str) -> None:
    told = []
    for field in dataclasses.fields(TRANSFORMS[name]):
        for value in ODD:
            try:
                transforms_from_config([{name: {field.name: value}}])
            except ConfigError as error:
                told.append(str(error))
    assert told
    form = re.compile(rf"augment\[0\]\.{name}\.\w+: .+; wanted ")
    assert not [text for text in told if not form.match(text)]
