"""Training steps from arrays alone, where only what jax, flax and optax bring is installed."""

import sys

from tests import runs

_ABSENT = ("grain", "array_record", "ml_collections", "tensorflow_datasets", "orbax", "PIL", "torch")
_PROGRAM = f"""
import os, sys, types
sys.modules |= dict.fromkeys({_ABSENT})
os.environ["XLA_FLAGS"] += " --xla_backend_optimization_level=0"
import jax, numpy as np, optax
from mmcl_jax import graphs, sharding, steps
from mmcl_jax.models import BACKBONES
from mmcl_jax.models.mmcl import MMCL, FeatureAlignment, FeatureRefinement
from mmcl_jax.transforms import TransformOptions, make_transform

layout = graphs.LAYOUTS["ntu"]
options = types.SimpleNamespace(base_channels=4, batch_norm_group_size=None, graph="natural", center_of_mass=2)
backbone = BACKBONES["ctrgcn"](3, layout, 3, options)
crop = TransformOptions("crop_resize", 8, (0.5, 1.0), 0.95, 0.3, False, "zeros", "joint")
recipe = steps.Recipe(
    model=MMCL(backbone, None, FeatureAlignment(backbone.feature_width), FeatureRefinement()),
    transform=make_transform(crop, layout, 12, True, coordinates=3),
    optimizer=optax.sgd(0.1),
    loss=steps.LossOptions(),
)
rng = np.random.default_rng(0)
clips = {{
    "skeleton": rng.standard_normal((6, 1, 12, 25, 3), dtype=np.float32),
    "frames": np.full(6, 12, np.int32),
    "bodies": np.ones(6, np.int32),
    "label": np.arange(6, dtype=np.int32) % 3,
    "image": rng.standard_normal((6, 5), dtype=np.float32),
    "text": rng.standard_normal((6, 2), dtype=np.float32),
}}
batches = {{"row": np.array([[4, 1], [0, 3]], np.int32), "position": np.arange(4, dtype=np.uint32).reshape(2, 2)}}
mesh = sharding.data_mesh()
state = sharding.replicate(steps.initial_state(recipe, 0, {{**clips, "position": np.arange(6)}}), mesh)
step = steps.compile_step(recipe, 0, mesh, steps=2, resident=True)
state = step(state, sharding.place_batch(batches, mesh, stacked=True), sharding.replicate(clips, mesh))
assert int(state.step) == state.totals["steps"] == 2
print(float(state.totals["loss"]))
"""


def test_steps_of_mmcl_need_no_package_beyond_jax_flax_optax_and_numpy(compiled, tmp_path):
    status, text = runs.run([sys.executable, "-c", _PROGRAM], compiled, tmp_path / "log")
    assert status == 0, text
    assert 0 < float(text.splitlines()[-1]) < 100
