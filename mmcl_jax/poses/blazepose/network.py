"""Runs BlazePose's networks with LiteRT."""

import os
import pathlib

import numpy as np

from mmcl_jax.poses.types import PosesError


class Network:
    """A loaded network of one input."""

    def __init__(self, path: pathlib.Path, size: int, outputs: tuple[tuple[int, ...], ...], threads: int | None = None):
        """Loads a .tflite file.

        Args:
          path: the file.
          size: of the input, float32 `[1, size, size, 3]`.
          outputs: the shapes of the outputs that are wanted, in that order.
          threads: that compute; None: one for each core.

        Raises: PosesError if LiteRT is missing, or the file is no such network.
        """
        try:
            from ai_edge_litert.interpreter import Interpreter
        except ImportError as error:
            raise PosesError(
                f"BlazePose needs the package ai-edge-litert ({error}): `make setup-video`, or "
                "`pip install 'mmcl_jax[video]'`"
            ) from error
        try:
            self._interpreter = Interpreter(str(path), num_threads=threads or os.cpu_count() or 1)
            self._interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            raise PosesError(f"{path}: not a .tflite model ({str(error).splitlines()[0]})") from error
        given = [(tuple(each["shape"].tolist()), each["dtype"]) for each in self._interpreter.get_input_details()]
        if given != [((1, size, size, 3), np.float32)]:
            raise PosesError(f"{path}: a network of inputs {given}, expected float32 (1, {size}, {size}, 3)")
        self._input = self._interpreter.get_input_details()[0]["index"]
        indices = {tuple(each["shape"].tolist()): each["index"] for each in self._interpreter.get_output_details()}
        missing = [shape for shape in outputs if shape not in indices]
        if missing:
            raise PosesError(f"{path}: a network of outputs {list(indices)}, without {missing[0]}; not BlazePose's")
        self._outputs = [indices[shape] for shape in outputs]

    def __call__(self, image: np.ndarray) -> list[np.ndarray]:
        """The wanted outputs for an input; they are copies."""
        self._interpreter.set_tensor(self._input, image)
        self._interpreter.invoke()
        return [self._interpreter.get_tensor(index) for index in self._outputs]
