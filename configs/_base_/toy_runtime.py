# An epoch of the toy world has about 94 iterations.
_base_ = "./default_runtime.py"

default_hooks = dict(logger=dict(interval=20))
