"""Checkpoints that the command refuses: whole or not at all, with every problem named, and nothing in them run."""

import os
import warnings
import zipfile

import numpy as np
import pytest
import torch

from mmcl_jax.pytorch.names import IMAGE_ENCODER_ENTRIES
from tests.helpers.torch_files import fails, random_state_dict, save, tensors


@pytest.fixture(scope="module")
def ctrgcn():
    return random_state_dict("ctrgcn")


class Payload:
    """Unpickled, it would make a file."""

    def __init__(self, call, marker):
        self._call, self._marker = call, marker

    def __reduce__(self):
        if self._call is exec:
            return exec, (f"open({str(self._marker)!r}, 'w').close()",)
        return os.system, (f"touch {self._marker}",)


def without(state_dict, key):
    return {name: value for name, value in state_dict.items() if name != key}


def spoiled(state_dict, key, spoil):
    value = state_dict[key].copy()
    return {**state_dict, key: spoil(value)}


def nan(value):
    value.flat[3] = np.nan
    return value


def renamed(state_dict):
    return {key.replace("gcn1", "gcn"): value for key, value in state_dict.items()}


BROKEN = {
    "class counts disagree": (
        lambda s: spoiled(s, "fc.weight", lambda v: v[:-1]),
        ["read as ctrgcn", "misshapen: fc.weight, seen float32 (11, 16), expected float (12, 16)"],
    ),
    "a key is missing": (
        lambda s: without(s, "l5.residual.bn.running_var"),
        ["(1 problems;", "missing: l5.residual.bn.running_var, expected (8,)"],
    ),
    "a key that tells a size is missing": (
        lambda s: without(without(s, "l1.gcn1.PA"), "fc.weight"),
        ["missing: l1.gcn1.PA, which tells joints", "missing: fc.weight"],
    ),
    "a key too many": (
        lambda s: {**s, "l11.fc.weight": s["fc.weight"]},
        ["extra: l11.fc.weight, seen (12, 16), expected no such key"],
    ),
    "transposed classifier": (
        lambda s: spoiled(s, "fc.weight", np.transpose),
        ["misshapen: fc.weight, seen float32 (16, 12), expected float (12, 16)"],
    ),
    "transposed first convolution": (
        lambda s: spoiled(s, "l1.gcn1.down.0.weight", lambda v: v.swapaxes(0, 1)),
        ["misshapen: data_bn.weight, seen (75,), expected a multiple of 100: 25 joints (l1.gcn1.PA) x 4 channels"],
    ),
    "a width that no model has": (
        lambda s: spoiled(s, "l1.gcn1.bn.weight", lambda v: v[:3]),
        ["misshapen: l1.gcn1.bn.weight, 3 channels, expected a multiple of 4"],
    ),
    "integers": (
        lambda s: spoiled(s, "fc.bias", lambda v: v.astype(np.int64)),
        ["misshapen: fc.bias, seen int64 (12,), expected float (12,)"],
    ),
    "not a number": (
        lambda s: spoiled(s, "l3.gcn1.bn.weight", nan),
        ["not finite: l3.gcn1.bn.weight (4,), 1 of 4 values are NaN or infinite"],
    ),
    "a negative variance": (
        lambda s: spoiled(s, "l3.gcn1.bn.running_var", np.negative),
        ["negative: l3.gcn1.bn.running_var, whose least value is -", "a variance is 0 or more"],
    ),
    "a fractional counter": (
        lambda s: spoiled(s, "data_bn.num_batches_tracked", lambda v: v / 2),
        ["misshapen: data_bn.num_batches_tracked, expected one integer"],
    ),
    "renamed keys": (
        renamed,
        ["none of the models known here (ctrgcn", "--model=ctrgcn lists what is missing"],
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_state_dict_that_does_not_fit(case, ctrgcn, tmp_path, capsys):
    spoil, expected = BROKEN[case]
    file = save(spoil(ctrgcn), tmp_path / "a.npz")
    message = fails(capsys, "import", file, tmp_path / "run")
    assert message.startswith(f"{file}: ")
    for words in expected:
        assert words in message
    assert list(tmp_path.iterdir()) == [file]  # nothing is left behind


def test_every_missing_key_is_listed_where_the_model_is_named(ctrgcn, tmp_path, capsys):
    file = save(renamed(ctrgcn), tmp_path / "a.npz")
    message = fails(capsys, "import", file, tmp_path / "run", "--model=ctrgcn")
    assert "missing: l1.gcn1.PA, which tells joints" in message
    assert "missing: l9.gcn1.convs.2.conv4.weight" in message


def test_class_names_that_are_no_text(ctrgcn, tmp_path, capsys):
    file, names = save(ctrgcn, tmp_path / "a.npz"), tmp_path / "names.txt"
    names.write_bytes(b"\xff\xfe\x00")
    message = fails(capsys, "import", file, tmp_path / "run", "--layout=ntu", f"--class_names={names}")
    assert message.startswith(f"{names}: not a readable list of class names") and not (tmp_path / "run").exists()


def cut(file, _):
    file.write_bytes(file.read_bytes()[:-5000])


def empty(file, _):
    file.write_bytes(b"")


def prose(file, _):
    file.write_text("404: not found")


def nothing(file, _):
    file.unlink()


def payload(call):
    return lambda file, marker: torch.save({"fc.weight": torch.ones(2), "fc.bias": Payload(call, marker)}, file)


def old_payload(file, marker):
    torch.save({"state_dict": Payload(os.system, marker)}, file, _use_new_zipfile_serialization=False)


def whole_model(file, _):
    torch.save(torch.nn.Linear(2, 2), file)


def two_models(file, _):
    torch.save({"model": {"a": torch.ones(1)}, "ema": {"model": {"a": torch.ones(1)}}}, file)


def no_tensors(file, _):
    torch.save({"epoch": 3, "names": ["a"]}, file)


def sparse(file, _):
    torch.save({"a": torch.eye(3).to_sparse()}, file)


def objects(file, marker):
    np.savez(file, a=np.array([Payload(os.system, marker)], object))


def of_torch(file, _):
    torch.save({"a": torch.ones(1)}, file)


def web_page(file, _):
    file.write_text("\n<!DOCTYPE html><html>quota exceeded</html>")


def lfs_pointer(file, _):
    file.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5800000\n")


def expanded(file, _):
    torch.save({"a": torch.zeros(1).expand(10**6, 10**6)}, file)


def a_changed_bit(file, _):
    with zipfile.ZipFile(file) as archive:
        body = max((archive.read(name) for name in archive.namelist() if "/data/" in name), key=len)
    contents = file.read_bytes()
    place = contents.index(body) + len(body) // 2
    file.write_bytes(contents[:place] + bytes([contents[place] ^ 1]) + contents[place + 1 :])


def nothing_in_it(file, _):
    np.savez(file)


def script(file, _):
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`torch.jit", DeprecationWarning)  # files of it are still about
        torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), file)


def encoder(file, _):
    entries = IMAGE_ENCODER_ENTRIES["resnet34"]()
    np.savez(file, **{entry.key: np.ones(entry.ndim * (1,), np.float32) for entry in entries})


@pytest.mark.parametrize(
    ("spoil", "suffix", "problem", "remedy"),
    [
        (cut, "pt", "not a readable state dict", "Copy or download it again"),
        (cut, "npz", "not a readable state dict", "Copy or download it again"),
        (empty, "pt", "not a readable state dict: its 0 bytes", "Copy or download it again"),
        (empty, "npz", "not a readable state dict: its 0 bytes", "Copy or download it again"),
        (prose, "pth", "holds more than tensors, or is damaged", "torch.save(model.state_dict(), FILE)"),
        (nothing, "pt", "no such file", "name a PyTorch checkpoint"),
        (
            payload(os.system),
            "pt",
            f"it refers to {os.system.__module__}.system",
            "torch.save(model.state_dict(), FILE)",
        ),
        (payload(exec), "pt", "it refers to exec", "torch.save(model.state_dict(), FILE)"),
        (old_payload, "pt", f"it refers to {os.system.__module__}.system", "torch.save(model.state_dict(), FILE)"),
        (objects, "npz", "not a readable state dict", "Object arrays cannot be loaded"),
        (web_page, "pt", "a web page, not weights", "Open the address in a browser"),
        (web_page, "npz", "a web page, not weights", "Open the address in a browser"),
        (lfs_pointer, "pth", "a pointer of git-lfs, not the weights", "git lfs pull"),
        (expanded, "pt", "a [1000000, 1000000] is stored as fewer numbers than it has", "save contiguous tensors"),
        (a_changed_bit, "pt", "the checksum of its part", "Copy or download it again"),
        (of_torch, "npz", "is no array", "a file of torch.save is named .pt or .pth"),
        (nothing_in_it, "npz", "it is empty", "Copy or download it again"),
        (script, "pt", "TorchScript", "Copy or download it again"),
        (whole_model, "pt", "it refers to torch.nn.modules.linear.Linear", "torch.save(model.state_dict(), FILE)"),
        (two_models, "pt", "2 dicts of tensors, under 'model', 'ema.model'", "torch.save(model.state_dict(), FILE)"),
        (no_tensors, "pt", "0 dicts of tensors, where one is expected", "torch.save(model.state_dict(), FILE)"),
        (sparse, "pt", "sparse or quantized tensors", "save dense ones"),
        (encoder, "npz", "weights of the image encoder resnet34", "--config.model.image_encoder_weights=FILE"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_a_file_that_is_no_state_dict(spoil, suffix, problem, remedy, ctrgcn, tmp_path, capsys):
    file, marker = tmp_path / f"a.{suffix}", tmp_path / "marker"
    save(ctrgcn if suffix == "npz" else tensors(ctrgcn), file)
    spoil(file, marker)
    message = fails(capsys, "import", file, tmp_path / "run")
    assert len(message.strip().splitlines()) == 1
    assert message.startswith(f"{file}: ")
    assert problem in message and remedy in message
    assert not marker.exists()
    assert set(tmp_path.iterdir()) <= {file}
