"""Records as a model sees them that was trained on others: its classes, and room for as many bodies as it expects."""

from collections.abc import Collection, Sequence

import numpy as np

from mmcl_jax.data.records.reading import Records
from mmcl_jax.data.records.schema import RecordsError


class RecordsView:
    """Records with the class numbers of a model, and the interface that an evaluation needs.

    Attributes: as those of `Records`.
    """

    def __init__(self, records: Records, protocol: str, class_names: Sequence[str] | None, bodies: int):
        """Numbers the classes anew.

        Args:
          records: the clips.
          protocol: their division, which may use only some of their classes.
          class_names: of the model, by label; None: those of the records.
          bodies: the model's M. Clips are padded to it.

        Raises: RecordsError if the model does not know a class of the clips.
        """
        self._records = records
        own = records.class_names(protocol)
        self._class_names = own if class_names is None else tuple(class_names)
        unknown = [name for name in own if name not in self._class_names]
        if unknown:
            raise RecordsError(
                f"{records.root}: the model does not know the class {unknown[0]!r} ({len(unknown)} of {len(own)} "
                f"are unknown); its classes: {', '.join(self._class_names)}"
            )
        self.root, self.info = records.root, records.info
        self.max_frames, self.max_bodies = records.max_frames, max(records.max_bodies, bodies)
        self.num_joints, self.num_channels = records.num_joints, records.num_channels
        numbers = {label: self._class_names.index(name) for label, name in enumerate(own)}
        # Clips of classes that the protocol leaves out keep a label that is no class.
        labels = [numbers.get(label, len(self._class_names)) for label in records.index["label"].tolist()]
        self.index = {**records.index, "label": np.array(labels, np.int64)}

    def class_names(self, protocol: str) -> tuple[str, ...]:
        """The model's classes, by label."""
        del protocol
        return self._class_names

    def select(self, protocol: str, part: str, validation_subjects: Collection[int] = ()) -> np.ndarray:
        """Rows of one part of a protocol. Raises: RecordsError, as `Records.select`."""
        return self._records.select(protocol, part, validation_subjects)

    def skeleton(self, row: int) -> np.ndarray:
        """The skeleton of clip `row`: float32 `[M, T, V, C]`."""
        return self._records.skeleton(row)

    def fingerprint(self) -> str:
        """That of the records."""
        return self._records.fingerprint()
