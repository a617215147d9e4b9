"""A trained model as one file that runs without this package: raw clips in, probabilities out.

`program` is the model as a function of JAX, `stablehlo` writes it, `exported` reads it. `onnx_model` writes the same
model as an ONNX graph, which `graph` builds of nodes: `clip_nodes` those of the test transform, `layer_nodes`,
`graph_conv_nodes` and `backbone_nodes` those of the backbones. `manifest` describes either file.
"""
