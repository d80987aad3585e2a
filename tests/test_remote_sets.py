"""Patch sets in buckets: copied there whole, and read from there as from a folder."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from stores import KEYS, GoogleServer, WebServer, s3_served, served

import volprep
from volprep import objects, pipeline
from volprep.config import load_config
from volprep.errors import ConfigError, SourceError, StoreError
from volprep.files import cache_folder
from volprep.places import path_of
from volprep.store import PatchStore, close_shards, verify_set
from volprep.store import publish as publish_folder

URL = "s3://cells/sets/nuclei"


@pytest.fixture(autouse=True)
def alone(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """A cache of its own, and short pauses."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
    retries = {"max_retries": 5, "initial_delay": "0.01s", "max_delay": "0.1s"}
    monkeypatch.setattr(objects, "_RETRIES", retries)
    objects._context.cache_clear()
    objects._opened_store.cache_clear()
    yield
    close_shards()
    objects._context.cache_clear()
    objects._opened_store.cache_clear()


@pytest.fixture(scope="module")
def s3() -> Iterator[Any]:
    with s3_served() as (endpoint, client), pytest.MonkeyPatch.context() as environment:
        environment.setenv("AWS_ENDPOINT_URL", endpoint)
        for name, value in KEYS.items():
            environment.setenv(name, value)
        yield client


@pytest.fixture
def bucket(s3: Any) -> Iterator[Any]:
    _empty(s3)  # servers of one process share what they hold
    yield s3
    _empty(s3)


def _empty(client: Any) -> None:
    for key in keys(client):
        client.delete_object(Bucket="cells", Key=key)


def keys(client: Any) -> list[str]:
    return [each["Key"] for each in client.list_objects_v2(Bucket="cells").get("Contents", [])]


def configure(folder: Path, out: str = URL, *, size: int = 16, more: str = "") -> Any:
    for number in range(3):
        rng = np.random.default_rng(number)
        label = np.zeros((8, 40, 40), np.uint16)
        for i in range(1, 12):
            y, x = rng.integers(0, 32, 2)
            label[2:6, y : y + 7, x : x + 7] = i
        image = (rng.integers(0, 90, label.shape) + 60 * (label > 0)).astype(np.uint8)
        for kind, array in (("images", image), ("labels", label)):
            (folder / "data" / kind).mkdir(parents=True, exist_ok=True)
            path = folder / "data" / kind / f"c{number}.tif"
            if not path.exists():
                tifffile.imwrite(path, array)
    path = folder / "set.yaml"
    path.write_text(
        "data: {root: data, spacing: [0.3, 0.1, 0.1]}\naugment: []\nepoch: {steps: 20}\n"
        f"plan: {{patch_size: [4, {size}, {size}], batch_size: 2}}\n"
        f"output: {{dir: '{out}'{more}}}\n"
    )
    return load_config(path)


def samples(where: Any, split: str = "train") -> list[bytes]:
    dataset = volprep.PatchDataset(where, split)
    return [b"".join(np.asarray(dataset[n][k]).tobytes() for k in ("image", "label"))
            for n in range(len(dataset))]  # fmt: skip


@pytest.mark.parametrize("store", ["patches", "volumes"])
def test_a_set_is_made_in_a_bucket_and_read_from_there(tmp_path, bucket, store) -> None:
    config = configure(tmp_path, more=f", store: {store}")
    assert config.output.dir == tmp_path / "nuclei"
    told: list[str] = []
    made = pipeline.prepare(config, tell=told.append)
    assert made.path == tmp_path / "nuclei"
    assert any(line.startswith(f"{URL}: ") and "files copied" in line for line in told)
    local = sorted(f.relative_to(made.path).as_posix() for f in made.path.rglob("*") if f.is_file())
    assert [k.removeprefix("sets/nuclei/") for k in sorted(keys(bucket))] == local
    assert list(verify_set(URL)) == list(verify_set(URL, quick=True)) == []
    for split in ("train", "val"):
        assert samples(URL, split) == samples(made.path, split)
    told.clear()
    pipeline.prepare(config, tell=told.append)
    assert told[-1] == f"{URL} is complete already"
    prepared = pipeline.open_prepared(path_of(URL))
    assert (prepared[0].image.read() == pipeline.open_prepared(made.path)[0].image.read()).all()


def test_a_shard_is_fetched_when_it_is_touched_and_once(tmp_path, bucket, monkeypatch) -> None:
    pipeline.prepare(configure(tmp_path, more=", compression: none"))
    asked: list[str] = []
    read = objects.read
    monkeypatch.setattr(
        objects, "read", lambda place, *part: asked.append(str(place)) or read(place, *part)
    )
    dataset = volprep.PatchDataset(URL, "train")
    assert not [name for name in asked if "/image/c/" in name]
    _ = dataset[0], dataset[1]
    assert len([name for name in asked if "/image/c/" in name]) == 1
    asked.clear()
    close_shards()
    again = volprep.PatchDataset(URL, "train")
    assert (again[0]["image"] == dataset[0]["image"]).all()
    assert asked == [f"{URL}/manifest.json"]


def test_mirrors_that_nobody_opens_go_after_a_month(tmp_path, bucket) -> None:
    first = pipeline.prepare(configure(tmp_path))
    mirrors = cache_folder() / "sets"
    volprep.PatchDataset(URL)
    (old,) = mirrors.iterdir()
    long_ago = time.time() - 40 * 24 * 3600
    os.utime(old / "source.json", (long_ago, long_ago))
    volprep.PatchDataset(URL)  # which is an opening
    publish_folder(first.path, path_of("s3://cells/other"))
    volprep.PatchDataset("s3://cells/other")
    assert len(list(mirrors.iterdir())) == 2
    os.utime(old / "source.json", (long_ago, long_ago))
    publish_folder(first.path, path_of("s3://cells/third"))
    volprep.PatchDataset("s3://cells/third")
    assert len(list(mirrors.iterdir())) == 2
    assert not old.exists()
    volprep.PatchDataset(URL)  # is fetched anew


@pytest.mark.parametrize("after", [0, 1, 7, -2, -1])
def test_what_is_not_wholly_copied_never_looks_like_a_set(
    tmp_path, bucket, monkeypatch, after
) -> None:
    config = configure(tmp_path)
    whole = pipeline.prepare(configure(tmp_path, "nuclei"))  # so that only copying is left
    total = len(list(f for f in whole.path.rglob("*") if f.is_file()))
    limit = after if after >= 0 else total + after
    write, written = objects.write, []

    def failing(place: Path, data: bytes) -> None:
        if len(written) == limit and not place.name.endswith(".volprep"):
            raise SourceError(place, "cannot be fetched (UNAVAILABLE)", "check the network")
        if not place.name.endswith(".volprep"):  # which asks whether one may write
            written.append(str(place))
        write(place, data)

    monkeypatch.setattr(objects, "write", failing)
    with pytest.raises(StoreError, match=r"cannot be written .*what is done is kept"):
        pipeline.prepare(config)
    assert "sets/nuclei/manifest.json" not in keys(bucket)
    with pytest.raises(StoreError, match="no finished patch set"):
        PatchStore(URL)
    monkeypatch.setattr(objects, "write", write)
    told: list[str] = []
    pipeline.prepare(config, tell=told.append)
    assert list(verify_set(URL)) == []
    assert not (tmp_path / "nuclei.upload").exists()
    kept = int(told[-1].split("copied, ")[1].split()[0])
    assert kept >= min(limit, total - 2) - 8  # those under way at once are copied again at most


def test_another_set_is_replaced_only_when_asked_and_wholly(tmp_path, bucket, monkeypatch) -> None:
    pipeline.prepare(configure(tmp_path))
    first = samples(URL)
    other = configure(tmp_path, "other", size=8)
    made = pipeline.prepare(other)
    changed = configure(tmp_path, "other", size=8, more=f", url: '{URL}'")
    with pytest.raises(StoreError, match=r"holds a patch set of another config .*--overwrite"):
        pipeline.prepare(changed)
    assert samples(URL) == first
    bucket.put_object(Bucket="cells", Key="sets/nuclei/mine.txt", Body=b"x")
    write = objects.write

    def looking(place: Path, data: bytes) -> None:
        # From the first file of the new set on there is no manifest, until all are there.
        assert "sets/nuclei/manifest.json" not in keys(bucket)
        write(place, data)

    monkeypatch.setattr(objects, "write", looking)
    pipeline.prepare(changed, overwrite=True)
    assert samples(URL) == samples(made.path) != first
    (strange,) = verify_set(URL)
    assert (str(strange.path), strange.found) == (f"{URL}/mine.txt", "not of the set")


def test_what_only_describes_is_brought_up_to_date(tmp_path, bucket, monkeypatch) -> None:
    pipeline.prepare(configure(tmp_path))
    written: list[str] = []
    write = objects.write
    monkeypatch.setattr(objects, "write", lambda p, d: written.append(p.name) or write(p, d))
    config = configure(tmp_path)
    config = config.model_copy(update={"epoch": type(config.epoch)(steps=21)})
    config = config.model_copy(update={"patching": type(config.patching)(patches_per_case=None)})
    pipeline.prepare(config, overwrite=False)
    assert written[-2:] == ["ledger.jsonl", "manifest.json"]
    assert "train.yaml" in written
    assert list(verify_set(URL)) == []


@pytest.mark.parametrize("quick", [False, True])
def test_damage_in_the_bucket_is_named_and_mended(tmp_path, bucket, quick) -> None:
    config = configure(tmp_path)
    pipeline.prepare(config)
    shard = next(key for key in keys(bucket) if "train.zarr/image/c/" in key)
    label = next(key for key in keys(bucket) if "train.zarr/label/c/" in key)
    body = bucket.get_object(Bucket="cells", Key=shard)["Body"].read()
    bucket.put_object(Bucket="cells", Key=shard, Body=body[:-1] if quick else b"x" + body[1:])
    bucket.delete_object(Bucket="cells", Key=label)
    found = {(str(fault.path), fault.found) for fault in verify_set(URL, quick=quick)}
    word = "truncated" if quick else "changed"
    assert found == {(f"s3://cells/{shard}", word), (f"s3://cells/{label}", "missing")}
    dataset = volprep.PatchDataset(URL, "train")
    with pytest.raises(StoreError, match=rf"{shard}: {word}"):
        dataset[0]
    pipeline.prepare(config, repair=True)
    assert list(verify_set(URL)) == []
    assert samples(URL) == samples(tmp_path / "nuclei")


def test_objects_of_others_are_not_written_over(tmp_path, bucket) -> None:
    bucket.put_object(Bucket="cells", Key="sets/nuclei/notes.txt", Body=b"mine")
    config = configure(tmp_path)
    with pytest.raises(StoreError, match=r"holds 1 objects and is no finished set \(notes.txt\)"):
        pipeline.prepare(config)
    assert keys(bucket) == ["sets/nuclei/notes.txt"]


def test_copying_that_broke_off_is_forgotten_once_another_set_lies_there(
    tmp_path, bucket, monkeypatch
) -> None:
    config = configure(tmp_path)
    write, written = objects.write, []

    def failing(place: Path, data: bytes) -> None:
        written.append(place)
        if len(written) > 6:
            raise SourceError(place, "cannot be fetched", "check the network")
        write(place, data)

    monkeypatch.setattr(objects, "write", failing)
    with pytest.raises(StoreError):
        pipeline.prepare(config)
    monkeypatch.setattr(objects, "write", write)
    elsewhere = pipeline.prepare(configure(tmp_path, "elsewhere", size=8))
    publish_folder(elsewhere.path, path_of(URL), overwrite=True)
    pipeline.prepare(configure(tmp_path), overwrite=True)
    assert list(verify_set(URL)) == []
    assert samples(URL) == samples(tmp_path / "nuclei")


def test_a_web_server_gives_a_set_through_faults(tmp_path) -> None:
    made = pipeline.prepare(configure(tmp_path, "nuclei"))
    with served(WebServer(tmp_path)) as web:
        count: dict[str, int] = {}

        def twice(path: str) -> str | None:
            count[path] = count.get(path, 0) + 1
            return {1: "503", 2: "cut"}.get(count[path])

        web.fault = twice
        assert samples(f"{web.url}/nuclei") == samples(made.path)
        assert list(verify_set(f"{web.url}/nuclei")) == []
        web.fault = lambda path: "403" if "/label/" in path else None
        close_shards()
        with pytest.raises(StoreError, match="refuses to give it"):
            list(verify_set(f"{web.url}/nuclei"))
        with pytest.raises(StoreError, match=r"no finished patch set \(manifest.json is missing\)"):
            PatchStore(f"{web.url}/nothing")


def test_a_set_that_is_made_anew_while_it_is_read_is_noticed(tmp_path, bucket) -> None:
    pipeline.prepare(configure(tmp_path))
    dataset = volprep.PatchDataset(URL, "train")
    other = pipeline.prepare(configure(tmp_path, "other", size=8))
    publish_folder(other.path, path_of(URL), overwrite=True)
    with pytest.raises(StoreError, match="made anew"):
        dataset[0]
    assert samples(URL) == samples(other.path)


def test_forked_workers_read_from_a_bucket(tmp_path, bucket) -> None:
    torch = pytest.importorskip("torch")
    made = pipeline.prepare(configure(tmp_path))
    dataset = volprep.PatchDataset(URL, "train")
    loader = torch.utils.data.DataLoader(
        dataset, batch_size=4, num_workers=1, multiprocessing_context="fork"
    )
    here = np.concatenate([batch["label"].numpy() for batch in loader])
    local = volprep.PatchDataset(made.path, "train")
    assert np.array_equal(here, np.stack([local[n]["label"] for n in range(len(local))]))


def test_a_set_is_made_in_a_bucket_of_google(tmp_path) -> None:
    """In processes of their own: the address of the store is read once, by the library."""
    configure(tmp_path, "gs://cells/sets/nuclei")

    def run(*args: object) -> subprocess.CompletedProcess[str]:
        keys = {"TENSORSTORE_GCS_HTTP_URL": server.url, "GOOGLE_AUTH_TOKEN_FOR_TESTING": "x"}
        return subprocess.run(
            [sys.executable, "-m", "volprep", *map(str, args)], capture_output=True, text=True,
            cwd=tmp_path, check=False, env={**os.environ, **keys}, timeout=200,
        )  # fmt: skip

    with served(GoogleServer(tmp_path / "google")) as server:
        done = run("prepare", "set.yaml")
        assert done.returncode == 0, done.stderr
        made = tmp_path / "google/cells/sets/nuclei"
        assert [p.name for p in made.iterdir() if p.name.endswith(".volprep")] == []
        assert list(verify_set(made)) == []
        assert samples(made) == samples(tmp_path / "nuclei")
        assert run("verify", "gs://cells/sets/nuclei").returncode == 0
        (made / "train.yaml").unlink()
        assert "train.yaml: missing" in run("verify", "gs://cells/sets/nuclei").stderr


def test_places_that_cannot_be_written_to_are_refused_before_anything_is_made(tmp_path) -> None:
    for out in ("https://lab.org/sets/a", "s3://cells"):
        with pytest.raises(ConfigError, match=r"output.*such as s3://BUCKET/NAME"):
            configure(tmp_path, out)
    with pytest.raises(ConfigError, match="both URLs"):
        configure(tmp_path, "s3://cells/a", more=", url: 's3://cells/b'")


def test_a_bucket_that_is_not_there_is_told_before_anything_is_made(tmp_path, bucket) -> None:
    with pytest.raises(StoreError, match="cells-of-nobody"):
        pipeline.prepare(configure(tmp_path, "s3://cells-of-nobody/a"))
    assert not (tmp_path / "a").exists()
    assert not (tmp_path / "a.partial").exists()


def test_the_commands_take_the_url_of_a_set(tmp_path, bucket) -> None:
    configure(tmp_path)

    def run(*args: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "volprep", *map(str, args)],
            capture_output=True, text=True, cwd=tmp_path, check=False, env=dict(os.environ),
        )  # fmt: skip

    done = run("prepare", "set.yaml")
    assert done.returncode == 0, done.stderr
    assert URL in done.stderr
    told = json.loads(run("inspect", URL, "--verify", "--json").stdout)
    assert (told["path"], told["damaged"]) == (URL, [])
    assert run("verify", URL).returncode == 0
    bucket.delete_object(Bucket="cells", Key="sets/nuclei/train.yaml")
    broken = run("verify", URL)
    assert broken.returncode == 6
    assert "train.yaml: missing" in broken.stderr
    assert "volprep prepare CONFIG --repair" in broken.stderr
    refused = run("repair", URL)
    assert refused.returncode == 6
    assert "volprep prepare CONFIG --repair" in refused.stderr


def test_a_set_of_volumes_behind_a_url_is_handed_over(tmp_path, bucket) -> None:
    made = pipeline.prepare(configure(tmp_path, more=", store: volumes"))
    pipeline.export(made.path, "torchio", tmp_path / "1/x")
    pipeline.export(path_of(URL), "torchio", tmp_path / "2/x")
    one, two = (
        {f.name: f.read_bytes() for f in sorted((tmp_path / n).rglob("*")) if f.is_file()}
        for n in "12"
    )
    assert one == two
