"""Every key refuses values of another kind in the words of a YAML: what was found, what to give.

The values are tried on each key that the sections have, so that a new key is tried, too.
"""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from volprep.config import Config, every_key, explain_key, known_key, load_config, parse_changes
from volprep.config.keys import key_at, on_one_line, plain
from volprep.errors import ConfigError

KEYS = list(every_key())
WRONG: dict[str, Any] = {
    "text": "no such thing",
    "whole number": -7,
    "fraction": 0.37,
    "list": ["no such thing"],
    "numbers": [1],
    "mapping": {"nonsense": 1},
    "nothing": None,
    "truth": True,
}
#: Words of pydantic and of Python, which nobody who writes a YAML needs to know.
FOREIGN = re.compile(
    r"[Ii]nput should|pydantic|\b(tuple|dict|dictionary|str|int|float|bool|NoneType|None|"
    r"instance of|literal|union|[Ee]xtra inputs|[Ff]ield required|model_type|[Vv]alue error|"
    r"BaseModel|\w+Config|unable to parse|True|False)\b",
)


def placed(name: str, value: Any) -> dict[str, Any]:
    """A config that is whole but for one key."""
    config: dict[str, Any] = {"data": {"root": "raw"}}
    parts = name.split(".")
    place = config
    for part in parts[:-1]:
        plain_part = part.removesuffix("[]")
        if part.endswith("[]"):
            entry = {
                key.name.rsplit(".", 1)[-1]: plain(key.example)
                for key in KEYS
                if key.required and key.name.rsplit(".", 1)[0].endswith(part)
            }
            entry |= {"size": [1, 1, 1]} if plain_part == "regions" else {}
            if plain_part == "cases":
                del place["root"]
            place = place.setdefault(plain_part, [entry])[0]
        else:
            place = place.setdefault(plain_part, {})
    place[parts[-1]] = value
    if name.startswith("compute.cluster"):
        config["compute"]["executor"] = "dask"
    return config


def refusal(folder: Path, config: dict[str, Any]) -> str | None:
    path = folder / "c.yaml"
    path.write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
    try:
        load_config(path)
    except ConfigError as error:
        return str(error)
    return None


@pytest.mark.parametrize("kind", WRONG)
@pytest.mark.parametrize("key", KEYS, ids=[key.name for key in KEYS])
def test_a_value_of_another_kind_is_told_in_words_of_the_yaml(
    key: Any, kind: str, tmp_path: Path
) -> None:
    value = WRONG[kind]
    told = refusal(tmp_path, placed(key.name, copy.deepcopy(value)))
    if told is None:  # it may stand there
        return
    for line in told.splitlines():
        said = line.split(": ", 1)[1]
        assert not FOREIGN.search(said.replace(repr(value), "")), line
        place, name, *_ = re.fullmatch(r"(.*?c\.yaml:\d+): ([\w.]+): (.*)", line).groups()  # type: ignore[union-attr]
        assert place
        assert name.startswith(re.sub(r"\[\]", ".0", key.name).split(".")[0])
    last = key.name.rsplit(".", 1)[-1]
    assert last in told
    if "unknown key" in told:
        assert re.search(r"did you mean|known keys here", told)
    elif key.inner is None:
        assert "found" in told
        assert re.search(
            r"such as|write it like|no unit|belongs? to|needs|did you mean|--explain|"
            r"does not take|either",
            told,
        ), told


@pytest.mark.parametrize("key", KEYS, ids=[key.name for key in KEYS])
def test_every_key_has_a_meaning_and_an_example_that_may_stand_there(
    key: Any, tmp_path: Path
) -> None:
    assert key.meaning
    assert key.example is not None
    told = refusal(tmp_path, placed(key.name, plain(key.example)))
    # Some keys belong to others, which a message says; none is of a wrong kind.
    assert told is None or re.search(
        r"belongs? to|needs|not both|either root|stop or size|does not take", told
    ), told
    assert key.name in explain_key(key)


def test_default_and_kinds_of_a_key_are_the_sections_own() -> None:
    (key,) = known_key("plan.patch_size")
    assert key.default is None
    assert on_one_line(key.example) == "[32, 128, 128]"
    assert key_at(("plan", "patch_size", 2)).wanted == "a whole number above 0"  # type: ignore[union-attr]
    assert [key.name for key in known_key("data.cases.0.image")] == ["data.cases[].image"]
    assert len(known_key("spacing")) == 2
    with pytest.raises(ConfigError, match=r"did you mean plan\.patch_size"):
        known_key("patchsize")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("data: 3", "data: found 3; give keys with values, such as {root: raw}"),
        ("data: {root: [1]}", "data.root: found [1]; give a path, or null, such as raw"),
        (
            "data: {root: a}\nplan: {patch_size: 64}",
            "plan.patch_size: found 64; give a size of three whole numbers above 0 (z, y, x), "
            "or null, such as [32, 128, 128]",
        ),
        (
            "data: {root: a}\nplan: {patch_size: [a, 2, 3]}",
            "plan.patch_size.0: found 'a'; give a whole number above 0, such as 32",
        ),
        ("data: {root: a}\npreprocess: {clip: [1, 2, 3]}", "found [1, 2, 3]; give auto, or two"),
        ("data: {root: a}\nseed: x", "seed: found 'x'; give a whole number, 0 or above"),
        ("data: {root: a}\nsplit: {fraction: 3}", "found 3; give a number from 0 to less than 1"),
        ("data: {root: a}\nplan:\n", "plan: found nothing; give keys with values, such as {"),
        ("data: {root: a}\nseed: yes", "seed: found true; yes, no, on, off"),
        ("data: {root: a}\naugment: [3]", "augment.0: found 3; give a name, or a name with"),
        ("data: {root: a, regions: [{strt: 1}]}", "data.regions.0.strt: unknown key; did you"),
        ("data: {root: a}\n3: 4", "3: unknown key; known keys here: data"),
        ("data: {cases: [{label: a}]}", "data.cases.0.image: missing; give a path, or a list"),
        ("7", "found 7; give sections such as data: {root: raw}"),
    ],
)
def test_what_to_give_is_said_with_an_example(tmp_path: Path, text: str, told: str) -> None:
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_config(tmp_path / "c.yaml")
    assert told in str(caught.value)


def test_values_of_set_are_read_as_yaml_and_win_over_the_file(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("data:\n  cases: [{image: a.tif}, {image: b.tif}]\nplan: {memory: 2GiB}\n")
    changes = parse_changes(
        [
            "plan.memory=4GiB",
            "plan.patch_size=[16, 32, 32]",
            "data.cases.1.spacing=50, 4, 4 nm",
            "augment=[]",
            "skeletons.enabled=true",
            "preprocess.clip=0.5, 99.5",
            "split.group=a=b",
        ]
    )
    config = load_config(path, changes)
    assert config.plan.memory == 4 * 2**30
    assert config.plan.patch_size == (16, 32, 32)
    assert config.data.cases[1].spacing == pytest.approx((0.05, 0.004, 0.004))
    assert (config.augment, config.skeletons.enabled) == ([], True)
    assert (config.split.group, config.preprocess.clip) == ("a=b", (0.5, 99.5))
    assert load_config(path, parse_changes(["plan.patch_size=8,32,32"])).plan.patch_size == (
        8,
        32,
        32,
    )
    assert load_config(path).plan.memory == 2 * 2**30


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("plan.memry=1", "--set: plan.memry: unknown key; did you mean memory?"),
        ("plan.memory=lots", "--set: plan.memory: found 'lots'"),
        ("plan.patch_size", "--set plan.patch_size: no key=value"),
        ("plan.patch_size=[1", "no valid YAML"),
        ("data.root.x=1", "--set data.root.x: data.root is raw; give all of data.root"),
        ("data.cases.3.image=a", "--set data.cases.3.image: data.cases has 0 entries"),
        ("augment.0=flip", "--set augment.0: augment is auto; give all of augment"),
    ],
)
def test_mistakes_of_set_are_told_as_those_of_the_file(
    tmp_path: Path, text: str, told: str
) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("data: {root: raw, cases: []}\naugment: auto\n")
    with pytest.raises(ConfigError) as caught:
        load_config(path, parse_changes([text]))
    assert told in str(caught.value)
    assert not isinstance(caught.value.__cause__, ConfigError)


def test_no_key_is_left_out() -> None:
    assert {key.name.split(".")[0].removesuffix("[]") for key in KEYS} == set(Config.model_fields)
    assert len({key.name for key in KEYS}) == len(KEYS) > 100
