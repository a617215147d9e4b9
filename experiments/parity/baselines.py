"""Compares our models with `experiments/pytorch_baselines`: outputs, gradients, and ten steps of SGD.

For each model, from one seed:

In float64, where rounding is negligible: logits in evaluation and training, loss, the gradient of **every** parameter,
and ten steps, each from PyTorch's state (loss, and the update of parameters and running statistics). Bound 1e-6.

In float32, the usual precision: logits in evaluation (1e-4), logits in training and loss (1e-3), the gradients of all
parameters together (0.02), and ten steps, each from PyTorch's state: loss (1e-3) and update (0.05). The bounds are wide
because a ReLU whose input is within rounding of zero may be decided differently in the two programs.

The divergence of ten free-running steps is shown but not judged. CTRS-GCN's steps stay together. CTR-GCN's start is
chaotic (batch-norm scales of 1e-6, large logits): rounding errors grow by up to 100 times per step, even in float64.

Outputs and gradients are compared with generic weights (`golden.fill`). Steps start from PyTorch's initial weights,
with weight decay and the recipe's learning rate in its first epoch (0.1, warmed up over 5 epochs). Every step has its
own clips, standard normal, with random labels.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
import torch.nn.functional as F

from experiments.parity import families, golden
from experiments.parity.table import Table
from experiments.pytorch_baselines import gcn, mmcl
from mmcl_jax import optim
from mmcl_jax.data.layouts import LAYOUTS
from mmcl_jax.models.graphs import spatial_adjacency
from mmcl_jax.pytorch.state_dicts import to_flax, to_torch
from mmcl_jax.runtime.backend import HASTY

BASELINES = {"ctrgcn": gcn.CTRGCN, "ctrsgcn": gcn.CTRSGCN, "mmcl": mmcl.MMCL}
STEPS = 10
LEARNING_RATE = 0.1 / 5
WEIGHT_DECAY = 4e-4
EXACT = 1e-6
GRADIENT_BOUND = 0.02
UPDATE_BOUND = 0.05


@dataclasses.dataclass(frozen=True)
class Size:
    """The size of models and batches. Clips have NTU's joints and two bodies."""

    num_classes: int = 120
    base_channels: int = 64
    clips: int = 3
    frames: int = 16


def check(
    seed: int,
    size: Size | None = None,
    models: Sequence[str] = tuple(BASELINES),
    types: Sequence[type] = (np.float64, np.float32),
) -> int:
    """Prints the table of these models in these precisions. Returns the exit status."""
    table = Table(list(models))
    for name in models:
        comparison = Comparison(name, seed, size or Size())
        for dtype in types:
            with jax.enable_x64(dtype is np.float64):
                comparison.compare(table, dtype)
    return table.finish()


class Comparison:
    """One model in both libraries."""

    def __init__(self, name: str, seed: int, size: Size):
        self.name, self.seed, self.size = name, seed, size
        adjacency = torch.from_numpy(spatial_adjacency(LAYOUTS["ntu"]))
        if name == "ctrsgcn":
            adjacency = torch.eye(25).repeat(3, 1, 1)
        torch.manual_seed(seed)
        self.baseline = BASELINES[name](size.num_classes, adjacency, base_channels=size.base_channels)
        self.initial = {key: value.clone() for key, value in self.baseline.state_dict().items()}
        shapes = {key: tuple(value.shape) for key, value in self.initial.items()}
        self.generic = {key: torch.from_numpy(golden.fill(key, shape, seed)) for key, shape in shapes.items()}
        _, self.family = families.recognise(self.generic)
        (self.model,) = self.family.models(name, self.generic).values()
        self._ours: dict[type, _Ours] = {}  # compiled programs, by precision
        self.optimizer = optim.sgd(lambda step: LEARNING_RATE, momentum=0.9, weight_decay=WEIGHT_DECAY)

    def compare(self, table: Table, dtype: type) -> None:
        """Adds the rows of one precision."""
        exact = dtype is np.float64
        precision = "float64" if exact else "float32"
        batch = self._batch(0, dtype)
        if dtype not in self._ours:
            self._ours[dtype] = _Ours(self, batch[0], dtype)
        ours = self._ours[dtype]
        theirs = _Theirs(self, dtype)
        add = functools.partial(self._add, table, precision)

        theirs.load(self.generic)
        state = ours.state(theirs)
        add("eval logits", golden.relative_error(ours.evaluate(state, batch), theirs.evaluate(batch)), exact or 1e-4)
        step, expected = ours.step(state, batch)[1], theirs.step(batch)
        for value in ("logits", "loss"):
            add(f"train {value}", golden.relative_error(step[value], expected[value]), exact or 1e-3)
        gradients = to_torch({"params": step["gradients"]}, self.model.entries)
        if exact:
            norms = {key: np.linalg.norm(value) for key, value in expected["gradients"].items()}
            floor = 1e-4 * max(norms.values())
            errors = {
                key: np.linalg.norm(gradients[key] - value) / (norms[key] + floor)
                for key, value in expected["gradients"].items()
            }
            add(f"gradients, the worst of {len(errors)}", max(errors.values()), True)
        else:
            error = golden.relative_error(_vector(gradients), _vector(expected["gradients"]))
            add(f"gradients, all {len(gradients)} together", error, GRADIENT_BOUND)
        self._compare_steps(add, ours, theirs, dtype)

    def _compare_steps(self, add, ours: "_Ours", theirs: "_Theirs", dtype: type) -> None:
        theirs.load(self.initial)
        free = ours.state(theirs)
        start = _vector(theirs.state_dict())
        loss_errors, update_errors, free_loss_errors = [], [], []
        for number in range(STEPS):
            batch = self._batch(number + 1, dtype)
            before = _vector(theirs.state_dict())
            state, values = ours.step(ours.state(theirs), batch)
            free, free_values = ours.step(free, batch)
            expected = theirs.step(batch)
            after = _vector(theirs.state_dict())
            loss_errors.append(golden.relative_error(values["loss"], expected["loss"]))
            update_errors.append(golden.relative_error(_vector(ours.state_dict(state)) - before, after - before))
            free_loss_errors.append(golden.relative_error(free_values["loss"], expected["loss"]))
        moved = golden.relative_error(_vector(ours.state_dict(free)) - start, after - start)
        exact = dtype is np.float64
        add(f"{STEPS} steps, each from one state: loss", max(loss_errors), exact or 1e-3)
        add(f"{STEPS} steps, each from one state: added", max(update_errors), exact or UPDATE_BOUND)
        add(f"{STEPS} free steps: loss", max(free_loss_errors), False)
        add(f"{STEPS} free steps: added", moved, False)

    def _add(self, table: Table, precision: str, what: str, error: float, bound: float | bool) -> None:
        """Adds a row. `bound` True means the bound of float64, False means none."""
        bound = EXACT if bound is True else bound or None
        parameters = sum(parameter.numel() for parameter in self.baseline.parameters())
        table.add(self.name, f"{precision} {what}", error, bound, parameters)

    def _batch(self, number: int, dtype: type) -> tuple[tuple[np.ndarray, ...], np.ndarray]:
        """Batch `number`: inputs in PyTorch's axis order, and labels."""
        size = self.size
        shapes = {"skeleton": (size.clips, 3, size.frames, 25, 2)}
        if self.name == "mmcl":
            shapes.update(image_features=(size.clips, 1000), text=(size.clips, 3))
        inputs = [golden.inputs(f"{number}/{name}", shape, self.seed) for name, shape in shapes.items()]
        labels = np.random.default_rng([self.seed, number]).integers(0, size.num_classes, size.clips)
        return tuple(x.astype(dtype) for x in inputs), labels


class _Theirs:
    """The PyTorch side."""

    def __init__(self, comparison: Comparison, dtype: type):
        self.model = comparison.baseline.to(getattr(torch, np.dtype(dtype).name))

    def load(self, state_dict: dict[str, torch.Tensor]) -> None:
        """Starts again from these weights."""
        self.model.load_state_dict(state_dict)
        self.optimizer = mmcl.make_optimizer(self.model.parameters(), LEARNING_RATE, WEIGHT_DECAY)

    def evaluate(self, batch) -> np.ndarray:
        with torch.no_grad():
            return _logits(self.model.eval()(*map(torch.from_numpy, batch[0]))).numpy()

    def step(self, batch) -> dict[str, Any]:
        """Takes one step; returns logits, loss, and gradients by name."""
        inputs, labels = tuple(map(torch.from_numpy, batch[0])), torch.from_numpy(batch[1])
        self.model.train()
        seen = {}

        def loss() -> torch.Tensor:
            outputs = self.model(*inputs)
            seen["logits"] = _logits(outputs).detach().numpy()
            if isinstance(outputs, mmcl.Outputs):
                return mmcl.mmcl_loss(outputs, labels)
            return F.cross_entropy(outputs, labels)

        seen["loss"] = mmcl.training_step(self.optimizer, loss).numpy()
        seen["gradients"] = {key: value.grad.numpy() for key, value in self.model.named_parameters()}
        return seen

    def state_dict(self) -> dict[str, np.ndarray]:
        return {key: value.numpy().copy() for key, value in self.model.state_dict().items()}

    def momentum(self) -> dict[str, np.ndarray]:
        """The optimizer's buffers by name; zeros before the first step."""
        return {
            key: self.optimizer.state.get(value, {}).get("momentum_buffer", torch.zeros_like(value)).detach().numpy()
            for key, value in self.model.named_parameters()
        }


class _Ours:
    """The JAX side. A state is (variables, optimizer state)."""

    def __init__(self, comparison: Comparison, inputs: tuple[np.ndarray, ...], dtype: type):
        self._model = comparison.model
        module = self._model.module
        self._optimizer = comparison.optimizer
        self._template = families.template(comparison.model, self._inputs(inputs), dtype)

        def evaluate(variables, inputs):
            return comparison.family.values(module.apply(variables, *inputs, train=False), None)["logits"]

        def step(state, inputs, labels):
            variables, optimizer_state = state

            def training(params):
                output, updates = module.apply(
                    {**variables, "params": params}, *inputs, train=True, mutable=["batch_stats"]
                )
                values = comparison.family.values(output, labels)
                return values["loss"], (values, updates["batch_stats"])

            gradients, (values, batch_stats) = jax.grad(training, has_aux=True)(variables["params"])
            updates, optimizer_state = self._optimizer.update(gradients, optimizer_state, variables["params"])
            params = jax.tree.map(jnp.add, variables["params"], updates)
            values = {"logits": values["logits"], "loss": values["loss"], "gradients": gradients}
            return ({"params": params, "batch_stats": batch_stats}, optimizer_state), values

        # Rounding does not matter in float64, and compiling without optimization saves more time than it costs.
        options = HASTY if dtype is np.float64 else None
        self._evaluate = jax.jit(evaluate, compiler_options=options)
        self._step = jax.jit(step, compiler_options=options)

    @staticmethod
    def _inputs(inputs: tuple[np.ndarray, ...]) -> tuple[np.ndarray, ...]:
        clips, *others = inputs
        return families.clips_last(clips), *others

    def state(self, theirs: _Theirs):
        """PyTorch's state, including its momentum."""
        variables = to_flax(theirs.state_dict(), self._model.entries, self._template)
        entries = [entry for entry in self._model.entries if entry.collection == "params"]
        momentum = to_flax(theirs.momentum(), entries, {"params": variables["params"]})["params"]
        state = self._optimizer.init(variables["params"])
        # In the optimizer's state, only the trace has the structure of the parameters.
        structure = jax.tree.structure(momentum)
        is_trace = lambda node: jax.tree.structure(node) == structure  # noqa: E731
        return variables, jax.tree.map(lambda node: momentum if is_trace(node) else node, state, is_leaf=is_trace)

    def evaluate(self, state, batch) -> np.ndarray:
        return np.asarray(self._evaluate(state[0], self._inputs(batch[0])))

    def step(self, state, batch) -> tuple[Any, dict[str, Any]]:
        """Takes one step; returns the new state, and logits, loss and gradients in our structure."""
        return jax.device_get(self._step(state, self._inputs(batch[0]), batch[1]))

    def state_dict(self, state) -> dict[str, np.ndarray]:
        return to_torch(state[0], self._model.entries)


def _logits(outputs: torch.Tensor | mmcl.Outputs) -> torch.Tensor:
    return outputs.logits if isinstance(outputs, mmcl.Outputs) else outputs


def _vector(arrays: dict[str, np.ndarray]) -> np.ndarray:
    """All values except the counters, in one float64 vector, sorted by name."""
    kept = sorted(key for key in arrays if not key.endswith("num_batches_tracked"))
    return np.concatenate([arrays[key].ravel().astype(np.float64) for key in kept])
