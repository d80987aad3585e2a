"""The skeleton datasets do what the second reference document says."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from torch.utils.data import DataLoader

from volprep.errors import SourceError
from volprep.loader.skeletons import MultiDataset, SkeletonDataset, collate_skeletons
from volprep.skeletons import bake_skeleton, skeleton_to_mask, skeletonize, write_skeletons


def write_volume(
    folder: Path,
    name: str = "train_data",
    ids: tuple[int, ...] = (3, 70_000),
    dtype: Any = np.uint8,
) -> tuple[Any, Any]:
    """An image (Z, Y, X), its instances and their skeletons."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(len(name))
    top = np.iinfo(dtype).max if np.issubdtype(dtype, np.integer) else 1
    image = (rng.random((4, 12, 10)) * top).astype(dtype)
    labels = np.zeros(image.shape, np.uint32)
    for number, instance in enumerate(ids):
        labels[1:3, 2 + 5 * number : 6 + 5 * number, 2:9] = instance
    tifffile.imwrite(folder / f"{name}.tif", image, photometric="minisblack")
    tifffile.imwrite(folder / f"{name}.labels.tif", labels, photometric="minisblack")
    write_skeletons(skeletonize(labels), folder / f"{name}.skeletons.npz")
    return image, labels


def test_the_documented_example(tmp_path: Path) -> None:
    write_volume(tmp_path / "train_alot")
    write_volume(tmp_path / "train_notsomuch")
    data0 = SkeletonDataset(tmp_path / "train_alot", sample_per_image=100)
    data1 = SkeletonDataset(str(tmp_path / "train_notsomuch"), sample_per_image=1)
    merged_data = MultiDataset(data0, data1)
    assert (len(data0), len(data1), len(merged_data)) == (100, 1, 101)
    assert torch.equal(merged_data[99]["image"], data0[0]["image"])
    assert torch.equal(merged_data[-1]["image"], data1[0]["image"])
    for dataset in (data0, merged_data):
        with pytest.raises(IndexError):
            dataset[len(dataset)]


def test_samples_have_skoots_axes_and_every_value(tmp_path: Path) -> None:
    image, labels = write_volume(tmp_path, dtype=np.uint16)
    sample = SkeletonDataset(tmp_path, pad_size=0)[0]
    assert sample["image"].shape == (1, 12, 10, 4)
    assert sample["image"].dtype == torch.int32
    np.testing.assert_array_equal(sample["image"][0].numpy(), image.transpose(1, 2, 0))
    np.testing.assert_array_equal(sample["masks"][0].numpy(), labels.transpose(1, 2, 0))
    assert sorted(sample["skeletons"]) == [3, 70_000]
    for instance, points in sample["skeletons"].items():
        assert (sample["masks"][0][tuple(points.long().T)] == instance).all()
    assert sample["baked_skeleton"] is None


@pytest.mark.parametrize(
    ("pad", "shape", "shift"),
    [(100, (212, 210, 4), (100, 100, 0)), ((1, 2, 3), (14, 14, 10), (1, 2, 3))],
)
def test_padding_moves_the_skeletons_with_the_image(
    tmp_path: Path, pad: Any, shape: tuple[int, ...], shift: tuple[int, ...]
) -> None:
    write_volume(tmp_path)
    plain = SkeletonDataset(tmp_path, pad_size=0)[0]
    padded = SkeletonDataset(tmp_path, pad_size=pad)[0]
    assert padded["image"].shape[1:] == padded["masks"].shape[1:] == shape
    assert padded["image"].sum() == plain["image"].sum()
    for instance, points in padded["skeletons"].items():
        assert torch.equal(points, plain["skeletons"][instance] + torch.tensor(shift))
        assert (padded["masks"][0][tuple(points.long().T)] == instance).all()


def test_transforms_fill_the_sample_and_batches_collate(tmp_path: Path) -> None:
    write_volume(tmp_path)

    def bake(data: dict[str, Any]) -> dict[str, Any]:
        data["baked_skeleton"] = bake_skeleton(data["masks"], data["skeletons"], (1, 1, 3))
        data["skele_masks"] = skeleton_to_mask(data["skeletons"], data["masks"].shape[1:])
        return data

    dataset = SkeletonDataset(tmp_path, transforms=bake, pad_size=4, sample_per_image=3)
    loader = DataLoader(dataset, batch_size=3, collate_fn=collate_skeletons)
    images, masks, skeletons, skele_masks, baked = next(iter(loader))
    assert images.shape == masks.shape == skele_masks.shape == (3, 1, 20, 18, 4)
    assert baked.shape == (3, 3, 20, 18, 4)
    assert [sorted(s) for s in skeletons] == [[3, 70_000]] * 3
    plain = SkeletonDataset(tmp_path, pad_size=0)
    assert collate_skeletons([plain[0]])[3:] == (None, None)


def test_a_transform_that_edits_its_sample_does_not_edit_the_dataset(tmp_path: Path) -> None:
    write_volume(tmp_path)

    def wipe(data: dict[str, Any]) -> dict[str, Any]:
        data["image"].zero_()
        data["skeletons"].clear()
        return data

    dataset = SkeletonDataset(tmp_path, transforms=wipe, pad_size=0)
    assert not dataset[0]["image"].any()
    assert dataset.image[0].any()
    assert dataset.skeletons[0]


def test_samples_of_different_shapes_cannot_be_a_batch(tmp_path: Path) -> None:
    write_volume(tmp_path)
    samples = [SkeletonDataset(tmp_path, pad_size=pad)[0] for pad in (0, 2)]
    with pytest.raises(ValueError, match="image differ in shape"):
        collate_skeletons(samples)
    mixed = [samples[0], {**samples[0], "skele_masks": torch.zeros(1)}]
    with pytest.raises(ValueError, match="sample 0 of the batch has no skele_masks"):
        collate_skeletons(mixed)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("with_invert", [False, True])
def test_statistics_are_those_of_all_voxels(tmp_path: Path, dtype: Any, with_invert: bool) -> None:
    images = [write_volume(tmp_path / n, n, dtype=dtype)[0].astype(float) for n in ("a", "bcd")]
    top = np.iinfo(dtype).max if np.issubdtype(dtype, np.integer) else 1
    values = np.concatenate([image.ravel() for image in images])
    if with_invert:
        values = np.concatenate([values, top - values])
    datasets = [SkeletonDataset(tmp_path / name) for name in ("a", "bcd")]
    for data in (SkeletonDataset([tmp_path / "a", tmp_path / "bcd"]), MultiDataset(*datasets)):
        assert data.numel(with_invert) == values.size
        assert data.sum(with_invert) == pytest.approx(values.sum())
        assert data.mean(with_invert) == pytest.approx(values.mean())
        assert data.std(with_invert) == pytest.approx(values.std())
        assert data.subtract_square_sum(2.0, with_invert) == pytest.approx(
            ((values - 2) ** 2).sum()
        )


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize(("slope", "offset"), [(1 / 255, 0), (-2, 7), (0.1, -30)])
@pytest.mark.parametrize("cut", [False, True])
def test_statistics_with_inverted_images_follow_map(
    tmp_path: Path, dtype: Any, slope: float, offset: float, cut: bool
) -> None:
    image, _ = write_volume(tmp_path, dtype=dtype)
    if cut and slope < 0:
        pytest.skip("a cut image that is inverted, too, does not tell which voxel was the least")
    top = np.iinfo(dtype).max
    image.flat[:2] = 0, top
    tifffile.imwrite(tmp_path / "train_data.tif", image, photometric="minisblack")
    image = image[:3] if cut else image
    part = np.s_[..., :3] if cut else ...
    data = SkeletonDataset(tmp_path, pad_size=0)
    data.map(lambda kept: kept.double()[part] * slope + offset, "image")
    both = np.concatenate((image.ravel().astype(float), top - image.ravel().astype(float)))
    both = both * slope + offset
    assert data.mean(with_invert=True) == pytest.approx(both.mean())
    assert data.std(with_invert=True) == pytest.approx(both.std())


def test_an_image_divided_by_its_top_and_its_inverse_have_the_mean_one_half(
    tmp_path: Path,
) -> None:
    write_volume(tmp_path)
    data = MultiDataset(SkeletonDataset(tmp_path).map(lambda image: image.float() / 255, "image"))
    assert data.mean(with_invert=True) == pytest.approx(0.5)


def test_channels_come_by_the_axes_that_are_given(tmp_path: Path) -> None:
    image, labels = write_volume(tmp_path)
    channels = np.stack((image, 255 - image, image // 2), axis=1)
    path = tmp_path / "train_data.tif"
    tifffile.imwrite(path, channels.reshape(-1, *image.shape[1:]), photometric="minisblack")
    path.unlink()
    tifffile.imwrite(path, channels, photometric="minisblack")
    with pytest.raises(SourceError):
        SkeletonDataset(tmp_path, pad_size=0)
    sample = SkeletonDataset(tmp_path, pad_size=0, axes="ZCYX")[0]
    assert sample["image"].shape == (3, 12, 10, 4)
    np.testing.assert_array_equal(sample["image"][1].numpy(), (255 - image).transpose(1, 2, 0))
    assert labels.any()


def test_nothing_has_no_mean() -> None:
    with pytest.raises(ValueError, match="no image"):
        MultiDataset().mean()
    with pytest.raises(ValueError, match="no image"):
        MultiDataset().std()


def test_sizes_and_indices_are_whole_numbers(tmp_path: Path) -> None:
    write_volume(tmp_path)
    data = SkeletonDataset(tmp_path, pad_size=2)
    assert len(data[np.int64(0)]["image"].shape) == 4
    for refused in (
        lambda: data[0.5],  # type: ignore[index]
        lambda: MultiDataset(data)[0.0],  # type: ignore[index]
        lambda: SkeletonDataset(tmp_path, pad_size=4.7),  # type: ignore[arg-type]
        lambda: SkeletonDataset(tmp_path, sample_per_image=1.5),  # type: ignore[arg-type]
    ):
        with pytest.raises(TypeError, match="whole numbers"):
            refused()


def test_map_changes_what_it_is_told_to(tmp_path: Path) -> None:
    write_volume(tmp_path, "a")
    write_volume(tmp_path, "b", ids=())
    data = MultiDataset(SkeletonDataset(tmp_path, pad_size=0))
    before = data[0]["image"]
    assert data.map(lambda image: image + 1, "image") is data
    assert torch.equal(data[0]["image"], before + 1)
    data.map(lambda image: image * 0, "background")
    assert data[0]["image"].any()
    assert not data[1]["image"].any()
    data.map(lambda skeletons: {i: p + 1 for i, p in skeletons.items()}, "skeletons")
    data.map(lambda masks: masks * 2, "masks")
    assert int(data[0]["masks"].max()) == 140_000
    data.map(lambda mask: mask * 5, "skele_masks")
    sample = data[0]
    wanted = skeleton_to_mask(sample["skeletons"], sample["masks"].shape[1:])
    assert torch.equal(sample["skele_masks"], torch.as_tensor(wanted) * 5)
    with pytest.raises(ValueError, match="wanted one of image, masks"):
        data.map(abs, "images")


def test_moving_the_dataset_moves_its_samples(tmp_path: Path) -> None:
    write_volume(tmp_path)
    data = SkeletonDataset(tmp_path, pad_size=0)
    assert data.to("meta") is data
    sample = data[0]
    assert sample["image"].is_meta
    assert sample["skeletons"][3].is_meta
    multi = MultiDataset(SkeletonDataset(tmp_path, pad_size=0))
    assert multi.cpu().pin_memory()[0]["image"].device.type == "cpu"


def test_a_device_of_its_own_for_samples(tmp_path: Path) -> None:
    write_volume(tmp_path)
    data = SkeletonDataset(tmp_path, device="meta")
    assert data[0]["masks"].is_meta
    assert not data.image[0].is_meta


@pytest.mark.parametrize("ending", ["trch", "tif", "labels"])
def test_every_kind_of_skeleton_file_is_found(tmp_path: Path, ending: str) -> None:
    _, labels = write_volume(tmp_path)
    wanted = SkeletonDataset(tmp_path, pad_size=0)[0]["skeletons"]
    made = skeletonize(labels)
    (tmp_path / "train_data.skeletons.npz").unlink()
    if ending == "trch":
        made.to_file(tmp_path / "train_data.skeletons.trch")
    elif ending == "labels":
        made.to_file(tmp_path / "a.trch")
        (tmp_path / "a.trch").rename(tmp_path / "train_data.labels.tif.skeletons.trch")
    else:
        marks = np.zeros(labels.shape, np.uint8)
        marks[tuple(made.points.astype(int).T)] = 255
        tifffile.imwrite(tmp_path / "train_data.skeletons.tif", marks, photometric="minisblack")
    found = SkeletonDataset(tmp_path, pad_size=0)[0]["skeletons"]
    assert {i: p.tolist() for i, p in found.items()} == {i: p.tolist() for i, p in wanted.items()}


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no such folder"):
        SkeletonDataset(tmp_path / "nowhere")
    with pytest.raises(SourceError, match=r"no \*\.labels\.tif"):
        SkeletonDataset(tmp_path)
    _, labels = write_volume(tmp_path)
    write_skeletons(skeletonize(labels).only([3]), tmp_path / "train_data.skeletons.npz")
    with pytest.raises(SourceError, match="no skeleton of instance 70000"):
        SkeletonDataset(tmp_path)
    (tmp_path / "train_data.skeletons.npz").unlink()
    with pytest.raises(SourceError, match="volprep bake-skeletons --labels"):
        SkeletonDataset(tmp_path)
    tifffile.imwrite(
        tmp_path / "train_data.tif", np.zeros((3, 3, 3), np.uint8), photometric="minisblack"
    )
    with pytest.raises(SourceError, match="shape"):
        SkeletonDataset(tmp_path)
    (tmp_path / "train_data.tif").unlink()
    with pytest.raises(SourceError, match=r"train_data\.tif: no such file"):
        SkeletonDataset(tmp_path)


def test_an_image_without_instances_needs_no_skeletons(tmp_path: Path) -> None:
    write_volume(tmp_path, ids=())
    (tmp_path / "train_data.skeletons.npz").unlink()
    assert SkeletonDataset(tmp_path)[0]["skeletons"] == {}


def test_only_datasets_can_be_joined() -> None:
    with pytest.raises(TypeError, match="list is no torch Dataset"):
        MultiDataset([1, 2])  # type: ignore[arg-type]
    assert len(MultiDataset()) == 0


def test_real_nuclei(real_data: Callable[[str], Path], tmp_path: Path) -> None:
    folder = real_data("01_stardist_nuclei3d")
    for part, end in (("images", "tif"), ("labels", "labels.tif")):
        (tmp_path / f"x.{end}").write_bytes((folder / part / "img3d.tif").read_bytes())
    labels = tifffile.imread(tmp_path / "x.labels.tif")
    write_skeletons(skeletonize(labels), tmp_path / "x.skeletons.npz")
    sample = SkeletonDataset(tmp_path, pad_size=0)[0]
    baked = bake_skeleton(sample["masks"], sample["skeletons"], (1, 1, 2))
    assert baked.shape == (3, *sample["masks"].shape[1:])
    inside = baked[:, sample["masks"][0] > 0]
    assert inside.isfinite().all()
