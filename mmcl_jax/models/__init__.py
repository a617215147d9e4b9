"""The skeleton backbones.

Contract: `BACKBONES[name](num_classes, layout, coordinates, options)` returns a Linen module. The first `coordinates`
of a joint's C channels are its position; a confidence may follow. `options` is the `model` part of the config. The
module has two methods,

  features(x, train): clips `[N, M, T, V, C]` -> features before pooling, `[N, M, T', V, C']`;
  head(features, train): -> logits `[N, num_classes]` and a dict of auxiliary outputs;

an attribute `feature_width`, C'; `__call__(x, train)`, which runs both; and its training loss,
`classification_loss(logits, aux, labels)`, which needs no variables. With the keywords `weights` (float `[N]`, what
each clip counts) and `smoothing` it can follow `loss.class_weights` and `loss.label_smoothing`. A module that can
train in bfloat16 has a field `dtype`, the type of the features (None: that of the clips); its parameters, statistics
and logits stay float32. Its collections are `params` and, if it keeps statistics, `batch_stats`; random numbers in
training come from the stream `dropout`. Adding a backbone takes one file, one line here and one test.

Prediction (`mmcl_jax.predictor`) is faster with a backbone that has a twin without batch norms in
`mmcl_jax.models.folded`. Such a backbone is a `blocks.Backbone`: its `features` are `trunk(embed(x))`, where

  embed(x, train): clips -> `[C'', N, M, T, V]`, everything that depends on the number of a body within its clip;
  trunk(embedded, train): -> the features of bodies, each computed by itself, only from the variables `blocks_*`;

and `head` uses only the mean of the features over M, T' and V.

Training is faster with such a backbone that `weighs_bodies` (see `blocks.Backbone` and `packed`).

The file of each backbone, and `blocks`, say what the papers say; what exists only for speed is in `fast` and `folded`.
"""

from collections.abc import Mapping

import numpy as np

from mmcl_jax.data.layouts import Layout
from mmcl_jax.models import graphs
from mmcl_jax.models.ctrgcn import CTRGCN
from mmcl_jax.models.ctrsgcn import CTRSGCN
from mmcl_jax.models.hdgcn import HDGCN
from mmcl_jax.models.infogcn import InfoGCN


def _shared(num_classes: int, options) -> dict:
    """Fields that every backbone here has."""
    return {
        "num_classes": num_classes,
        "base_channels": options.base_channels,
        "batch_norm_group_size": options.batch_norm_group_size,
    }


def _ctrgcn(num_classes: int, layout: Layout, coordinates: int, options) -> CTRGCN:
    del coordinates  # every channel is a feature
    return CTRGCN(
        **_shared(num_classes, options),
        adjacency=graphs.GRAPHS[options.graph](layout, options.center_of_mass),
    )


def _ctrsgcn(num_classes: int, layout: Layout, coordinates: int, options) -> CTRSGCN:
    del coordinates  # every channel is a feature
    return CTRSGCN(
        **_shared(num_classes, options),
        adjacency=np.stack([np.eye(layout.num_joints, dtype=np.float32)] * 3),
    )


def _hdgcn(num_classes: int, layout: Layout, coordinates: int, options) -> HDGCN:
    del coordinates  # every channel is a feature
    return HDGCN(
        **_shared(num_classes, options),
        adjacency=graphs.hierarchical_adjacency(layout, options.center_of_mass),
    )


def _infogcn(num_classes: int, layout: Layout, coordinates: int, options) -> InfoGCN:
    return InfoGCN(
        **_shared(num_classes, options),
        relative_positions=graphs.relative_positions(layout, options.k, options.relatives),
        coordinates=coordinates,
        latent_noise=options.latent_noise,
        label_smoothing=options.label_smoothing,
        mmd_weights=tuple(options.mmd_weights),
        prior_gain=options.prior_gain,
    )


def classifier_of(params: Mapping) -> str | None:
    """Returns the name of the last layer of a backbone with these parameters: `decoder` or else `fc`; None: neither."""
    return next((name for name in ("decoder", "fc") if name in params), None)


def count_classes(params: Mapping) -> int:
    """Returns the number of classes of a backbone with these parameters."""
    return params[classifier_of(params)]["bias"].size


BACKBONES = {"ctrgcn": _ctrgcn, "ctrsgcn": _ctrsgcn, "hdgcn": _hdgcn, "infogcn": _infogcn}
