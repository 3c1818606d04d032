"""Pure parts of serving: champions and their swap, what a request may hold, tensors of the Open Inference Protocol."""
