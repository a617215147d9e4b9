"""Multi-modality co-learning for skeleton action recognition. The commands are here; the folders hold their parts."""
