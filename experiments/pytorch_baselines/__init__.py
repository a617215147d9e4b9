"""CTR-GCN, CTRS-GCN and MMCL's training step in PyTorch, with the released names of parameters.

The yardstick: whoever has no copy of the published code runs these instead, for equality (`experiments.parity --torch`)
and for speed. Written from the papers; the tests hold them against the published models' outputs.
"""
