"""Whether a run computes absent bodies once, and how many bodies its programs compute then."""

from mmcl_jax.data.capacities import BodyCounts, Capacities
from mmcl_jax.data.transforms import absent_stays_zero
from mmcl_jax.models.groups import group_count
from mmcl_jax.task import TrainingTask


def capacities_of(task: TrainingTask, devices: int) -> tuple[Capacities | None, str]:
    """The numbers of bodies of a run's programs on this number of devices, and the decision in words.

    None: all bodies.
    """
    config, records = task.config, task.skeleton.records
    fault = _fault(task)
    if fault is not None:
        return None, f"all bodies are computed: {fault}"
    counts = BodyCounts(
        bodies=records.index["num_bodies"][task.rows],
        most=records.max_bodies,
        seed=config.seed,
        batch_size=config.batch_size,
        repeats=config.data.repeats,
        groups=group_count(config.batch_size, config.model.batch_norm_group_size),
        devices=devices,
    )
    capacities = Capacities(counts)
    if not capacities.sizes:
        return None, "all bodies are computed: too few are absent"
    sizes = " or ".join(str(size * counts.groups) for size in capacities.sizes)
    return capacities, (
        f"absent bodies are computed once, with the same result: {sizes} bodies of {counts.full * counts.groups} in a "
        "batch, a program for each number"
    )


def _fault(task: TrainingTask) -> str | None:
    """Why absent bodies cannot be computed once; None: they can."""
    config = task.config
    if not config.pack_absent_bodies:
        return "pack_absent_bodies is False"
    if task.skeleton.records.max_bodies == 1:
        return "clips have one body"
    if config.data.absent_body != "zeros":
        return f"with data.absent_body {config.data.absent_body!r} they differ from clip to clip"
    if not absent_stays_zero(config.data.absent_body, config.data.sampling):
        return f"data.sampling {config.data.sampling!r} moves absent ones"
    if config.loss.mixup:
        return "loss.mixup mixes absent ones with present ones"
    if not getattr(task.skeleton.backbone, "weighs_bodies", False):
        return f"{config.model.backbone} does not say that it weighs them"
    return None
