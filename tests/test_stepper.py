"""How the steps of a run are divided into programs."""

import pytest

from mmcl_jax.config import Config
from mmcl_jax.stepper import dispatches


@pytest.mark.parametrize("start", [0, 7, 12, 29])
@pytest.mark.parametrize(("together", "log_every", "save_every"), [(1, 50, 0), (4, 6, 0), (4, 8, 10), (5, 50, 7)])
def test_dispatches_end_where_something_is_logged_saved_or_evaluated(start, together, log_every, save_every):
    config = Config(steps_per_dispatch=together, log_every_steps=log_every, checkpoint_every_steps=save_every)
    divided = list(dispatches((start, 36), 12, config))
    assert [step + i for step, count in divided for i in range(count)] == list(range(start, 36))
    assert {count for _, count in divided} <= {1, together}
    for every in filter(None, (12, log_every, save_every)):
        assert not any(end % every == 0 for step, count in divided for end in range(step + 1, step + count)), every
    if together == 4 and not save_every:
        assert [count for _, count in divided][-3:] == [4, 1, 1]
