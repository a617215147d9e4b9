"""The table of models: multiply-adds counted by hand, and that the documents' table is what the code gives."""

import pathlib

import jax
import jax.numpy as jnp
import pytest

from experiments import model_table
from mmcl_jax.models import BACKBONES
from mmcl_jax.models.image_encoders import IMAGE_ENCODERS
from mmcl_jax.runtime.errors import MMCLError

PAGE = pathlib.Path(__file__).parents[2] / "docs" / "performance.md"


def count(function, *shapes) -> int:
    return model_table.multiply_adds(jax.make_jaxpr(function)(*(jnp.zeros(shape) for shape in shapes)).jaxpr)


def convolution(x, kernel, groups=1):
    return jax.lax.conv_general_dilated(x, kernel, (2, 2), "SAME", (1, 1), (1, 1), ("NHWC", "HWIO", "NHWC"), groups)


def scanned(x, kernel):
    return jax.lax.scan(lambda carry, _: (carry @ kernel, None), x, length=3)[0]


@pytest.mark.parametrize(
    ("function", "shapes", "expected"),
    [
        (jnp.matmul, [(4, 5), (5, 6)], 4 * 5 * 6),
        (lambda a, b: jnp.einsum("kuv,nkv->nku", a, b), [(3, 7, 8), (2, 3, 8)], 2 * 3 * 7 * 8),
        (convolution, [(2, 8, 6, 4), (3, 3, 4, 10)], 2 * 4 * 3 * 10 * 3 * 3 * 4),
        (lambda x, k: convolution(x, k, groups=2), [(2, 8, 6, 4), (3, 3, 2, 10)], 2 * 4 * 3 * 10 * 3 * 3 * 2),
        (jax.jit(lambda a, b: jax.nn.relu(a @ b) + 1), [(4, 5), (5, 6)], 4 * 5 * 6),
        (scanned, [(4, 5), (5, 5)], 3 * 4 * 5 * 5),
        (lambda a, b: (a * b).sum() + jnp.tanh(a).mean(), [(4, 5), (4, 5)], 0),
    ],
)
def test_multiply_adds_by_hand(function, shapes, expected):
    assert count(function, *shapes) == expected


def test_a_loop_of_unknown_length_is_refused():
    with pytest.raises(ValueError, match="'while' depend on the data"):
        count(lambda x: jax.lax.while_loop(lambda x: x.sum() < 9, lambda x: x @ x, x), (2, 2))


def test_the_page_has_the_table_that_the_code_gives():
    _, _, rest = PAGE.read_text(encoding="utf-8").partition(model_table.BEGIN)
    written, end, _ = rest.partition(model_table.END)
    expected = model_table.markdown()
    assert end and model_table.BEGIN + written + end == expected, (
        "run python -m experiments.model_table --update docs/performance.md"
    )
    for name in (*BACKBONES, *IMAGE_ENCODERS):
        assert f"\n| {name} " in expected
    # CTR-GCN's figures, counted by others.
    assert "| 1,462,092 | 1.79 G | 1.44 M, 1.79 G |" in expected


def test_update_replaces_the_table_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(model_table, "markdown", lambda: f"{model_table.BEGIN}\nnew\n{model_table.END}")
    path = tmp_path / "page.md"
    path.write_text(f"before\n{model_table.BEGIN}\nold\n{model_table.END}\nafter\n")
    model_table.update(path)
    assert path.read_text() == f"before\n{model_table.BEGIN}\nnew\n{model_table.END}\nafter\n"
    path.write_text("no table\n")
    with pytest.raises(MMCLError, match="are missing"):
        model_table.update(path)
    assert path.read_text() == "no table\n"
