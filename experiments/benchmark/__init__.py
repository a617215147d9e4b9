"""Speed, side by side: this library against PyTorch and ONNX Runtime, in inference, training, reading and scale.

`harness` runs the contenders in turn, `machine` says what they ran on and what it can do at most.
"""
