"""Records, the format of prepared data: schema, protocols, reading and writing."""

from mmcl_jax.data.records.protocols import PROTOCOLS
from mmcl_jax.data.records.reading import Records
from mmcl_jax.data.records.schema import (
    CHANNELS,
    CONFIDENCE,
    IMAGES,
    INDEX_FIELDS,
    RECORDS_VERSION,
    SKELETONS,
    SPLIT,
    TEXT,
    DatasetInfo,
    Protocol,
    RecordsError,
    name_fault,
)
from mmcl_jax.data.records.views import RecordsView
from mmcl_jax.data.records.writing import (
    Clip,
    DatasetWriter,
    SetAside,
    check_destination,
    print_set_aside,
    write_records,
)

__all__ = [
    "CHANNELS",
    "CONFIDENCE",
    "IMAGES",
    "INDEX_FIELDS",
    "PROTOCOLS",
    "RECORDS_VERSION",
    "SKELETONS",
    "SPLIT",
    "TEXT",
    "Clip",
    "DatasetInfo",
    "DatasetWriter",
    "Protocol",
    "Records",
    "RecordsError",
    "RecordsView",
    "SetAside",
    "check_destination",
    "name_fault",
    "print_set_aside",
    "write_records",
]
