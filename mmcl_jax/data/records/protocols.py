"""The published train/test divisions of the known datasets."""

from mmcl_jax.data.records.schema import Protocol

_NTU60_SUBJECTS = (1, 2, 4, 5, 8, 9, 13, 14, 15, 16, 17, 18, 19, 25, 27, 28, 31, 34, 35, 38)
_NTU120_SUBJECTS = (
    *_NTU60_SUBJECTS,
    *(45, 46, 47, 49, 50, 52, 53, 54, 55, 56, 57, 58, 59, 70, 74, 78, 80, 81, 82, 83, 84, 85, 86, 89, 91, 92, 93, 94),
    *(95, 97, 98, 100, 103),
)

PROTOCOLS: dict[str, dict[str, Protocol]] = {
    "ntu": {  # the first 60 classes are NTU RGB+D 60: setups 1 to 17, in which the others do not occur
        "ntu60_xsub": Protocol("subject", _NTU60_SUBJECTS, num_classes=60),
        "ntu60_xview": Protocol("camera", (2, 3), num_classes=60),
        "ntu120_xsub": Protocol("subject", _NTU120_SUBJECTS),
        "ntu120_xset": Protocol("setup", tuple(range(2, 33, 2))),
    },
    "synthetic": {"xsub": Protocol("subject", (1, 2, 3, 5, 6, 8, 9))},
    "nw_ucla": {"xview": Protocol("camera", (1, 2))},
    "utd_mhad": {"xsub": Protocol("subject", (1, 3, 5, 7))},
}
