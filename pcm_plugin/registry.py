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


def _child(name: str, root: str, *modules: str) -> Registry:
    return Registry(
        name,
        parent=getattr(mmengine_registry, root),
        scope=_SCOPE,
        locations=[f"{_SCOPE}.{module}" for module in modules],
    )


MODELS = _child("model", "MODELS", "models")
DATASETS = _child("dataset", "DATASETS", "datasets")
METRICS = _child("metric", "METRICS", "evaluation.caption_metric")
HOOKS = _child(
    "hook",
    "HOOKS",
    "engine.checkpoint_hook",
    "engine.seed_hook",
    "engine.vocabulary_hook",
    "visualization.mixup_hook",
)
LOOPS = _child("loop", "LOOPS", "engine.resumable_loop")
PARAM_SCHEDULERS = _child("parameter scheduler", "PARAM_SCHEDULERS", "engine.noam")
OPTIM_WRAPPERS = _child("optim_wrapper", "OPTIM_WRAPPERS", "engine.bf16_optim_wrapper")
INFERENCERS = _child("inferencer", "INFERENCERS", "apis.inferencer")
