"""How models are measured: `records` what comes in, `joins` predictions with labels, `slots` what is kept of a span of
time, `statistics` the tests, `drift` and `decay` the detectors, `model` one model's state. No I/O, no clock."""
