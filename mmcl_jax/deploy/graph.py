"""Builds ONNX graphs: nodes are added one by one, arrays become constants."""

from collections.abc import Sequence
from typing import Any

import numpy as np

OPSET = 17
_IR_VERSION = 8  # which every runtime that knows the opset reads


class Graph:
    """A graph that grows; values are their names.

    Attributes:
      dtype: type of the constants that layers add, float32 or float16.
      part: of the program, which the names of its nodes begin with.
    """

    def __init__(self, dtype: Any = np.float32):
        self.dtype = np.dtype(dtype)
        self.part = "transform"
        self._nodes: list[Any] = []
        self._constants: dict[tuple, tuple[str, np.ndarray]] = {}
        self._shapes: list[Any] = []
        self._count = 0

    def add(self, operator: str, *inputs: str | np.ndarray, outputs: int = 1, **attributes: Any) -> Any:
        """Adds a node; returns the name of its output, or a list of names for several outputs.

        Args:
          operator: an operator of ONNX.
          inputs: names of values, '' for one that is left out, or arrays, which become constants of their own type.
          outputs: how many.
          attributes: of the operator.
        """
        from onnx import helper

        names = [value if isinstance(value, str) else self.constant(value) for value in inputs]
        made = [f"v{self._count + number}" for number in range(outputs)]
        self._count += outputs
        name = f"{self.part}/{operator}_{len(self._nodes)}"
        self._nodes.append(helper.make_node(operator, names, made, name, **attributes))
        return made[0] if outputs == 1 else made

    def constant(self, array: np.ndarray) -> str:
        """The name of a constant; equal ones are stored once."""
        array = np.ascontiguousarray(array)
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self._constants:
            self._constants[key] = (f"c{len(self._constants)}", array)
        return self._constants[key][0]

    def weights(self, array: Any) -> np.ndarray:
        """An array in the type of the layers."""
        return np.asarray(array).astype(self.dtype)

    def reshape(self, x: str, *shape: int) -> str:
        """A reshape; 0 keeps the size of that axis, -1 is what remains."""
        return self.add("Reshape", x, np.array(shape, np.int64))

    def transpose(self, x: str, *axes: int) -> str:
        return self.add("Transpose", x, perm=axes)

    def axes(self, operator: str, x: str, *axes: int) -> str:
        """'Unsqueeze' or 'Squeeze' of some axes."""
        return self.add(operator, x, np.array(axes, np.int64))

    def cast(self, x: str, dtype: Any) -> str:
        from onnx import helper

        return self.add("Cast", x, to=helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))

    def size(self, x: str, axis: int) -> str:
        """The size of one axis, int64 `[1]`."""
        return self.add("Shape", x, start=axis, end=axis + 1)

    def state_shape(self, x: str, *shape: int | str) -> None:
        """States the shape of features; sizes that are free have names.

        ONNX Runtime adds a residual within the convolution before it only where it can tell that the shapes are equal.
        """
        from onnx import helper

        self._shapes.append(helper.make_tensor_value_info(x, helper.np_dtype_to_tensor_dtype(self.dtype), shape))

    def rename(self, x: str, name: str) -> None:
        """Gives the last node's output a name of its own."""
        self._nodes[-1].output[list(self._nodes[-1].output).index(x)] = name

    def model(self, inputs: Sequence[tuple], outputs: Sequence[tuple], metadata: dict[str, str]) -> Any:
        """The ONNX model.

        Args:
          inputs, outputs: (name, NumPy type, shape) of each; names in a shape are sizes that are free.
          metadata: texts by key.
        """
        import onnx
        from onnx import helper, numpy_helper

        def value(name: str, dtype: Any, shape: Sequence) -> Any:
            return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(np.dtype(dtype)), shape)

        constants = [numpy_helper.from_array(array, name) for name, array in self._constants.values()]
        graph = helper.make_graph(
            self._nodes,
            "mmcl_jax",
            [value(*each) for each in inputs],
            [value(*each) for each in outputs],
            constants,
            value_info=self._shapes,
        )
        model = helper.make_model(
            graph,
            producer_name="mmcl_jax",
            opset_imports=[helper.make_opsetid("", OPSET)],
            ir_version=_IR_VERSION,
        )
        helper.set_model_props(model, metadata)
        onnx.checker.check_model(model, full_check=True)
        return model
