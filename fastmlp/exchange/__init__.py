"""Networks in other programs' forms: ONNX, C, the arrays of PyTorch and scikit-learn."""
