"""Train a 3D U-Net from nothing but the `train.yaml` of a patch set: plain torch.

python scripts/train_from_config.py PATCHES [--epochs 2] [--steps 20] [--features 0.25]
"""

import argparse
import sys
from itertools import chain, islice, repeat
from pathlib import Path

import torch
import yaml
from torch import nn

from volprep.loader import dataloader
from volprep.targets import LabelPatch, make_targets, targets_from_config


def stage(inputs, outputs, kernel, stride):
    """Two convolutions, the first with the stride of its stage."""
    pad, layers = tuple(k // 2 for k in kernel), []
    for n_in, step in ((inputs, tuple(stride)), (outputs, 1)):
        layers.append(nn.Conv3d(n_in, outputs, tuple(kernel), step, pad, bias=False))
        layers += [nn.InstanceNorm3d(outputs, affine=True), nn.LeakyReLU(0.01, inplace=True)]
    return nn.Sequential(*layers)


class UNet(nn.Module):
    """The network of train.yaml, with an output at every stage of the way up."""

    def __init__(self, training, share):
        super().__init__()
        strides, kernels = training["strides"], training["kernel_sizes"]
        width = [max(4, round(f * share)) for f in training["features"]]
        inputs, n_out = [training["n_channels"], *width[:-1]], len(training["output_channels"])
        self.down = nn.ModuleList(map(stage, inputs, width, kernels, strides))
        below = list(zip(width, width[1:], map(tuple, strides[1:]), kernels, strict=False))
        self.across = nn.ModuleList(
            nn.ConvTranspose3d(b, a, s, s, bias=False) for a, b, s, _ in below
        )
        self.up = nn.ModuleList(stage(2 * a, a, k, (1, 1, 1)) for a, _, _, k in below)
        self.heads = nn.ModuleList(nn.Conv3d(w, n_out, 1) for w in width[: max(1, len(below))])

    def forward(self, x):
        """Scores at each resolution, the full one first."""
        skips = [x := level(x) for level in self.down]
        scores = [] if self.across else [self.heads[0](x)]
        for i in reversed(range(len(self.across))):
            x = self.up[i](torch.cat([self.across[i](x), skips[i]], 1))
            scores.insert(0, self.heads[i](x))
        return scores


def truth_of(batch, training):
    """What the outputs should be, one channel each, and where that is known."""
    label = batch["label"]
    if training["class_values"] is not None:
        known = label != training["ignore_index"]
        shares = nn.functional.one_hot(label.where(known, 0), training["n_classes"])
        return shares.movedim(-1, 1).float(), known[:, None].float()
    targets, parts = targets_from_config(training["suggested_targets"]), []
    for patch in label.numpy():
        made = make_targets(targets, LabelPatch(patch, training["spacing"] or (1, 1, 1)))
        arrays = [a for n, a in made.items() if not n.endswith(("_mask", "_weight"))]
        parts.append(torch.cat([torch.from_numpy(a).reshape(-1, *patch.shape) for a in arrays]))
    return torch.stack(parts).float(), batch.get("mask", torch.ones_like(label))[:, None].float()


def errors(scores, truth, known, softmax):
    """Cross-entropy over classes, or of each channel for itself; and the batch's soft Dice."""
    share = scores.softmax(1) if softmax else scores.sigmoid()
    entropy = nn.functional.binary_cross_entropy_with_logits(scores, truth, reduction="none")
    if softmax:
        entropy = -(truth * scores.log_softmax(1)).sum(1, keepdim=True)
    both, either = ((known * a).sum((0, 2, 3, 4)) for a in (share * truth, share + truth))
    weight = known.expand_as(entropy)
    return (weight * entropy).sum() / weight.sum().clamp(1), ((2 * both + 1) / (either + 1)).mean()


def look(model, batch, training):
    """The loss over all outputs, and the soft Dice of the full one."""
    device, loss, dice = next(model.parameters()).device, 0, []
    truth, known = (t.to(device) for t in truth_of(batch, training))
    deep, softmax = training["deep_supervision"], training["loss"]["name"] == "dice_ce"
    outputs = model(batch["image"].to(device))
    for scores, scale, weight in zip(outputs, deep["strides"], deep["weights"], strict=True):
        every = (..., *(slice(None, None, step) for step in scale))
        entropy, overlap = errors(scores, truth[every], known[every], softmax)
        loss, dice = loss + weight * (entropy - overlap), [*dice, overlap.item()]
    return loss, dice[0]


parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("patches", type=Path)
for option, kind in (("--epochs", int), ("--steps", int), ("--features", float)):
    parser.add_argument(option, type=kind)
args = parser.parse_args()
training = yaml.safe_load((args.patches / "train.yaml").read_text())
torch.manual_seed(training["seed"])
model = UNet(training, args.features or 1).to("cuda" if torch.cuda.is_available() else "cpu")
how, steps = training["optimiser"], args.steps or training["steps_per_epoch"]
epochs, sgd = args.epochs or how["epochs"], ("momentum", "nesterov", "weight_decay")
optimiser = torch.optim.SGD(model.parameters(), how["learning_rate"], **{k: how[k] for k in sgd})
rate = torch.optim.lr_scheduler.PolynomialLR(optimiser, epochs, how["power"])
batches, losses = chain.from_iterable(repeat(dataloader(args.patches, "train"))), []
for epoch in range(epochs):
    for batch in islice(batches, steps):
        loss, _ = look(model, batch, training)
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), how["clip_gradient_norm"])
        optimiser.step()
        losses.append(loss.item())
    rate.step()
    with torch.no_grad():
        held = [look(model, b, training)[1] for b in islice(dataloader(args.patches, "val"), 50)]
    dice = sum(held) / max(1, len(held))
    print(f"epoch {epoch}: loss {sum(losses[-steps:]) / steps:.3f}, held-out soft Dice {dice:.3f}")
sys.exit(0 if sum(losses[-5:]) < sum(losses[:5]) else "the loss does not fall")
