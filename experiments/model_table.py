"""Prints a Markdown table of all backbones and image encoders: parameters, multiply-adds, and the published figures.

    python -m experiments.model_table [--update docs/performance.md]

The setting is that of NTU RGB+D 120: 120 classes, 25 joints, one clip of 64 frames with both bodies; for an encoder,
one image of its own size. Multiply-adds are counted over all matrix products and convolutions that inference traces (in
the jaxpr, before XLA optimizes it), including products with padding; papers in this field call one multiply-add a FLOP.
XLA's cost analysis is not used, because it also counts elementwise operations and depends on how the compiler fuses.

`--update` writes the table into a file, between its two markers.
"""

import argparse
import pathlib

import jax
import jax.numpy as jnp

from experiments.markdown import markdown_table
from experiments.multiply_adds import multiply_adds
from mmcl_jax.config import get_config
from mmcl_jax.data.layouts import LAYOUTS
from mmcl_jax.models import BACKBONES
from mmcl_jax.models.image_encoders import IMAGE_ENCODERS
from mmcl_jax.runtime.errors import MMCLError, plain_errors
from mmcl_jax.runtime.files import write_whole

BEGIN = "<!-- begin: python -m experiments.model_table --update docs/performance.md -->"
END = "<!-- end: experiments.model_table -->"
CLASSES, FRAMES, BODIES = 120, 64, 2
# Table 7 of the paper: parameters in M, "FLOPs" in G.
PUBLISHED = {"ctrsgcn": (2.09, 2.41), "infogcn": (1.57, 1.84), "ctrgcn": (1.44, 1.79), "hdgcn": (1.65, 1.89)}
_COLUMNS = ("model", "input", "parameters", "multiply-adds", "published (table 7)")


def rows() -> list[dict[str, str]]:
    """The table, one row per model."""
    layout, options = LAYOUTS["ntu"], get_config().model
    clip = jax.ShapeDtypeStruct((1, BODIES, FRAMES, layout.num_joints, 3), jnp.float32)
    table = []
    for name, make in BACKBONES.items():
        shape = f"{BODIES} bodies, {FRAMES} frames, {layout.num_joints} joints"
        table.append(_row(name, shape, make(CLASSES, layout, 3, options), clip))
    for name, encoder in IMAGE_ENCODERS.items():
        image = jax.ShapeDtypeStruct((1, encoder.image_size, encoder.image_size, 3), jnp.float32)
        shape = f"image of {encoder.image_size} x {encoder.image_size}"
        table.append(_row(f"{name} (training only)", shape, encoder.module(), image))
    return table


def _row(name: str, shape: str, model, example: jax.ShapeDtypeStruct) -> dict[str, str]:
    variables = jax.eval_shape(lambda x: model.init(jax.random.key(0), x, train=False), example)
    parameters = sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
    program = jax.make_jaxpr(lambda variables, x: model.apply(variables, x, train=False))(variables, example)
    published = PUBLISHED.get(name)
    values = (
        name,
        shape,
        f"{parameters:,}",
        f"{multiply_adds(program.jaxpr) / 1e9:.3g} G",
        f"{published[0]:.2f} M, {published[1]:.2f} G" if published else "-",
    )
    return dict(zip(_COLUMNS, values, strict=True))


def text() -> str:
    """The table in Markdown."""
    return markdown_table(_COLUMNS, (row.values() for row in rows()))


def markdown() -> str:
    """The table between its two markers, as `--update` writes it."""
    return "\n".join([BEGIN, text(), END])


def update(path: pathlib.Path) -> None:
    """Replaces the table in a file. Raises: MMCLError if the file lacks one of the two markers."""
    text = path.read_text(encoding="utf-8")
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise MMCLError(f"{path}: the lines {BEGIN!r} and {END!r} are missing; the table goes between them")
    write_whole(path, before + markdown() + after)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--update", type=pathlib.Path, metavar="FILE", help="write the table into this file")
    options = parser.parse_args()
    with plain_errors("interrupted"):
        if options.update:
            update(options.update)
        else:
            print(markdown())


if __name__ == "__main__":
    main()
