"""Every finding that there is: its level, what is wanted, what to do, why, and an example.

One row a name, in the order of the alphabet. The level follows one rule: an error
forbids going on; a warning says that something changes what is trained on; an info
changes nothing. Each name is raised by a test (tests/test_findings.py sees to it).
"""

from __future__ import annotations

from typing import Literal, NamedTuple

__all__ = ["TABLE", "Kind", "Level"]

Level = Literal["error", "warning", "info"]


class Kind(NamedTuple):
    """What all findings of one name have in common.

    Attributes
    ----------
    level : {'error', 'warning', 'info'}
        Unless the one who raises it says otherwise.
    wanted : str
        What should be there.
    todo : str
        What to do, where the one who raises it has no better advice.
    why : str
        What it means and why it matters.
    example : str
        A file that has it, and what is said or done.
    """

    level: Level
    wanted: str
    todo: str
    why: str
    example: str


TABLE: dict[str, Kind] = {
    "absurd-spacing": Kind(
        "warning",
        wanted="a spacing between 0.1 nm and 10 mm",
        todo="give the right one as `spacing:`",
        why="Every physical size, the anisotropy and the plan follow from the spacing.",
        example="a NIfTI header in mm that holds µm: `spacing: [0.3, 0.1, 0.1]` puts it right",
    ),
    "alpha-channel": Kind(
        "warning",
        wanted="channels that hold signal",
        todo="save the picture without transparency, or leave that channel out",
        why="A PNG's transparency is read as one more channel and would be trained on.",
        example="an RGBA screenshot: 4 channels, the last of which is 255 everywhere",
    ),
    "axis-guessed": Kind(
        "info",
        wanted="a file that names its axes",
        todo="if it is something else, say so with `axes:`",
        why="The file does not name its first axis, and depth is what it mostly is.",
        example="tifffile.imwrite('a.tif', stack) without metadata: `axes: ZYX` is meant",
    ),
    "binary-label": Kind(
        "info",
        wanted="classes that are counted from 1",
        todo="nothing, unless other classes are missing",
        why="A mask of 0 and 255 is one class, not class 255 after 254 empty ones.",
        example="a PNG mask with the values 0 and 255",
    ),
    "blank-planes": Kind(
        "warning",
        wanted="sections that hold an image",
        todo="leave them out, or give a valid mask that is 0 there",
        why="Sections that hold one value are mostly lost ones, and are trained on as they are.",
        example="sections 40 and 41 of a serial-section series are black",
    ),
    "channels-counted": Kind(
        "info",
        wanted="channel_names in dataset.json",
        todo="add them, if a file may be missing",
        why="Without their names, a channel that is missing everywhere is not noticed.",
        example='`"channel_names": {"0": "DAPI", "1": "actin"}`',
    ),
    "channels-or-slices": Kind(
        "warning",
        wanted="a file that says which of its axes is depth",
        todo="if it is a stack of slices, say `axes: ZYX`; if it is channels, `axes: CYX`",
        why="Tools that write an ImageJ file without axes call the slices of a stack channels.",
        example="tifffile.imwrite('a.tif', stack, imagej=True): 60 channels and no depth",
    ),
    "chunks-missing": Kind(
        "warning",
        wanted="every chunk of the volume",
        todo="copy or convert the file again; if it is meant to be empty there, ignore this",
        why="Chunks that were never written read as a fill value: a transfer that broke off and "
        "an empty volume look alike.",
        example="a Zarr folder of which a copy was interrupted: 120 of 512 chunks are not there",
    ),
    "chunks-nested": Kind(
        "warning",
        wanted="metadata that say how chunks are named",
        todo="nothing; to be rid of this, write `dimension_separator` into the .zarray",
        why="Read as its metadata say, every voxel of the array would be the fill value.",
        example="an old nested Zarr v2 store whose .zarray has no dimension_separator",
    ),
    "chunks-unlisted": Kind(
        "info",
        wanted="a store that lists what it holds, as S3 and Google Cloud Storage do",
        todo="nothing, as long as nobody writes there; else read it from a bucket or a disk",
        why="A web server gives files by name alone: of inputs there only the metadata are known "
        "again, and a chunk that is exchanged between two runs is not noticed.",
        example="data: {root: https://host/em.zarr}",
    ),
    "class-untrained": Kind(
        "warning",
        wanted="voxels of every class in the training part",
        todo="choose another seed, fold or `split.group`, or leave the class out with "
        "`data.ignore`",
        why="What does not occur cannot be learnt, and its output is trained to say no.",
        example="of 40 cases one holds class 7, and it is held out for validation",
    ),
    "class-unvalidated": Kind(
        "warning",
        wanted="voxels of every class in the validation part",
        todo="hold out more with `split.fraction`, or choose another seed, fold or `split.group`",
        why="How well a class is learnt shows nowhere if no voxel of it is held out.",
        example="of 5 cases one holds class 7, and it is trained on",
    ),
    "clip-collapses": Kind(
        "warning",
        wanted="bounds that leave a range",
        todo="set `preprocess.clip: auto`, or null for none",
        why="Clipped to one value, nothing is left to learn from.",
        example="`clip: [5, 95]` on an image that is 97% zero",
    ),
    "clip-cuts-labels": Kind(
        "warning",
        wanted="bounds that spare what is to be learned",
        todo="set `preprocess.clip: auto`, or wider percentiles, or null for none",
        why="Bright spots that are rarer than the percentile are cut off before training.",
        example="`clip: [0.5, 99.5]` cuts 80% of the labelled voxels of sparse spots",
    ),
    "constant-image": Kind(
        "warning",
        wanted="an image that varies",
        todo="nothing can be learned from it; leave it out",
        why="An empty export or the wrong channel: patches from it are all alike.",
        example="channel 1 is 0 everywhere",
    ),
    "copy-left-out": Kind(
        "warning",
        wanted="each image once",
        todo="remove the copy",
        why="A copy adds nothing to training, and leaks if it lies on the other side of the split.",
        example="cell_1.tif and cell_1 (copy).tif",
    ),
    "cut-objects": Kind(
        "info",
        wanted="whole objects, where their shape or skeleton matters",
        todo="nothing, unless whole objects are needed",
        why="Objects that touch the faces of the volume are cut there.",
        example="neurites that run through a cube of a larger volume",
    ),
    "dataset-json": Kind(
        "warning",
        wanted="a dataset.json that says what is there",
        todo="mend dataset.json, or the files",
        why="What an nnU-Net data set says of itself is believed, so it must be so.",
        example="`numTraining` is 20 and imagesTr/ holds 19 cases",
    ),
    "duplicate-image": Kind(
        "warning",
        wanted="each image once",
        todo="remove one",
        why="The same voxels under two names weigh double, or leak into the validation.",
        example="the same image exported twice under two names",
    ),
    "empty-label": Kind(
        "warning",
        wanted="labels that hold something",
        todo="nothing is annotated; leave the case out, or mend it",
        why="A label that is 0 everywhere teaches that all is background.",
        example="a label file that was created and never painted",
    ),
    "empty-mask": Kind(
        "error",
        wanted="a valid mask that is not 0 somewhere",
        todo="mend the mask or leave it out",
        why="Where the valid mask is 0 the label is not used.",
        example="a mask whose 1 was saved as 0",
    ),
    "export-changes": Kind(
        "info",
        wanted="a target that takes what the set holds as it is",
        todo="nothing: what was changed can be undone",
        why="Other trainers name, number and lay out things otherwise; nothing of it is lost.",
        example="ids beyond 65535 for a target of 16 bits are numbered anew, with a table beside",
    ),
    "export-impossible": Kind(
        "error",
        wanted="what the target cannot train without",
        todo="choose another target",
        why="The target would refuse what is written, or train on nothing.",
        example="a set without labels for nnU-Net",
    ),
    "export-loses": Kind(
        "warning",
        wanted="a target that can express all that the set holds",
        todo="see whether the target can do without",
        why="What a target cannot express is not handed over, and it trains on something else.",
        example="instances for nnU-Net: every id becomes class 1",
    ),
    "few-positions": Kind(
        "warning",
        wanted="at least 50 places",
        todo="set plan.patch_size smaller, or add volumes",
        why="A network sees the same patches again within minutes and learns them by heart.",
        example="one image of 100 x 100 and a patch of 96 x 96: 25 places",
    ),
    "file-left-out": Kind(
        "warning",
        wanted="files whose names or datasets say what they are",
        todo="name the dataset with `image_key`, or list the cases by hand",
        why="What is left out is not trained on.",
        example="one HDF5 of ten calls its image `t0/channel0` instead of `raw`",
    ),
    "geometry-ambiguous": Kind(
        "warning",
        wanted="a header that says one thing only",
        todo="correct the header, or take voxels as stored with `data.geometry: stored`",
        why="A NIfTI file may say twice where it lies; programs differ in whom they believe.",
        example="a sform of the scanner and a qform of another program, mirrored in x",
    ),
    "geometry-differs": Kind(
        "error",
        wanted="image, label, mask and channels on one grid",
        todo="bring them to the image's grid with `data.geometry: header`, or, where the headers "
        "are wrong and the voxels fit as they are stored, say `data.geometry: stored`",
        why="Voxels are paired by their index. Where headers say that two files lie otherwise, "
        "labels would be trained on in the wrong place.",
        example="a label saved by a program that flips the first axis: mirrored in x",
    ),
    "geometry-one-sided": Kind(
        "warning",
        wanted="a place in the headers of both files, or of none",
        todo="see whether one is a part of the other; write the place into both, or say "
        "`data.geometry: stored` where the voxels fit as they are stored",
        why="Where only one of two files says where it lies, whether they lie alike cannot be "
        "told from headers, and voxels are paired by their index. An info between formats of "
        "which one cannot say it.",
        example="raw in an HDF5 has an `offset` of 10, 0, 0, and labels beside it have none",
    ),
    "geometry-unreadable": Kind(
        "warning",
        wanted="an affine that gives every voxel a place of its own",
        todo="correct the header, or say `data.geometry: stored`",
        why="Whether image and label lie alike cannot be told.",
        example="a NIfTI file whose sform is all zeros",
    ),
    "ids-by-section": Kind(
        "warning",
        wanted="one id for an object in all of its sections",
        todo="join them (`labels: {threshold: 1, connected_components: 26}` where objects do not "
        "touch), or read the sections as images of their own: `slices: false`",
        why="Objects that change their id from section to section are torn into discs: what is "
        "learnt in 3D is wrong.",
        example="a stack that a 2D segmenter labelled picture by picture, without stitching",
    ),
    "ids-nested": Kind(
        "warning",
        wanted="objects beside one another",
        todo="if they are classes (a cell and its nucleus), set `label_kind: classes`; if two "
        "kinds of objects share one file, save each kind as a file of its own",
        why="One object within another is mostly a part of it: a class map, or cells and their "
        "nuclei in one file. As instances, a cell would be a ring around its nucleus.",
        example="1 is the cell, 2 its nucleus, in every cell",
    ),
    "ids-scattered": Kind(
        "warning",
        wanted="objects that hang together",
        todo="check that these are ids and not noise; `labels: {connected_components: 26, "
        "min_size: 10}` makes objects of pieces",
        why="An id that lies about in hundreds of specks is no object: a class map, noise, "
        "or a file whose bytes were read wrongly.",
        example="20 ids lie in 4000 pieces, 3800 of fewer than 5 voxels",
    ),
    "ids-too-large": Kind(
        "error",
        wanted="ids up to 2**63 - 1",
        todo="renumber them with `labels: {relabel: true}`",
        why="Trainers hold ids as signed 64-bit integers.",
        example="webKnossos ids with the highest bit set",
    ),
    "ignore-label": Kind(
        "info",
        wanted="nothing else, if it is so",
        todo="call the label otherwise in dataset.json, if it is a class",
        why="The label that is called ignore is no class: where it lies is not trained on.",
        example='`"labels": {"background": 0, "cell": 1, "ignore": 2}`',
    ),
    "image-equals-label": Kind(
        "error",
        wanted="an image and its label",
        todo="name the right folders with `image_dir` and `label_dir`",
        why="The same file was given as image and as label, so that there is nothing to learn.",
        example="labels/ is a copy of images/",
    ),
    "image-lossy": Kind(
        "info",
        wanted="images as the microscope gave them",
        todo="take the original files where there are any",
        why="JPEG smooths fine structure and puts edges where its blocks meet.",
        example="a stack of JPEG slices",
    ),
    "images-labels-swapped": Kind(
        "error",
        wanted="images among the images and labels among the labels",
        todo="swap them: `image_dir` names the folder of images, `label_dir` that of labels",
        why="The two folders, keys or files are mixed up.",
        example="labels/c0.tif holds 4000 grey values, images/c0.tif 12 ids",
    ),
    "images-left-out": Kind(
        "warning",
        wanted="one image in each file",
        todo="save each image as a file of its own",
        why="A file may hold several images, and only one of them is read.",
        example="a TIFF with the overview and the stack in it",
    ),
    "intensities-scaled": Kind(
        "info",
        wanted="nothing else: the header asks for it",
        todo="nothing",
        why="The header of a NIfTI file holds a factor and an offset for the stored numbers.",
        example="scl_slope 0.25: a stored 8 is read as 2.0",
    ),
    "label-antialiased": Kind(
        "warning",
        wanted="labels with hard borders: one value for each object or class",
        todo="`labels: {threshold: 128}` makes a mask of it; or export it without "
        "smoothing, resizing or JPEG",
        why="Grey values along borders are read as ids or classes that nobody painted.",
        example="a mask of 0 and 255 that was resized: 1 to 254 lie along its borders",
    ),
    "label-colours": Kind(
        "error",
        wanted="one id for each voxel",
        todo="`label_colours: unique` gives each colour an id; or save one channel",
        why="Colours stand for objects or classes, but they are three numbers.",
        example="an RGB mask whose cells are red, green, blue",
    ),
    "label-intensities": Kind(
        "warning",
        wanted="labels: patches of one value with hard borders",
        todo="give the file with the labels; `label_dir` or `label_key` names it",
        why="Almost every voxel differs from its neighbour, as in an image.",
        example="the raw channel was saved as the label",
    ),
    "label-inverted": Kind(
        "warning",
        wanted="0 for the background",
        todo="`labels: {background: 255}` makes that value the background, and 0 an object",
        why="What is 0 is not learned. A mask in which objects are 0 and the background is 1 or "
        "255 trains a network on the background.",
        example="a mask of 0 and 255 from ImageJ with `Black background` switched off",
    ),
    "label-lossy": Kind(
        "warning",
        wanted="labels in a format that keeps every value",
        todo="export the labels as PNG or TIFF",
        why="JPEG changes values along borders, so that ids appear that nobody painted.",
        example="mask.jpg: 0 and 255 became 0 to 7 and 249 to 255",
    ),
    "label-noise": Kind(
        "warning",
        wanted="labels: patches of voxels that hang together",
        todo="look at the label: an image above a threshold wants to be smoothed first, and then "
        "`labels: {connected_components: 26, min_size: 10}` makes objects of it",
        why="Voxels that are labelled here and there, as noise is, are no annotation.",
        example="every voxel of a noisy image that is brighter than 100",
    ),
    "label-offset": Kind(
        "warning",
        wanted="labels that count from 0",
        todo="subtract the offset; ImageJ adds 32768 to signed images",
        why="A signed image was stored as unsigned, so that 0 became 32768.",
        example="values 32768, 32769 and 32770 for 0, 1 and 2",
    ),
    "label-one-hot": Kind(
        "error",
        wanted="one id for each voxel",
        todo="save the number of the channel instead (numpy.argmax over the channels, plus 1)",
        why="One channel for each class is what comes out of networks, not what goes in.",
        example="4 channels of 0 and 1",
    ),
    "label-outlines": Kind(
        "warning",
        wanted="objects labelled whole",
        todo="fill them (scipy.ndimage.binary_fill_holes for each id); if the lines are what is to "
        "be learned, say `findings: {ignore: [label-outlines]}`",
        why="What an outline holds is 0, so that a network learns the inside of objects as "
        "background.",
        example="regions of ImageJ that were drawn into a mask instead of filled",
    ),
    "label-regions": Kind(
        "error",
        wanted="one id for each voxel",
        todo="save one number for each voxel: that of the smallest channel that holds it, or a "
        "number for each combination",
        why="Channels that overlap or lie within one another say several things of one voxel; an "
        "id says one.",
        example="whole cell, nucleus and nucleolus as three channels of 0 and 1",
    ),
    "label-without-image": Kind(
        "error",
        wanted="images, with noise or soft borders",
        todo="give the folder that holds the images, too; if these are images, list them by hand "
        "as `image:`",
        why="Labels that lie alone, or under names that nobody knows as a label's, would be taken "
        "for images.",
        example="nuclei_a.tif beside a.tif: 54 ids in even pieces with hard borders",
    ),
    "labels-exchanged": Kind(
        "warning",
        wanted="the label of each image",
        todo="look at both cases together, and give each its own label",
        why="Labels that belong to another image teach nothing. Of cases of one shape, those whose "
        "labels fit worst were tried with each other's images.",
        example="cell_1.tif holds the label of cell_2.tif, and the other way round",
    ),
    "labels-from-float": Kind(
        "info",
        wanted="whole numbers",
        todo="nothing: the values are checked to be whole numbers",
        why="Labels that are stored as floating point are read as the ids that they are.",
        example="a NIfTI label of 0.0, 1.0, 2.0",
    ),
    "labels-misplaced": Kind(
        "warning",
        wanted="labels that lie on what they name",
        todo="look at image and label together; flip, transpose or move the label, or mend "
        "its header",
        why="Labels that lie beside their objects teach nothing. A few blocks were "
        "compared under mirrored, transposed and shifted placements.",
        example="a label that was saved with its x axis mirrored",
    ),
    "labels-repaired": Kind(
        "info",
        wanted="nothing else, if it is what you asked for",
        todo="see whether the numbers are what you expect",
        why="What `data.labels` and `label_colours` asked for was done while the labels were read.",
        example="`labels: {threshold: 128, connected_components: 26}`: 16 objects, 0 too small",
    ),
    "many-classes": Kind(
        "warning",
        wanted="few classes",
        todo="if each is one object, set `label_kind: instances`",
        why="Hundreds of values are mostly ids of objects, not classes.",
        example="312 values up to 940 with `label_kind: classes`",
    ),
    "measured-in-part": Kind(
        "info",
        wanted="every voxel measured",
        todo="leave out `data.read: sample` where there is time to read all",
        why="What is rare may lie elsewhere: percentiles hold for what was seen, errors in voxels "
        "are not looked for, and objects are cut by the places.",
        example="a volume of 40 GB in tiles, with `data.read: sample`",
    ),
    "missing-classes": Kind(
        "info",
        wanted="every class in every case",
        todo="nothing, if they do not occur here",
        why="Classes that a case does not hold cannot be learned or validated on it.",
        example="classes 1, 2 and 5 occur, 3 and 4 do not",
    ),
    "mixed-binary": Kind(
        "warning",
        wanted="one value for the foreground",
        todo="`labels: {threshold: 1}` makes it 1 everywhere",
        why="1 and 255 are read as two objects or classes, and are one.",
        example="sections 0 to 9 hold 0 and 1, sections 10 to 19 hold 0 and 255",
    ),
    "mixed-channels": Kind(
        "error",
        wanted="one number of channels",
        todo="give all the same ones",
        why="A network takes one number of channels.",
        example="9 grey images and one RGB screenshot",
    ),
    "mixed-dimensions": Kind(
        "error",
        wanted="2D images or volumes",
        todo="prepare them apart",
        why="A network is for 2D or for 3D.",
        example="a stack and its maximum projection in one folder",
    ),
    "mixed-dtypes": Kind(
        "warning",
        wanted="one dtype, and one scale of intensities",
        todo="check that they are on one scale, or normalise each case: `scope: case`",
        why="uint8 beside uint16 is often the same signal on two scales.",
        example="uint16 in 9 (a, b, c, ...), uint8 in 1 (d)",
    ),
    "mixed-spacings": Kind(
        "warning",
        wanted="one spacing",
        todo="resample with `target_spacing`",
        why="One object has another size in voxels in each image.",
        example="three stacks with 0.1 µm and one with 0.3 µm",
    ),
    "names-alike": Kind(
        "warning",
        wanted="names that differ in more than capital letters",
        todo="see whether one is a copy, and rename it",
        why="On macOS and Windows the files of both would have one name.",
        example="images/Cell1.tif and images/cell1.tif",
    ),
    "no-background": Kind(
        "info",
        wanted="0 where nothing is annotated, if there is such a place",
        todo="nothing, if the objects fill the volume",
        why="No voxel is 0: fine for dense segmentations, wrong where 0 was meant for background.",
        example="neurons that fill the block",
    ),
    "no-labels": Kind(
        "warning",
        wanted="labels, if something supervised is to be trained",
        todo="name their folder with `label_dir`, or put them beside the images",
        why="The patches will hold images alone.",
        example="images/ without labels/",
    ),
    "not-finite": Kind(
        "error",
        wanted="numbers",
        todo="replace them, since they spoil every mean and every patch that they are in",
        why="NaN spreads through every sum into the whole network.",
        example="a float32 image whose border was filled with NaN by registration",
    ),
    "note": Kind(
        "info",
        wanted="nothing else, if it is so",
        todo="nothing, if it is so",
        why="How a file or a folder was read.",
        example="page axis Q read as Z",
    ),
    "ome-unfit": Kind(
        "warning",
        wanted="OME metadata that fit the pages of the file",
        todo="check the axes, and give them with `axes:`",
        why="The file's own description of its pages is wrong, so they are read in their order.",
        example="an OME-TIFF that was cropped by a program that kept the old description",
    ),
    "ome-version-unknown": Kind(
        "warning",
        wanted="OME-Zarr 0.1 to 0.6",
        todo="compare shape, axes and spacing with what you know of the data",
        why="A later version may say things in a way that is not understood here.",
        example="a multiscales with version 0.9",
    ),
    "one-instance": Kind(
        "warning",
        wanted="an id for each object",
        todo="set `label_kind: classes`, or give each object its own id",
        why="A mask of 0 and 1 read as instances says that all objects are one.",
        example="a binary nuclei mask with `label_kind: instances`",
    ),
    "option-idle": Kind(
        "warning",
        wanted="options that have something to act on",
        todo="leave the option out, or give what it needs",
        why="An option was set that does nothing with this data.",
        example="`filter: {name: mask}` without masks",
    ),
    "orphan-labels": Kind(
        "warning",
        wanted="an image for each label",
        todo="add the image, or name the label like its image",
        why="A label without an image is not trained on; mostly a name is spelled differently.",
        example="labels/Cell7.tif beside images/cell_7.tif",
    ),
    "pages-left-out": Kind(
        "info",
        wanted="one image in a file",
        todo="nothing",
        why="Thumbnails and smaller copies of the image are passed over.",
        example="a scanner's TIFF with a 256 x 256 preview behind the stack",
    ),
    "palette-read": Kind(
        "info",
        wanted="nothing else: labels are indices, images are colours",
        todo="nothing, unless the colours themselves are meant",
        why="A PNG with a palette holds indices, and a colour for each.",
        example="a VOC label: index 15 with the colour (192, 128, 128)",
    ),
    "patches-padded": Kind(
        "warning",
        wanted="patches that lie in the data",
        todo="set plan.patch_size smaller",
        why="More than half of the voxels of the patches lie beyond the data and are filled in.",
        example="patches of 64 sections from stacks of 20",
    ),
    "plan-impossible": Kind(
        "error",
        wanted="a patch and a network that fit the memory, and volumes that fit the disk",
        todo="raise plan.memory, or give a smaller plan.patch_size",
        why="Nothing can be prepared for a network that cannot be trained.",
        example="`plan: {memory: 1MB}`",
    ),
    "points-outside": Kind(
        "warning",
        wanted="points that lie in the volume",
        todo="give `data.points.offset`, where points count from a larger volume",
        why="Points outside are not trained on; mostly they count from another corner.",
        example="the markers of 30 planes beside 6 of them: `points: {offset: [-9, 0, 0]}`",
    ),
    "read-as-stack": Kind(
        "info",
        wanted="nothing else, if it is so",
        todo="set `slices: false` for separate images, `slices: true` for one stack",
        why="A folder of pictures may be one volume or many images.",
        example="images/: 125 PNG of 250x250 with running numbers read as one stack",
    ),
    "regions-as-classes": Kind(
        "warning",
        wanted="a class for each value",
        todo="nothing, where one class a value will do; else make the regions of the labels that "
        "the loader gives",
        why="Labels keep their values, each as a class of its own: what is trained is another task "
        "than nnU-Net's, and an export for nnU-Net names classes, not regions.",
        example='"labels": {"whole tumour": [1, 2, 3], "core": [2, 3]}',
    ),
    "same-image": Kind(
        "warning",
        wanted="one label for each image",
        todo="decide for one label, if they are not two raters",
        why="The same image with two labels is kept on one side of the split.",
        example="two raters annotated one image",
    ),
    "same-label": Kind(
        "warning",
        wanted="a label of its own for each image",
        todo="give each image its own label",
        why="A label was saved under two names: one of the images is trained on another's objects.",
        example="c7.tif was saved over with the label of c6.tif",
    ),
    "sections-unrelated": Kind(
        "warning",
        wanted="a folder of sections that follow one another, or of images of their own",
        todo="if they are images of their own, set `slices: false`; if they are one stack, "
        "`slices: true`",
        why="Pictures with running numbers are read as a stack. Where a picture shows nothing of "
        "the one before, a 3D network would learn from neighbours that are none.",
        example="tile_001.png, tile_002.png, ... of different slides",
    ),
    "series-joined": Kind(
        "warning",
        wanted="one stack in a file",
        todo="if they are not the planes of one stack, save them as files of their own",
        why="The file calls each of its pages an image of its own; they are read as one stack.",
        example="tifffile.imwrite('a.tif', plane, append=True) for every plane",
    ),
    "shape-mismatch": Kind(
        "error",
        wanted="image, label and mask of one shape (Z, Y, X)",
        todo="give both one shape, or check that they belong together",
        why="Each voxel of the label belongs to the voxel of the image at the same place.",
        example="a label of (64, 512, 512) beside an image of (512, 512, 64): `label_axes: YXZ`",
    ),
    "siblings-unused": Kind(
        "info",
        wanted="nothing else, if they are not meant",
        todo="name them with `image_dir`, `label_dir` or `mask_dir`, if they are meant",
        why="Other folders, files or datasets lie beside those that are read.",
        example="synapses/ beside labels/; imagesTs/ of nnU-Net",
    ),
    "skeleton-point": Kind(
        "info",
        wanted="skeletons that run along their objects",
        todo="nothing, where the objects are as wide as long, such as nuclei; else look at them",
        why="A round or square object has no middle line: its skeleton is one point.",
        example="12 nuclei: every voxel's offset leads to the middle of its nucleus",
    ),
    "slices-differ": Kind(
        "error",
        wanted="folders of slices with the same numbers",
        todo="add or remove slices, or set `slices_by: order`",
        why="A slice missing in one folder alone would put every later one over another section.",
        example="images/ has no s_004.png and labels/ no s_008.png",
    ),
    "slices-missing": Kind(
        "warning",
        wanted="slices whose numbers run without a gap",
        todo="add the missing ones, or make a case of each unbroken part",
        why="The sections before and after a gap are read as neighbours.",
        example="s_003.png is followed by s_005.png",
    ),
    "slices-unnumbered": Kind(
        "warning",
        wanted="slices that bear the same numbers in each folder",
        todo="number the slices alike",
        why="Without numbers, slices of image and label are paired by their order alone.",
        example="a.png, b.png beside one.png, two.png",
    ),
    "small-objects": Kind(
        "info",
        wanted="objects of more than a few voxels",
        todo="nothing, or leave them out with `labels: {min_size: 10}`",
        why="Objects of a few voxels are mostly slips of the brush.",
        example="12 of 340 objects have fewer than 10 voxels",
    ),
    "spacing-from-json": Kind(
        "info",
        wanted="a spacing in µm",
        todo="give `spacing:` if it is another",
        why="nnU-Net keeps the spacing of TIFF files in CASE.json, without a unit.",
        example='imagesTr/c1.json: {"spacing": [0.3, 0.1, 0.1]}',
    ),
    "spacing-mismatch": Kind(
        "warning",
        wanted="one spacing for an image and its label",
        todo="the image's is used, or give the right one as `spacing:`",
        why="One of the two headers is wrong, and sizes follow from it.",
        example="the label says 1, 1, 1 µm and the image 0.3, 0.1, 0.1 µm",
    ),
    "spacing-replaced": Kind(
        "info",
        wanted="what you gave",
        todo="leave `spacing:` out to take the file's",
        why="The spacing given replaces that of the file, as asked for.",
        example="`spacing: 50, 4, 4 nm` over a header of 1, 1, 1",
    ),
    "spacing-unread": Kind(
        "warning",
        wanted="lengths with a unit of length",
        todo="give the spacing as `spacing:`",
        why="The file says something about its spacing that cannot be taken for a length.",
        example="ImageJ unit 'pixel', or a resolution for printers in dots per inch",
    ),
    "sparse-label": Kind(
        "info",
        wanted="a valid mask where 0 means `not annotated`",
        todo="if 0 means `not annotated` and not background, set `data.unlabelled: 0`, or give a "
        "valid mask (`mask_dir`, `mask_key`, or `mask:` in the list of cases)",
        why="What is not annotated would be taught as background.",
        example="5 of 125 planes are labelled, or 6 nuclei of 30 (a warning); 1% of the voxels are "
        "(an info)",
    ),
    "split-blocks": Kind(
        "info",
        wanted="a block for validation with a gap before it",
        todo="set split.fraction or split.gap for another",
        why="Of a single volume a block is held out for validation.",
        example="z 80 to 100 of 100 is held out, with a gap of 16",
    ),
    "split-empty": Kind(
        "warning",
        wanted="something for training and something for validation",
        todo="set split.fraction above 0",
        why="Without validation nobody sees when training goes wrong.",
        example="split.fraction: 0",
    ),
    "split-group": Kind(
        "error",
        wanted="each group on one side",
        todo="split by group",
        why="Cases of one animal are alike: validating on them flatters.",
        example="the group 'mouse3' is in both train and val",
    ),
    "split-impossible": Kind(
        "error",
        wanted="data that can be divided into training and validation",
        todo="add a case, or set split.fraction to 0",
        why="Nothing is left for one of the two sides.",
        example="one small volume and split.kind: cases",
    ),
    "split-missing-case": Kind(
        "warning",
        wanted="every case in train or val",
        todo="add it to one side",
        why="What is in neither is not used.",
        example="c9 is in neither train nor val",
    ),
    "split-narrow-gap": Kind(
        "warning",
        wanted="a gap of one patch between what is trained and what is validated on",
        todo="widen split.gap",
        why="Validation patches would see voxels that lie next to trained ones.",
        example="a gap of 8 with patches of 32",
    ),
    "split-near-copy": Kind(
        "warning",
        wanted="other images on the two sides of the split",
        todo="remove one, or give both one `group:`, which keeps them on one side",
        why="Another type, a few changed voxels, a cut, a shift or a mirror do not make a new "
        "image: what trains shows what it is validated on.",
        example="crop.tif is cut out of whole.tif, which is on the other side of the split",
    ),
    "split-overlap": Kind(
        "error",
        wanted="no voxel on both sides",
        todo="widen split.gap",
        why="Validating on what was trained on says nothing.",
        example="train z 0 to 60 and val z 50 to 100",
    ),
    "split-same-file": Kind(
        "error",
        wanted="each file on one side",
        todo="remove one, or give both one group",
        why="Validating on what was trained on says nothing.",
        example="one file listed under two names",
    ),
    "split-same-image": Kind(
        "error",
        wanted="each image on one side",
        todo="remove one, or give both one group",
        why="Validating on what was trained on says nothing.",
        example="a copy of a training image among the validation cases",
    ),
    "split-small": Kind(
        "warning",
        wanted="a volume that holds two patches and a gap",
        todo="give a smaller plan.patch_size, or more volumes",
        why="The patch is made smaller than planned so that a block can be held out.",
        example="too small for two patches and a gap: at most 10 voxels along z",
    ),
    "split-unknown-case": Kind(
        "error",
        wanted="splits of the cases that are there",
        todo="make the splits anew",
        why="The splits name a case that the data does not have.",
        example="c9 is in the splits but not in the data",
    ),
    "split-unlabelled": Kind(
        "info",
        wanted="labels for what is validated on",
        todo="nothing: they are not drawn for validation",
        why="Without a label nothing can be validated.",
        example="9 cases without a label are not drawn for validation",
    ),
    "splits-from-file": Kind(
        "info",
        wanted="nothing else, if these splits are wanted",
        todo="set `split.kind: cases` to draw anew",
        why="The data set brings its own folds, which results are compared by.",
        example="splits_final.json of nnU-Net; `split.fold` chooses one",
    ),
    "stack-broken": Kind(
        "warning",
        wanted="slices of one size whose numbers occur once, or images of their own",
        todo="mend or remove these, or set `slices: true`; if all are images of their own, set "
        "`slices: false`",
        why="A few files keep a folder from being read as one stack, so that each slice becomes a "
        "2D image of its own.",
        example="s_007.png is 500 x 512, and 124 others are 512 x 512",
    ),
    "suffix-wrong": Kind(
        "info",
        wanted="a name that ends as the content does",
        todo="rename it",
        why="Other programs go by the name and fail.",
        example="a plain NIfTI file called brain.nii.gz",
    ),
    "tiles-missing": Kind(
        "warning",
        wanted="every tile that the JSON lists",
        todo="add the missing tiles, if they exist",
        why="Where tiles are missing, images hold a fill value and labels are not valid.",
        example="3 of 40 tiles are missing: 04/1_1.png, ...",
    ),
    "unit-guessed": Kind(
        "info",
        wanted="a header that names its unit",
        todo="give the spacing as `spacing:` if it is not so",
        why="The unit of a NIfTI file is unknown in its header; mm is the custom.",
        example="NIfTI unit unknown: spacing read as mm",
    ),
    "unknown-spacing": Kind(
        "warning",
        wanted="a spacing (z, y, x)",
        todo="give it as `spacing:`, or every physical size and anisotropy is unknown",
        why="The plan takes the anisotropy from the spacing, and without one assumes none.",
        example="`spacing: 50, 4, 4 nm`",
    ),
    "unlabelled-images": Kind(
        "warning",
        wanted="a label for each image",
        todo="add it, name it like its image, or leave the image out",
        why="Of images with and without labels those without are left out of training.",
        example="images/c7.tif has no labels/c7.tif",
    ),
    "unprintable-name": Kind(
        "error",
        wanted="names of letters, digits and signs that can be printed",
        todo="rename it",
        why="Names stand in YAML, JSON, logs and reports; line breaks and bytes that are no text "
        "would break them or be lost there.",
        example="a file called `cell<newline>1.tif`, or one from an archive in another encoding",
    ),
    "unreadable": Kind(
        "error",
        wanted="a file that can be read to its end",
        todo="copy or export it again, or leave it out",
        why="A file that cannot be read cannot be trained on.",
        example="c3.tif: is cut short: 1048576 bytes are missing",
    ),
    "value-offset": Kind(
        "warning",
        wanted="values as they are stored",
        todo="nothing; to be rid of this, save the file with its values",
        why="ImageJ keeps signed numbers shifted by 32768 and says so in its calibration, which "
        "is applied.",
        example="a label of 0, 1, 2 that is stored as 32768, 32769, 32770",
    ),
    "values-too-large": Kind(
        "error",
        wanted="values that fit 32-bit floating point",
        todo="scale the image, or mend what wrote it",
        why="Networks compute in 32 bits or less; larger values become infinite.",
        example="a float64 image of values up to 1e300",
    ),
    "vanished-ids": Kind(
        "warning",
        wanted="objects that survive resampling",
        todo="set a finer preprocess.target_spacing, or none",
        why="Objects that are thinner than the new voxels vanish.",
        example="3 label ids vanished in preprocessing: 17, 31, 80",
    ),
    "white-is-zero": Kind(
        "warning",
        wanted="values that are brighter the higher they are",
        todo="nothing, if the voxels are right as they are stored, as in most programs; else save "
        "the file with its values inverted",
        why="The header asks viewers to show 0 as white, which the voxels that are read know "
        "nothing of. An info of labels, whose values are no brightness.",
        example="a TIFF of a scanner, or of ImageJ with an inverting look-up table",
    ),
}
