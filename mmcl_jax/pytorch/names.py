"""Which Flax leaf each PyTorch key is, for every model: lists of `state_dicts.Entry` in PyTorch's order."""

from collections.abc import Callable

from mmcl_jax.models import efficientnet, inception, infogcn, resnet
from mmcl_jax.models.blocks import DILATIONS, TEN_STAGES, Stages
from mmcl_jax.pytorch.state_dicts import (
    IGNORED,
    Entry,
    alias_entries,
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


def efficientnet_lite0_entries() -> list[Entry]:
    """Returns the mapping of `EfficientNet` of the package efficientnet-lite-pytorch to `EfficientNetLite0`."""
    entries = [*conv_entries("_conv_stem", ("stem",), bias=False), *batch_norm_entries("_bn0", ("stem_bn",))]
    for number, block in enumerate(efficientnet.BLOCKS):
        name, path = f"_blocks.{number}", (f"blocks_{number}",)
        layers = [("_expand_conv", "_bn0", "expand")] if block.expansion > 1 else []
        for convolution, norm, layer in [
            *layers,
            ("_depthwise_conv", "_bn1", "depthwise"),
            ("_project_conv", "_bn2", "project"),
        ]:
            entries += conv_entries(f"{name}.{convolution}", (*path, layer), bias=False)
            entries += batch_norm_entries(f"{name}.{norm}", (*path, f"{layer}_bn"))
    entries += [*conv_entries("_conv_head", ("head",), bias=False), *batch_norm_entries("_bn1", ("head_bn",))]
    return entries + linear_entries("_fc", ("fc",))


# Encoders in `mmcl_jax.models.image_encoders` that have published weights.
IMAGE_ENCODER_ENTRIES = {
    "efficientnet_lite0": efficientnet_lite0_entries,
    "inception_v3": inception_entries,
    "resnet34": resnet34_entries,
}


def ctrgcn_entries(base_channels: int = 64, stages: Stages = TEN_STAGES) -> list[Entry]:
    """Returns the mapping of the published CTR-GCN to `CTRGCN` with these fields."""
    return _block_entries(base_channels, stages, _ctr_graph_entries, _temporal_entries)


def ctrsgcn_entries(base_channels: int = 64, stages: Stages = TEN_STAGES) -> list[Entry]:
    """Returns the mapping of the published CTRS-GCN to `CTRSGCN` with these fields."""
    return _block_entries(base_channels, stages, _static_graph_entries, _plain_temporal_entries)


def hdgcn_entries(base_channels: int = 64, num_layers: int = 6, stages: Stages = TEN_STAGES) -> list[Entry]:
    """Returns the mapping of the published HD-GCN to `HDGCN` with these fields.

    The published class keeps its last layer's convolutions in a second attribute, `gcn1.conv_d`, which is another name
    of `gcn1.conv.5` in its state dict.

    Args:
      base_channels: channels of the first blocks.
      num_layers: layers of the hierarchy (6 for NTU), `len(graphs.hierarchical_adjacency(...))`.
      stages: channels and stride of each block.
    """

    def graph(number: int, name: str, path: tuple[str, ...], channels: int) -> list[Entry]:
        entries = _hierarchical_graph_entries(name, path, channels // 4, num_layers)
        return entries + (_layer_attention_entries(f"{name}.aha", (*path, "attention")) if number > 1 else [])

    def temporal(name: str, path: tuple[str, ...], channels: int) -> list[Entry]:
        return _temporal_entries(name, path, channels, separate_bias=True)

    return _block_entries(base_channels, stages, graph, temporal)


def _block_entries(
    base_channels: int,
    stages: Stages,
    graph_entries: Callable[..., list[Entry]],
    temporal_entries: Callable[..., list[Entry]],
) -> list[Entry]:
    """The mapping of a `TenBlocks`; `graph_entries` returns those of a graph convolution without its residual."""
    entries = batch_norm_entries("data_bn", ("data_bn",))
    channels_in = None
    for number, (width, stride) in enumerate(stages, start=1):
        channels = width * base_channels
        name, path = f"l{number}", (f"blocks_{number - 1}",)
        entries += graph_entries(number, f"{name}.gcn1", (*path, "gcn"), channels)
        if channels != channels_in:
            entries += conv_entries(f"{name}.gcn1.down.0", (*path, "gcn", "down"), axes=(1, 0))
            entries += batch_norm_entries(f"{name}.gcn1.down.1", (*path, "gcn", "down_bn"))
        entries += batch_norm_entries(f"{name}.gcn1.bn", (*path, "gcn", "bn"))
        entries += temporal_entries(f"{name}.tcn1", (*path, "tcn"), channels)
        if number > 1 and (channels != channels_in or stride != 1):
            entries += conv_entries(f"{name}.residual.conv", (*path, "residual"), axes=(1, 0))
            entries += batch_norm_entries(f"{name}.residual.bn", (*path, "residual_bn"))
        channels_in = channels
    return entries + linear_entries("fc", ("fc",))


def _ctr_graph_entries(number: int, name: str, path: tuple[str, ...], channels: int) -> list[Entry]:
    del number  # the same in every block
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
    return entries


def _static_graph_entries(number: int, name: str, path: tuple[str, ...], channels: int) -> list[Entry]:
    del number, channels  # the same in every block
    entries = [array_entry(f"{name}.PA", (*path, "PA"), 3)]
    for k in range(3):
        entries += conv_entries(f"{name}.conv_d.{k}", path, axes=(1, 0), index=(k,), bias_index=(k,))
    return entries


def _hierarchical_graph_entries(name: str, path: tuple[str, ...], width: int, num_layers: int) -> list[Entry]:
    """In layer l, `conv.l.0` to `conv.l.2` are the convolutions of the subsets, `conv.l.3` is the edge convolution."""
    entries = [array_entry(f"{name}.PA", (*path, "PA"), 4)]
    every = slice(None)
    for layer in range(num_layers):
        part = slice(layer * width, (layer + 1) * width)
        entries += conv_entries(f"{name}.conv_down.{layer}.0", (*path, "reduce"), axes=(1, 0), index=(every, part))
        entries += batch_norm_entries(f"{name}.conv_down.{layer}.1", (*path, "reduce_bn"), index=(part,))
    for layer in range(num_layers):
        for k in range(3):
            subset, number = f"{name}.conv.{layer}.{k}", 3 * layer + k
            entries += conv_entries(f"{subset}.0", path, axes=(1, 0), index=(layer, every, k), bias_index=(layer, k))
            part = slice(number * width, (number + 1) * width)
            entries += batch_norm_entries(f"{subset}.1", (*path, "linked_bn"), index=(part,))
        entries += _edge_entries(
            f"{name}.conv.{layer}.3", (*path, "edge"), layer, slice(layer * width, (layer + 1) * width)
        )
    return entries + alias_entries(entries, f"{name}.conv.{num_layers - 1}.", f"{name}.conv_d.")


def _edge_entries(name: str, path: tuple[str, ...], layer: int, part: slice) -> list[Entry]:
    convolution = conv_entries(f"{name}.conv.0", path, axes=(1, 0), index=(layer,), bias=False)
    return convolution + batch_norm_entries(f"{name}.conv.1", (*path, "bn"), index=(part,))


def _layer_attention_entries(name: str, path: tuple[str, ...]) -> list[Entry]:
    return [
        *conv_entries(f"{name}.conv_down.0", (*path, "reduce"), axes=(1, 0)),
        *batch_norm_entries(f"{name}.conv_down.1", (*path, "reduce_bn")),
        *_edge_entries(f"{name}.edge_conv", (*path, "edge"), 0, slice(None)),
        Entry(f"{name}.aggregate.weight", "params", (*path, "expand", "kernel"), (1, 0), 3),
        array_entry(f"{name}.aggregate.bias", (*path, "expand", "bias"), 1),
    ]


def _plain_temporal_entries(name: str, path: tuple[str, ...], channels: int) -> list[Entry]:
    del channels
    convolution = conv_entries(f"{name}.conv", (*path, "conv"), axes=(2, 1, 0))
    return convolution + batch_norm_entries(f"{name}.bn", (*path, "bn"))


def _temporal_entries(name: str, path: tuple[str, ...], channels: int, *, separate_bias: bool = False) -> list[Entry]:
    """Branches 0 and 1 are the dilated convolutions, 2 is the max pool, 3 the 1x1 convolution.

    With `separate_bias`, the bias of a dilated convolution is a parameter `[1, C, 1, 1]` next to the layer.
    """
    entries, width = [], channels // 4
    for branch in range(4):
        prefix, part = f"{name}.branches.{branch}", slice(branch * width, (branch + 1) * width)
        entries += conv_entries(f"{prefix}.0", (*path, "reduce"), axes=(1, 0), index=(slice(None), part))
        if branch == 3:
            entries += batch_norm_entries(f"{prefix}.1", (*path, "out_bn"), index=(part,))
            continue
        entries += batch_norm_entries(f"{prefix}.1", (*path, "reduce_bn"), index=(part,))
        last = f"{prefix}.4"
        if branch < len(DILATIONS):
            convolution = (*path, f"conv_dilation_{DILATIONS[branch]}")
            if separate_bias:
                entries.append(Entry(f"{prefix}.3.bias", "params", (*convolution, "bias"), (1,), 4))
            entries += conv_entries(f"{prefix}.3.conv", convolution, axes=(2, 1, 0), bias=not separate_bias)
            last = f"{prefix}.3.bn"
        entries += batch_norm_entries(last, (*path, "out_bn"), index=(part,))
    return entries


def infogcn_entries(base_channels: int = 64, stages: Stages = infogcn.NINE_STAGES) -> list[Entry]:
    """Returns the mapping of the published Info-GCN to `InfoGCN` with these fields.

    Published state dicts do not hold the prior `z_prior` of the latent vectors: the template must.
    """
    entries = [
        Entry("pos_embedding", "params", ("embedding", "position"), (1, 2), 3),
        *batch_norm_entries("data_bn", ("data_bn",)),
        *linear_entries("to_joint_embedding", ("embedding", "joint")),
    ]
    channels_in = base_channels
    for number, (width, stride) in enumerate(stages, start=1):
        channels = width * base_channels
        name, path = f"l{number}", (f"blocks_{number - 1}",)
        entries += _attention_conv_entries(f"{name}.agcn", (*path, "gcn"), down=channels != channels_in)
        entries += _temporal_entries(f"{name}.tcn", (*path, "tcn", "convolution"), channels)
        if channels != channels_in or stride != 1:
            entries += conv_entries(f"{name}.residual.conv", (*path, "residual"), axes=(1, 0))
            entries += batch_norm_entries(f"{name}.residual.bn", (*path, "residual_bn"))
        channels_in = channels
    for name in ("fc", "fc_mu", "fc_logvar", "decoder"):
        entries += linear_entries(name, (name,))
    return [*entries, Entry("z_prior", "batch_stats", ("z_prior",), (0, 1), 2, stored=False)]


def _attention_conv_entries(name: str, path: tuple[str, ...], *, down: bool) -> list[Entry]:
    entries = [array_entry(f"{name}.shared_topology", (*path, "shared_topology"), 3)]
    for head in range(infogcn.HEADS):
        entries += conv_entries(f"{name}.conv_d.{head}", path, axes=(1, 0), index=(head,), bias_index=(head,))
    if down:
        entries += conv_entries(f"{name}.down.0", (*path, "down"), axes=(1, 0))
        entries += batch_norm_entries(f"{name}.down.1", (*path, "down_bn"))
    entries += batch_norm_entries(f"{name}.bn", (*path, "bn"))
    entries += linear_entries(f"{name}.attn.to_qk", (*path, "attention", "queries_keys"))
    norm = (*path, "attention", "norm")
    return [
        *entries,
        array_entry(f"{name}.attn.ln.weight", (*norm, "scale"), 1),
        array_entry(f"{name}.attn.ln.bias", (*norm, "bias"), 1),
    ]


def mmcl_entries(base_channels: int = 64, stages: Stages = TEN_STAGES) -> list[Entry]:
    """Returns the mapping of the released MMCL model (CTR-GCN, FAM's MLP, FRM with two terms) to variables of `MMCL`.

    The image encoder is not part of it: the released code keeps the CNN in a model of its own (`inception_entries`).
    """
    entries = [
        array_entry("PosMatrix", ("refinement", "matrices"), 1, (0,)),
        array_entry("NegMatrix", ("refinement", "matrices"), 1, (1,)),
        *nested(ctrgcn_entries(base_channels, stages), "", ("backbone",)),
    ]
    for name, path in (
        ("mlp.0", ("refinement", "phi_hidden")),
        ("mlp.2", ("refinement", "phi_output")),
        ("FAM_Aligh.mlp.0", ("alignment", "hidden")),
        ("FAM_Aligh.mlp.2", ("alignment", "output")),
    ):
        entries += linear_entries(name, path)
    return entries
