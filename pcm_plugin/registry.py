"""The registries of the scope ``pcm_plugin``, children of MMEngine's roots.

Any MM project finds what is registered here by the prefix, as in
``dict(type='pcm_plugin.PCMMixup')``: MMEngine imports this module when it meets the prefix for the
first time, and then the ``locations`` of the registry that is asked.

Nothing but MMEngine may be imported here: MMEngine swallows an ``ImportError`` of this module and
reports the type as unknown instead.
"""

from mmengine import registry as mmengine_registry
from mmengine.registry import Registry

_SCOPE = "pcm_plugin"


def _child(name: str, root: str, *rooms: str) -> Registry:
    return Registry(
        name,
        parent=getattr(mmengine_registry, root),
        scope=_SCOPE,
        locations=[f"{_SCOPE}.{room}" for room in rooms],
    )


MODELS = _child("model", "MODELS", "models")
DATASETS = _child("dataset", "DATASETS", "datasets")
METRICS = _child("metric", "METRICS", "evaluation")
HOOKS = _child("hook", "HOOKS", "engine", "visualization")
LOOPS = _child("loop", "LOOPS", "engine")
PARAM_SCHEDULERS = _child("parameter scheduler", "PARAM_SCHEDULERS", "engine")
OPTIM_WRAPPERS = _child("optim_wrapper", "OPTIM_WRAPPERS", "engine")
