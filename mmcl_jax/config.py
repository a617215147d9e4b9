"""Every key of a run's configuration: its type, its default (the paper's recipe) and what it does.

The same keys have two faces. Config files and `--config.KEY=VALUE` change a `ConfigDict`, which `get_config` returns
with the defaults. The program reads a `Config`, frozen and typed, which `Config.of` makes of the ConfigDict once.

A new key is a field of one of these classes. Its default must be what runs did before the key existed: a workdir older
than a key uses the key's default.
"""

import dataclasses
import typing
from typing import Any

import ml_collections
from ml_collections import config_dict

from mmcl_jax.data.camera import NO_CAMERA, CameraOptions
from mmcl_jax.runtime.errors import ConfigError


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """Which clips are read, how, and what happens to them before the model sees them."""

    records: str = ""  # folder that data_prep wrote
    protocol: str = "xsub"  # key of mmcl_jax.data.records.PROTOCOLS for the dataset, or one of the records' own
    validation_subjects: tuple[int, ...] = ()  # training subjects held out as a validation split
    repeats: int = 1  # how often each clip occurs in an epoch
    shuffled_images: bool = False  # True: FAM sees another training clip's image, drawn with the seed; a control
    text: str = ""  # text set for FRM, 'model/question' or 'model/question/feature'
    text_scaling: str = "none"  # none (released code) | standardise (by the training clips)
    threads: int = 4  # threads that read clips
    prefetch: int = 64  # clips read ahead, at least a batch
    # Processes that read whole batches instead of the threads, except for a frozen image encoder's features. 0: none.
    # They cost seconds at the start of training and of each evaluation, some 250 MB each in addition to
    # host_memory_mb, and room in /dev/shm, which containers often lack.
    workers: int = 0
    host_memory_mb: int = 1000  # limit, in MB, for the clips and batches of a process and of its workers
    storage: str = "float32"  # float32 | float16: skeletons before the transform; float16 takes half the memory
    device_resident: bool = False  # True: clips are read once, stay on every device, and batches are drawn there
    stream: str = "joint"  # joint | bone | joint_motion | bone_motion | joint_bone: the channels of both in one model
    window: int = 64  # frames that the model sees
    sampling: str = "crop_resize"  # crop_resize | view_normalised (NW-UCLA) | paced (windows of about the same time)
    frame_rate: float = 0.0  # frames a second of the clips, for prediction from video; 0: as the records say
    pace: tuple[float, float] = (0.6, 1.4)  # paced: frames that a training window covers, in windows
    crop_interval: tuple[float, float] = (0.5, 1.0)  # fraction of a training clip that a crop keeps
    test_crop: float = 0.95  # fraction that the centered test crop keeps
    rotation: float = 0.3  # bound of the random rotation: radians; whole degrees for view_normalised
    centre: bool = False  # subtract the center joint of the first frame (NTU records are centered already)
    absent_body: str = "zeros"  # zeros | copy: what replaces the second body of a one-person clip
    camera: CameraOptions = NO_CAMERA  # random cameras: 3-D clips become poses of a picture

    # Further augmentation of training clips, before the crop; 0: off. See mmcl_jax/data/augmentations.py.
    flip: float = 0.0  # probability to mirror a clip: x negated, left and right joints exchanged
    joint_dropout: float = 0.0  # probability of each joint to be lost, at the origin, in the whole clip
    noise: float = 0.0  # standard deviation of noise on each coordinate, in the units of the records
    speed_change: float = 0.0  # a clip runs up to so much faster at one end and slower at the other; less than 1

    # Fraction of the training clips that is used, the same of every class and at least one clip of each. Which ones
    # depends on the seed below only, and a larger fraction has all clips of a smaller one.
    train_fraction: float = 1.0
    train_fraction_seed: int = 0


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """The skeleton model, and the modules of MMCL around it."""

    backbone: str = "ctrgcn"  # key of mmcl_jax.models.BACKBONES
    base_channels: int = 64  # width of the first blocks, a multiple of 4
    graph: str = "natural"  # what ctrgcn starts from: natural | hierarchical (HD-Graph); others have their own
    center_of_mass: int = 2  # root of HD-GCN's hierarchy: 1 pelvis | 2 belly | 21 chest (NTU's joint numbers)
    batch_norm_group_size: int | None = None  # clips normalized together; None: the batch
    k: int = 8  # infogcn: representation I - A^k; 8: joints, 1: bones, between: from the k-th ancestor
    relatives: str = "ancestors"  # infogcn: A of I - A^k: ancestors | descendants (as published for NW-UCLA)
    latent_noise: float = 0.1  # infogcn: the latent deviation is exp(latent_noise * logvar); 0: no sampling
    label_smoothing: float = 0.1  # infogcn
    mmd_weights: tuple[float, float] = (1e-4, 1e-1)  # infogcn: pull the latent mean to 0, class means to their priors
    prior_gain: float = 3.0  # infogcn: length of the class priors
    image_encoder: str = "inception_v3"  # efficientnet_lite0 | inception_v3 | resnet34 | small_cnn
    # Published weights of that encoder, .npz, .pt or .pth. imagenet: those of the extra `imagenet`; empty: random.
    image_encoder_weights: str = ""
    image_encoder_frozen: bool = False  # True: image features are computed once, before training
    refinement_terms: int = 2  # n of eq. 8
    refinement_matrices: str = "diagonal"  # diagonal (released code) | full (eq. 8)


@dataclasses.dataclass(frozen=True)
class LossConfig:
    """The terms of the loss, eq. 10."""

    contrastive_weight: float = 0.1  # lambda_1 of eq. 10; 0: no FAM, images are not read
    refinement_weight: float = 0.2  # lambda_2 of eq. 10; 0: no FRM, text is not read
    contrastive: str = "released"  # released | paper (eq. 6)
    temperature: float = 0.4  # tau of eq. 5
    contrastive_group_size: int | None = None  # clips contrasted together; None: the batch

    # Of the classification losses, those of FRM's scores included.
    label_smoothing: float = 0.0  # share of the target that all classes get in equal parts; Info-GCN has its own key
    class_weights: str = "none"  # none | balanced: each class counts the same, however many training clips it has
    mixup: float = 0.0  # clips are mixed in pairs, with a weight from Beta(mixup, mixup); 0: off. Without FAM and FRM


@dataclasses.dataclass(frozen=True)
class Config:
    """A run's configuration."""

    seed: int = 0  # initial weights, order of the clips, augmentation
    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    loss: LossConfig = LossConfig()

    # float32 | bfloat16: features, convolutions and products in training. Parameters, optimizer, batch-norm statistics,
    # softmax, losses and text features stay float32, and so does evaluation, which is cheap compared to training.
    compute_dtype: str = "float32"
    # True: bodies that are absent are computed only once in a batch, where that gives the same result: faster training
    # on clips of which many have one person. See docs/training.md.
    pack_absent_bodies: bool = True
    num_epochs: int = 110
    batch_size: int = 200  # over all devices; an incomplete last batch of an epoch is dropped
    learning_rate: float = 0.1
    warmup_epochs: int = 5
    drop_epochs: tuple[int, ...] = (90, 100)  # the learning rate is multiplied by drop_factor after these
    drop_factor: float = 0.1
    optimizer: str = "sgd"  # sgd | adamw, whose learning rate is usually about 1e-3
    schedule: str = "step"  # step | cosine: from learning_rate to 0 in num_epochs, without drops
    momentum: float = 0.9  # Nesterov; sgd
    weight_decay: float = 4e-4  # on every parameter
    gradient_clip: float = 0.0  # largest norm of all gradients together; larger ones are scaled down to it. 0: off
    # Evaluation and export use a moving average of the skeleton model's weights and statistics: after each step
    # average <- decay average + (1 - decay) new, with decay = min(this, (1 + step) / (10 + step)). 0: off.
    ema_decay: float = 0.0

    # Fine-tuning. The classifier is new where the classes differ; docs/fine-tuning.md says what else is taken.
    init_from: str = ""  # folder of a trained model whose weights training starts from; empty: random ones
    freeze: str = "none"  # none | backbone: only the classifier trains, and FAM and FRM if there are any
    backbone_learning_rate_scale: float = 1.0  # times the learning rate: that of the backbone without its classifier

    # Steps in one program, which runs them without returning to the host. A program ends where something is logged,
    # saved or evaluated, and the steps left before that point run one by one: choose a divisor of log_every_steps.
    steps_per_dispatch: int = 1

    # By the validation split, so data.validation_subjects is needed. The test split never decides.
    keep_best: bool = False  # the weights of the best epoch by validation top-1 are kept in WORKDIR/best
    early_stopping_epochs: int = 0  # training ends after so many epochs without a better one; needs keep_best. 0: off

    eval_batch_size: int = 64  # over all devices
    eval_every_epochs: int = 1  # the last epoch is always evaluated
    checkpoint_every_steps: int = 0  # 0: after every epoch only
    log_every_steps: int = 50
    wandb_project: str = ""  # Weights & Biases: project to log to, where wandb is installed; empty: off

    @classmethod
    def of(cls, config: "AnyConfig") -> "Config":
        """The typed form of a ConfigDict; a Config is returned as it is.

        Raises: ConfigError, naming a key that is missing or unknown, has too few or too many values, or has a number
        that no run can compute with: infinite, NaN, or too large.
        """
        return config if isinstance(config, Config) else _typed(cls, config, "")

    def to_json(self) -> dict[str, Any]:
        """The keys and values as `config.json` stores them: nested dicts, lists for tuples."""
        return _with_lists(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, stored: Any) -> "Config":
        """The config that `to_json` stored; a key that is not in `stored`, which is older then, has its default.

        Raises: ConfigError, naming the key, for an unknown key or a value of another type.
        """
        return cls.of(untyped_from_json(stored))


AnyConfig = Config | ml_collections.ConfigDict


def get_config() -> ml_collections.ConfigDict:
    """The defaults, for a config file to change."""
    return _untyped(Config())


def untyped_from_json(stored: Any) -> ml_collections.ConfigDict:
    """The ConfigDict, for `--config.KEY=VALUE` to change, of what `Config.to_json` stored. Raises: ConfigError."""
    config = get_config()
    _update(config, stored, "")
    return config


def _update(config: ml_collections.ConfigDict, stored: Any, prefix: str) -> None:
    if not isinstance(stored, dict):
        raise ConfigError(
            f"config {prefix or 'keys'} {str(stored)[:40]!r}: expected an object with a value for each key"
        )
    for key, value in stored.items():
        if key not in config:
            raise ConfigError(f"unknown config key {prefix}{key}; mmcl_jax/config.py lists all keys")
        inner = config[key]
        if isinstance(inner, ml_collections.ConfigDict):
            _update(inner, value, f"{prefix}{key}.")
            continue
        try:
            config[key] = tuple(value) if isinstance(value, list) else value
        except (TypeError, ValueError) as error:
            raise ConfigError(f"{prefix}{key} {str(value)[:40]!r}: {error}") from error


def _untyped(defaults: Any) -> ml_collections.ConfigDict:
    """A ConfigDict with the fields of a dataclass, which accepts only values of the fields' types."""
    config, types = ml_collections.ConfigDict(), typing.get_type_hints(type(defaults))
    for field in dataclasses.fields(defaults):
        value = getattr(defaults, field.name)
        if dataclasses.is_dataclass(value):
            value = _untyped(value)
        elif value is None:
            value = config_dict.placeholder(typing.get_args(types[field.name])[0])
        config[field.name] = value
    return config


def _typed(kind: type, config: ml_collections.ConfigDict, prefix: str) -> Any:
    types = typing.get_type_hints(kind)
    for keys, what in ((config.keys() - types.keys(), "unknown"), (types.keys() - config.keys(), "missing")):
        if keys:
            raise ConfigError(f"{what} config key {prefix}{min(keys)}; mmcl_jax/config.py lists all keys")
    values: dict[str, Any] = {key: config[key] for key in types}
    for key, value in values.items():
        if dataclasses.is_dataclass(types[key]):
            values[key] = _typed(types[key], value, f"{prefix}{key}.")
        elif isinstance(value, list | tuple):
            values[key] = tuple(value)
            expected = typing.get_args(types[key])
            if ... not in expected and len(value) != len(expected):
                raise ConfigError(f"{prefix}{key} {values[key]} has {len(value)} values, expected {len(expected)}")
        kinds = [kind for kind in typing.get_args(types[key]) if kind is not ...]
        for place, number in enumerate(values[key] if isinstance(values[key], tuple) else (values[key],)):
            if isinstance(values[key], tuple) and not _is_of(number, kinds[min(place, len(kinds) - 1)]):
                raise ConfigError(f"{prefix}{key} {values[key]}: {number!r} is no {kinds[0].__name__}")
            _check_number(f"{prefix}{key}", number)
    return kind(**values)


def _is_of(value: Any, kind: type) -> bool:
    """Whether a value is of the kind; an int is a float too, a bool is neither."""
    return isinstance(value, (kind, int) if kind is float else kind) and isinstance(value, bool) == (kind is bool)


def _check_number(name: str, value: Any) -> None:
    if isinstance(value, int):
        largest = _LARGEST_SEED if name == "seed" else _LARGEST_INTEGER
        if abs(value) > largest:
            raise ConfigError(f"{name} has {len(f'{abs(value):x}') * 4} bits; numbers end at {largest}")
    elif isinstance(value, float) and not abs(value) <= _LARGEST_FLOAT:
        raise ConfigError(f"{name} {value} is not a finite number of float32, which ends at {_LARGEST_FLOAT:.3g}")


_LARGEST_INTEGER = 2**31 - 1  # steps and rows are int32 on the devices
_LARGEST_SEED = 2**63 - 1
_LARGEST_FLOAT = (2 - 2**-23) * 2.0**127


def _with_lists(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _with_lists(inner) for key, inner in value.items()}
    return [_with_lists(inner) for inner in value] if isinstance(value, tuple) else value


def without_images_and_text(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    """Turns FAM and FRM off: a skeleton-only baseline."""
    config.update_from_flattened_dict({"loss.contrastive_weight": 0.0, "loss.refinement_weight": 0.0})
    return config


def split_arguments(arguments: str, defaults: tuple[str, ...]) -> list[str]:
    """The comma-separated arguments of a config file, completed with `defaults`. Raises: ConfigError for too many."""
    given = arguments.split(",")
    if len(given) > len(defaults):
        raise ConfigError(f"{arguments!r}: {len(given)} arguments, expected at most {len(defaults)}")
    return [*given, *defaults[len(given) :]]


def get_ntu_config(protocol: str, stream: str, variant: str) -> ml_collections.ConfigDict:
    """The common part of NTU RGB+D 60 and 120: the paper's recipe on two GPUs, each of which sees 100 of 200 clips.

    Raises: ConfigError if `variant` is neither empty nor 'skeleton_only'.
    """
    if variant not in ("", "skeleton_only"):
        raise ConfigError(f"the variant {variant!r} is not 'skeleton_only'")
    config = get_config()
    config.update_from_flattened_dict(
        {
            "data.records": "data/ntu",
            "data.protocol": protocol,
            "data.stream": stream,
            "data.text": "blip/holding/token_ids",
            "model.batch_norm_group_size": 100,
            "loss.contrastive_group_size": 100,
        }
    )
    return without_images_and_text(config) if variant else config
