"""The commands under one name."""

import pathlib

import pytest

import data_prep
from data_prep import __main__ as commands
from data_prep import synthetic


def test_every_command_is_listed():
    modules = {path.stem for path in pathlib.Path(data_prep.__file__).parent.glob("*.py") if "__" not in path.stem}
    assert set(commands.COMMANDS) == modules


def test_a_command_gets_what_follows_its_name(monkeypatch):
    given = []
    monkeypatch.setattr(synthetic, "main", given.append)
    monkeypatch.setattr("sys.argv", ["mmcl-prepare"])
    commands.main(["synthetic", "--out", "DIR", "--help"])
    assert given == [["--out", "DIR", "--help"]]


def test_an_unknown_name_is_refused(capsys):
    with pytest.raises(SystemExit):
        commands.main(["ntu12"])
    assert "invalid choice: 'ntu12'" in capsys.readouterr().err
