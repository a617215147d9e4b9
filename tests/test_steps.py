"""Training steps from only arrays, with only jax, flax, optax and their dependencies installed."""

import json
import sys

from tests.helpers import runs

_ABSENT = ("grain", "array_record", "ml_collections", "tensorflow_datasets", "orbax", "PIL", "torch")
_PROGRAM = f"""
import json, os, sys, types
sys.modules |= dict.fromkeys({_ABSENT})
os.environ["XLA_FLAGS"] += " --xla_backend_optimization_level=0"
import jax, numpy as np, optax
from mmcl_jax import steps
from mmcl_jax.data.layouts import LAYOUTS
from mmcl_jax.models import BACKBONES
from mmcl_jax.models.mmcl import MMCL, FeatureAlignment, FeatureRefinement
from mmcl_jax.runtime import sharding
from mmcl_jax.data.transforms import TransformOptions, make_transform

layout = LAYOUTS["ntu"]
options = types.SimpleNamespace(base_channels=4, batch_norm_group_size=None, graph="natural", center_of_mass=2)
backbone = BACKBONES["ctrgcn"](3, layout, 3, options).clone(stages=((1, 1), (1, 1), (2, 2)))
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
resident = sharding.replicate(clips, mesh)
start = jax.tree.map(np.asarray, state)


def begin():
    return sharding.replicate(start, mesh)


both = steps.compile_step(recipe, 0, mesh, steps=2, resident=True)
placed = sharding.place_batch(batches, mesh, stacked=True)
together = both(begin(), placed, resident)
assert int(together.step) == together.totals["steps"] == 2

one, singly = steps.compile_step(recipe, 0, mesh, resident=True), begin()
for number in range(2):
    singly = one(singly, sharding.place_batch({{name: rows[number] for name, rows in batches.items()}}, mesh), resident)

broken = {{**clips, "skeleton": clips["skeleton"].copy()}}
broken["skeleton"][3] = np.nan  # only in the second batch
bad = both(begin(), placed, sharding.replicate(broken, mesh))


def update(state):
    flat = lambda tree: np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])
    return flat(state.params) - flat(start.params)


error = np.linalg.norm(update(together) - update(singly)) / np.linalg.norm(update(singly))
losses = [float(state.totals["loss"]) for state in (together, singly)]
print(json.dumps([*losses, float(error), int(bad.totals["first_bad_step"])]))
"""


def test_steps_of_mmcl_need_jax_flax_optax_and_numpy_alone_and_two_at_once_are_two(compiled, tmp_path):
    # Not bit for bit: XLA fuses a loop's body in another way than a program of its own.
    status, text = runs.run([sys.executable, "-c", _PROGRAM], compiled, tmp_path / "log")
    assert status == 0, text
    together, singly, update_error, first_bad_step = json.loads(text.splitlines()[-1])
    print("losses", together, singly, "relative error of the update", update_error)
    assert 0 < singly < 100
    assert abs(together / singly - 1) < 1e-5
    assert update_error < 1e-4
    assert first_bad_step == 1
