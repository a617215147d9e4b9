"""The skeleton backbones.

Contract: `BACKBONES[name](num_classes, layout, coordinates, options)` makes a Linen module with two methods,

  features(x, train): clips `[N, M, T, V, C]` -> `[N, M, T', V, C']`, before pooling;
  head(features, train): -> (logits `[N, num_classes]`, dict of auxiliary outputs);

an attribute `feature_width`, C', `__call__(x, train)`, which runs both, and its own loss in training,
`classification_loss(logits, aux, labels)`, which needs no variables. To train in bfloat16 it has a field `dtype`, the
type of the features (None: the clips'); parameters, statistics and logits are float32 all the same. Its collections are
`params` and, if it keeps statistics, `batch_stats`; what it draws in training comes of the stream `dropout`. The first
`coordinates` of a joint's C channels are its place, a confidence may follow; `options` is the `model` part of the
config. Adding a backbone is one file, one line here and one test.

A backbone that has these as well is predicted with faster (`mmcl_jax.predictor`):

  embed(x, train): clips -> `[C'', N, M, T, V]`, all that depends on which body of a clip it is;
  trunk(embedded, train): -> the features of bodies, each by itself, from the variables `blocks_*` alone;
  fold(variables): -> variables of `clone(folded=True)`, the same function in evaluation without batch norms.

`features` is then the trunk of the embedding, and `head` sees the features through their mean over M, T' and V alone.
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
    """What every backbone here is given alike."""
    return {
        "num_classes": num_classes,
        "base_channels": options.base_channels,
        "batch_norm_group_size": options.batch_norm_group_size,
    }


def _ctrgcn(num_classes: int, layout: Layout, coordinates: int, options) -> CTRGCN:
    del coordinates  # every channel is a feature to it
    return CTRGCN(
        **_shared(num_classes, options),
        adjacency=graphs.GRAPHS[options.graph](layout, options.center_of_mass),
    )


def _ctrsgcn(num_classes: int, layout: Layout, coordinates: int, options) -> CTRSGCN:
    del coordinates  # every channel is a feature to it
    return CTRSGCN(
        **_shared(num_classes, options),
        adjacency=np.stack([np.eye(layout.num_joints, dtype=np.float32)] * 3),
    )


def _hdgcn(num_classes: int, layout: Layout, coordinates: int, options) -> HDGCN:
    del coordinates  # every channel is a feature to it
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


def count_classes(params: Mapping) -> int:
    """Number of classes of a backbone with these parameters: the logits come of `decoder`, or else of `fc`."""
    return params["decoder" if "decoder" in params else "fc"]["bias"].size


BACKBONES = {"ctrgcn": _ctrgcn, "ctrsgcn": _ctrsgcn, "hdgcn": _hdgcn, "infogcn": _infogcn}
