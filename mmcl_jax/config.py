"""Every key of a run's configuration with its default: the paper's recipe. The files in `configs` state what differs.

A new key's default is what runs did before there was the key: workdirs that are older than it are read so.
"""

import ml_collections
from ml_collections import config_dict


def get_config() -> ml_collections.ConfigDict:
    config = ml_collections.ConfigDict()
    config.seed = 0  # initial weights, order of the clips, augmentation

    config.data = ml_collections.ConfigDict()
    config.data.records = ""  # folder that data_prep wrote
    config.data.protocol = "xsub"  # key of mmcl_jax.data.records.PROTOCOLS for the dataset, or one of the records' own
    config.data.validation_subjects = ()  # training subjects held out as a validation split
    config.data.repeats = 1  # times that each clip comes in an epoch
    config.data.text = ""  # text set for FRM, 'model/question' or 'model/question/feature'
    config.data.text_scaling = "none"  # none (released code) | standardise (by the training clips)
    config.data.threads = 4  # reading clips
    config.data.prefetch = 64  # clips read ahead, at least a batch
    # Processes that read whole batches instead of those threads, wherever clips are read, but not beside a frozen image
    # encoder's features. 0: none; they cost seconds at the start of training and of each evaluation, some 250 MB each
    # beside host_memory_mb, and room in /dev/shm, which containers often lack.
    config.data.workers = 0
    config.data.host_memory_mb = 1000  # what a process's clips and batches, and its workers', may take
    config.data.storage = "float32"  # float32 | float16: skeletons before the transform; float16 halves what they take
    config.data.device_resident = False  # True: clips are read once, live on every device, and batches are drawn there
    config.data.stream = "joint"  # joint | bone | joint_motion | bone_motion
    config.data.window = 64  # frames that the model sees
    config.data.sampling = "crop_resize"  # crop_resize | view_normalised (NW-UCLA)
    config.data.crop_interval = (0.5, 1.0)  # fraction of a training clip that a crop keeps
    config.data.test_crop = 0.95  # fraction that the centred test crop keeps
    config.data.rotation = 0.3  # bound of the random rotation: radians; whole degrees for view_normalised
    config.data.centre = False  # subtract the centre joint of the first frame (NTU records are centred already)
    config.data.absent_body = "zeros"  # zeros | copy: what stands for the second body of a one-person clip

    config.model = ml_collections.ConfigDict()
    config.model.backbone = "ctrgcn"  # key of mmcl_jax.models.BACKBONES
    config.model.base_channels = 64  # width of the first blocks, a multiple of 4
    config.model.graph = "natural"  # what ctrgcn starts from: natural | hierarchical (HD-Graph); others have their own
    config.model.center_of_mass = 2  # root of HD-GCN's hierarchy: 1 pelvis | 2 belly | 21 chest (NTU's joint numbers)
    config.model.batch_norm_group_size = config_dict.placeholder(int)  # clips normalised together; None: the batch
    config.model.k = 8  # infogcn: representation I - A^k; 8: joints, 1: bones, between: from the k-th ancestor
    config.model.relatives = "ancestors"  # infogcn: A of I - A^k: ancestors | descendants (as published for NW-UCLA)
    config.model.latent_noise = 0.1  # infogcn: the latent deviation is exp(latent_noise * logvar); 0: no sampling
    config.model.label_smoothing = 0.1  # infogcn
    config.model.mmd_weights = (1e-4, 1e-1)  # infogcn: pull of the latent mean to 0, of class means to their priors
    config.model.prior_gain = 3.0  # infogcn: length of the class priors
    config.model.image_encoder = "inception_v3"  # inception_v3 | resnet34 | small_cnn
    config.model.image_encoder_weights = ""  # torchvision's of that encoder, .npz, .pt or .pth; empty: random
    config.model.image_encoder_frozen = False  # True: image features are computed once, before training
    config.model.refinement_terms = 2  # n of eq. 8
    config.model.refinement_matrices = "diagonal"  # diagonal (released code) | full (eq. 8)

    config.loss = ml_collections.ConfigDict()
    config.loss.contrastive_weight = 0.1  # lambda_1 of eq. 10; 0: no FAM, images are not read
    config.loss.refinement_weight = 0.2  # lambda_2 of eq. 10; 0: no FRM, text is not read
    config.loss.contrastive = "released"  # released | paper (eq. 6)
    config.loss.temperature = 0.4  # tau of eq. 5
    config.loss.contrastive_group_size = config_dict.placeholder(int)  # clips contrasted together; None: the batch

    # float32 | bfloat16: features, convolutions and products in training. Parameters, optimiser, batch-norm statistics,
    # softmax, losses and text features stay float32, and so does evaluation, which is cheap beside training.
    config.compute_dtype = "float32"
    config.num_epochs = 110
    config.batch_size = 200  # over all devices; an incomplete last batch of an epoch is dropped
    config.learning_rate = 0.1
    config.warmup_epochs = 5
    config.drop_epochs = (90, 100)  # the learning rate is multiplied by drop_factor after these
    config.drop_factor = 0.1
    config.momentum = 0.9  # Nesterov
    config.weight_decay = 4e-4  # on every parameter

    # Steps in one program, without a word to the host between them. It ends where something is logged, saved or
    # evaluated; what is left to there goes in single steps. So at best a divisor of log_every_steps.
    config.steps_per_dispatch = 1

    config.eval_batch_size = 64  # over all devices
    config.eval_every_epochs = 1  # the last epoch is always evaluated
    config.checkpoint_every_steps = 0  # 0: after every epoch only
    config.log_every_steps = 50
    return config


def without_images_and_text(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    """Turns FAM and FRM off: a skeleton-only baseline."""
    config.loss.contrastive_weight = 0.0
    config.loss.refinement_weight = 0.0
    return config


def split_arguments(arguments: str, defaults: tuple[str, ...]) -> list[str]:
    """The comma-separated arguments of a config file, filled up with `defaults`. Raises: ValueError for too many."""
    given = arguments.split(",")
    if len(given) > len(defaults):
        raise ValueError(f"{arguments!r}: {len(given)} arguments, expected at most {len(defaults)}")
    return [*given, *defaults[len(given) :]]


def get_ntu_config(protocol: str, stream: str, variant: str) -> ml_collections.ConfigDict:
    """What NTU RGB+D 60 and 120 share: the paper's recipe on two GPUs, each of which sees 100 of the 200 clips."""
    if variant not in ("", "skeleton_only"):
        raise ValueError(f"the variant {variant!r} is not 'skeleton_only'")
    config = get_config()
    config.data.records = "data/ntu"
    config.data.protocol = protocol
    config.data.stream = stream
    config.data.text = "blip/holding/token_ids"
    config.model.batch_norm_group_size = 100
    config.loss.contrastive_group_size = 100
    return without_images_and_text(config) if variant else config
