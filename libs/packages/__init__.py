"""Model packages: content-addressed, signed folders that carry a model and everything needed to trust it.

`manifest` what a package says of itself · `package` writing, and reading with every byte verified · `signature` the
DSSE envelope · `scorer` the model at work · `errors` what can be wrong. Nothing here needs scikit-learn or onnx.
"""
