"""From a clip in the records to a batch on the device: layouts, records, reading, transforms."""
