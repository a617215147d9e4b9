"""Which PyTorch key is which Flax leaf, for every model: lists of `torch_weights.Entry` in PyTorch's order."""

from mmcl_jax.models import blocks, inception, resnet
from mmcl_jax.torch_weights import (
    IGNORED,
    Entry,
    array_entry,
    batch_norm_entries,
    conv_entries,
    linear_entries,
    nested,
)


def inception_entries() -> list[Entry]:
    """Returns the mapping of torchvision's `inception_v3` to `InceptionV3`.

    `AuxLogits.*`, the auxiliary head, is `IGNORED`: published files have it, the model here does not.
    """
    names = [conv.name for conv in inception.convolutions(inception.STEM)]
    for block, branches in inception.BLOCKS.items():
        names += [f"{block}.{conv.name}" for branch in branches for conv in inception.convolutions(branch)]
    entries = []
    for name in names:
        path = name.split(".")
        entries += conv_entries(f"{name}.conv", (*path, "conv"), bias=False)
        entries += batch_norm_entries(f"{name}.bn", (*path, "bn"))
    entries += linear_entries("fc", ("fc",))
    auxiliary = linear_entries("AuxLogits.fc", ())
    for name in ("AuxLogits.conv0", "AuxLogits.conv1"):
        auxiliary += [*conv_entries(f"{name}.conv", (), bias=False), *batch_norm_entries(f"{name}.bn", ())]
    return entries + [Entry(entry.key, IGNORED) for entry in auxiliary]


def resnet34_entries() -> list[Entry]:
    """Returns the mapping of torchvision's `resnet34` to `ResNet34`."""
    entries = [*conv_entries("conv1", ("conv1",), bias=False), *batch_norm_entries("bn1", ("bn1",))]
    for stage, count in enumerate(resnet.BLOCKS):
        for block in range(count):
            name, path = f"layer{stage + 1}.{block}", (f"layer{stage + 1}_{block}",)
            for number in (1, 2):
                entries += conv_entries(f"{name}.conv{number}", (*path, f"conv{number}"), bias=False)
                entries += batch_norm_entries(f"{name}.bn{number}", (*path, f"bn{number}"))
            if resnet.downsamples(stage, block):
                entries += conv_entries(f"{name}.downsample.0", (*path, "downsample"), bias=False)
                entries += batch_norm_entries(f"{name}.downsample.1", (*path, "downsample_bn"))
    return entries + linear_entries("fc", ("fc",))


def ctrgcn_entries(base_channels: int = 64) -> list[Entry]:
    """Returns the mapping of the published CTR-GCN to `CTRGCN(base_channels=base_channels)`."""
    entries = batch_norm_entries("data_bn", ("data_bn",))
    channels_in = None
    for number, (width, stride) in enumerate(zip(blocks.WIDTHS, blocks.STRIDES, strict=True), start=1):
        channels = width * base_channels
        name, path = f"l{number}", (f"blocks_{number - 1}",)
        entries += _graph_conv_entries(f"{name}.gcn1", (*path, "gcn"), channels, down=channels != channels_in)
        entries += _temporal_entries(f"{name}.tcn1", (*path, "tcn"), channels // 4)
        if number > 1 and (channels != channels_in or stride != 1):
            entries += conv_entries(f"{name}.residual.conv", (*path, "residual"), axes=(1, 0))
            entries += batch_norm_entries(f"{name}.residual.bn", (*path, "residual_bn"))
        channels_in = channels
    return entries + linear_entries("fc", ("fc",))


def _graph_conv_entries(name: str, path: tuple[str, ...], channels: int, *, down: bool) -> list[Entry]:
    topology = (*path, "topology")
    entries = [array_entry(f"{name}.PA", (*topology, "PA"), 3), array_entry(f"{name}.alpha", (*topology, "alpha"), 1)]
    every = slice(None)
    for k in range(3):
        subset = f"{name}.convs.{k}"
        for number in (0, 1):
            entries += conv_entries(
                f"{subset}.conv{number + 1}", topology, axes=(1, 0), kernel="relation_kernel", index=(every, number, k)
            )
        stacked = slice(k * channels, (k + 1) * channels)
        entries += conv_entries(f"{subset}.conv3", (*path, "values"), axes=(1, 0), index=(every, stacked))
        entries += conv_entries(
            f"{subset}.conv4", topology, axes=(1, 0), kernel="lift_kernel", index=(k,), bias_index=(k,)
        )
    if down:
        entries += conv_entries(f"{name}.down.0", (*path, "down"), axes=(1, 0))
        entries += batch_norm_entries(f"{name}.down.1", (*path, "down_bn"))
    return entries + batch_norm_entries(f"{name}.bn", (*path, "bn"))


def _temporal_entries(name: str, path: tuple[str, ...], width: int) -> list[Entry]:
    """Branches 0 and 1 are the dilated convolutions, 2 the max pool, 3 the 1x1 convolution."""
    entries = []
    for branch in range(4):
        prefix, part = f"{name}.branches.{branch}", slice(branch * width, (branch + 1) * width)
        entries += conv_entries(f"{prefix}.0", (*path, "reduce"), axes=(1, 0), index=(slice(None), part))
        if branch == 3:
            entries += batch_norm_entries(f"{prefix}.1", (*path, "out_bn"), index=(part,))
            continue
        entries += batch_norm_entries(f"{prefix}.1", (*path, "reduce_bn"), index=(part,))
        last = f"{prefix}.4"
        if branch < len(blocks.DILATIONS):
            convolution = (*path, f"conv_dilation_{blocks.DILATIONS[branch]}")
            entries += conv_entries(f"{prefix}.3.conv", convolution, axes=(2, 1, 0))
            last = f"{prefix}.3.bn"
        entries += batch_norm_entries(last, (*path, "out_bn"), index=(part,))
    return entries


def mmcl_entries(base_channels: int = 64) -> list[Entry]:
    """Returns the mapping of the released MMCL model (CTR-GCN, FAM's MLP, two-term FRM) to `MMCL`'s variables.

    The image encoder is not part of it: the released code keeps the CNN apart (`inception_entries`).
    """
    entries = [
        array_entry("PosMatrix", ("refinement", "matrices"), 1, (0,)),
        array_entry("NegMatrix", ("refinement", "matrices"), 1, (1,)),
        *nested(ctrgcn_entries(base_channels), "", ("backbone",)),
    ]
    for name, path in (
        ("mlp.0", ("refinement", "phi_hidden")),
        ("mlp.2", ("refinement", "phi_output")),
        ("FAM_Aligh.mlp.0", ("alignment", "hidden")),
        ("FAM_Aligh.mlp.2", ("alignment", "output")),
    ):
        entries += linear_entries(name, path)
    return entries
