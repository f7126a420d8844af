"""Registries of the scope ``pcm_plugin``, children of MMEngine's root registries.

Other MM projects can use the registered types by their prefix, as in
``dict(type='pcm_plugin.PCMMixup')``: on the first use of the prefix, MMEngine imports this module,
and then the ``locations`` of the requested registry.

MMEngine ignores an ``ImportError`` of this module and reports an unknown type instead. So this
module imports only MMEngine; the ``locations`` check the other packages.
"""

from pcm_plugin.mm_packages import require_mm_packages

try:
    from mmengine import registry as mmengine_registry
    from mmengine.registry import Registry
except ModuleNotFoundError:
    require_mm_packages()
    raise

_SCOPE = "pcm_plugin"


def _child(name: str, root: str, *packages: str) -> Registry:
    return Registry(
        name,
        parent=getattr(mmengine_registry, root),
        scope=_SCOPE,
        locations=[f"{_SCOPE}.{package}" for package in packages],
    )


MODELS = _child("model", "MODELS", "models")
DATASETS = _child("dataset", "DATASETS", "datasets")
METRICS = _child("metric", "METRICS", "evaluation")
HOOKS = _child("hook", "HOOKS", "engine", "visualization")
LOOPS = _child("loop", "LOOPS", "engine")
PARAM_SCHEDULERS = _child("parameter scheduler", "PARAM_SCHEDULERS", "engine")
OPTIM_WRAPPERS = _child("optim_wrapper", "OPTIM_WRAPPERS", "engine")
