"""Records that the importers' tests compare theirs with."""

import pytest

from mmcl_jax.data import records
from tests.helpers import ntu_formats


@pytest.fixture(scope="session")
def reference(tmp_path_factory) -> records.Records:
    return ntu_formats.prepare(tmp_path_factory.mktemp("reference"))
