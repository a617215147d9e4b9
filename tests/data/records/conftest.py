"""Records that tests read, and a copy that they damage."""

import shutil

import pytest

from mmcl_jax.data import records
from tests.helpers.made_up_records import OWN_INFO, make_clip, make_info


@pytest.fixture(scope="session")
def prepared(tmp_path_factory):
    out = tmp_path_factory.mktemp("records") / "made_up"
    records.write_records(out, make_info(), (make_clip(number) for number in range(12)), total=12)
    return out


@pytest.fixture
def damaged(prepared, tmp_path):
    """A copy to damage."""
    return shutil.copytree(prepared, tmp_path / "damaged")


@pytest.fixture(scope="session")
def own_dataset(tmp_path_factory):
    """Records that bring layout, channels and protocol with them."""
    out = tmp_path_factory.mktemp("records") / "own"
    clips = (make_clip(number, skeleton=make_clip(number).skeleton[:, :, :3]) for number in range(12))
    records.write_records(out, make_info(**OWN_INFO), clips)
    return out
