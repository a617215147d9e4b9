"""The graph convolutions of the twins, and how their variables are folded."""

from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmcl_jax.models.blocks import Norm, add_residual
from mmcl_jax.models.fast.topologies import lift_all
from mmcl_jax.models.folded.layers import fold_conv, norm_affine
from mmcl_jax.models.layers import Conv1x1
from mmcl_jax.models.precision import at_least_float32


class FramesLastGraphConv(nn.Module):
    """`ctrgcn.GraphConv` with folded norms and the frames last: `[C_in, N, M, V, T]` -> `[channels, N, M, V, T]`."""

    channels: int
    norm: Norm

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        topologies = FramesLastTopology(name="topology")(x)
        values = [Conv1x1(self.channels, name=f"values_{k}")(x) for k in range(len(topologies))]
        pairs = zip(topologies, values, strict=True)
        z = jnp.asarray(sum(jnp.einsum("cnmuv,cnmvt->cnmut", *pair) for pair in pairs))
        return add_residual(z, x, self.norm, train)


class FramesLastTopology(nn.Module):
    """`ctrgcn.Topology` for features with the frames last, `[C_in, N, M, V, T]`. Nothing is initialized here."""

    @nn.compact
    def __call__(self, x: jax.Array) -> tuple[jax.Array, ...]:
        variables = self.variables["params"]
        mean = at_least_float32(x).mean(axis=-1)
        relation = jnp.einsum("ipkr,inmv->pkrnmv", variables["relation_kernel"], mean)
        relation = relation + variables["relation_bias"][..., None, None, None]
        alpha = variables["alpha"]
        kernel, bias = variables["lift_kernel"] * alpha, variables["lift_bias"] * alpha
        return lift_all(kernel, relation, bias, variables["PA"], x.dtype)


def fold_ctrgcn(params: Mapping, batch_stats: Mapping) -> dict[str, dict]:
    """Variables of `ctrgcn.GraphConv` -> those of `FramesLastGraphConv`."""
    factor, offset = norm_affine(params, batch_stats, "bn")
    subsets = params["topology"]["PA"].shape[0]
    kernels = jnp.split(params["values"]["kernel"], subsets, axis=1)
    biases = jnp.split(params["values"]["bias"], subsets)
    values = [
        fold_conv({"kernel": kernel, "bias": bias}, factor, 0.0) for kernel, bias in zip(kernels, biases, strict=True)
    ]
    return {
        "topology": params["topology"],
        **{f"values_{k}": value for k, value in enumerate(values)},
        "bn": {"bias": offset},
        **_fold_down(params, batch_stats),
    }


def fold_ctrsgcn(params: Mapping, batch_stats: Mapping) -> dict:
    """Variables of `ctrsgcn.GraphConv` -> those of the same module with `FoldedNorm`s."""
    factor, offset = norm_affine(params, batch_stats, "bn")
    return {
        "PA": params["PA"],
        **fold_conv(params, factor, 0.0),
        "bn": {"bias": offset},
        **_fold_down(params, batch_stats),
    }


def fold_infogcn(params: Mapping, batch_stats: Mapping) -> dict:
    """Variables of `infogcn.GraphConv` -> those of the same module with `FoldedNorm`s."""
    factor, offset = norm_affine(params, batch_stats, "bn")
    kept = {name: params[name] for name in ("attention", "shared_topology")}
    return {**kept, **fold_conv(params, factor, 0.0), "bn": {"bias": offset}, **_fold_down(params, batch_stats)}


def fold_hdgcn(params: Mapping, batch_stats: Mapping) -> dict:
    """Variables of `hdgcn.GraphConv` -> those of the same module with `FoldedNorm`s.

    `bn` keeps its factor: the layers are weighed between the product and it.
    """
    factor, offset = (part.reshape(params["bias"].shape) for part in norm_affine(params, batch_stats, "linked_bn"))
    scale, bias = norm_affine(params, batch_stats, "bn")
    attention = {}
    if "attention" in params:
        attention["attention"] = _fold_layer_attention(params["attention"], batch_stats["attention"])
    return {
        "PA": params["PA"],
        "reduce": fold_conv(params["reduce"], *norm_affine(params, batch_stats, "reduce_bn")),
        "edge": _fold_edge_conv(params["edge"], batch_stats["edge"]),
        "kernel": params["kernel"] * factor[:, None],
        "bias": params["bias"] * factor + offset,
        "bn": {"scale": scale, "bias": bias},
        **attention,
        **_fold_down(params, batch_stats),
    }


def _fold_layer_attention(params: Mapping, batch_stats: Mapping) -> dict:
    return {
        "reduce": fold_conv(params["reduce"], *norm_affine(params, batch_stats, "reduce_bn")),
        "edge": _fold_edge_conv(params["edge"], batch_stats["edge"]),
        "expand": params["expand"],
    }


def _fold_edge_conv(params: Mapping, batch_stats: Mapping) -> dict:
    factor, offset = norm_affine(params, batch_stats, "bn")
    kernel = params["kernel"]
    return {"kernel": kernel * factor.reshape(kernel.shape[0], 1, kernel.shape[2]), "bn": {"bias": offset}}


def _fold_down(params: Mapping, batch_stats: Mapping) -> dict[str, dict]:
    """The folded `down` of `blocks.add_residual`, if there is one."""
    return {"down": fold_conv(params["down"], *norm_affine(params, batch_stats, "down_bn"))} if "down" in params else {}
