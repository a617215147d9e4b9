"""Makes a clip's mosaic: finds people in its video, crops them, puts five crops side by side."""
