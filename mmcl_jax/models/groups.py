"""Groups of clips in a batch: batch norm and the contrastive loss may see one part at a time, as several GPUs do."""

from mmcl_jax.runtime.errors import ConfigError


def group_count(clips: int, group_size: int | None) -> int:
    """Returns the number of groups of `group_size` clips in a batch of `clips`; None is one group.

    Raises:
      ConfigError: `clips` is not a multiple of `group_size`.
    """
    if group_size is None:
        return 1
    if clips % group_size:
        raise ConfigError(f"group size {group_size} does not divide a batch of {clips}; choose one that does")
    return clips // group_size
