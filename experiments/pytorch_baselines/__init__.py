"""CTR-GCN, CTRS-GCN, HD-GCN, Info-GCN and the training step of MMCL in PyTorch, with the released names of parameters.

They replace the published code for users who have no copy of it: `experiments.parity --torch` compares with them, and
`experiments.benchmark` measures them. They are written from the papers; tests compare them with the published outputs.
HD-GCN and Info-GCN are for inference: their initial weights are PyTorch's defaults, and Info-GCN draws no noise.
"""
