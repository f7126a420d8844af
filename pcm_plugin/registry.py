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


def _child(root: str, *modules: str) -> Registry:
    parent = getattr(mmengine_registry, root)
    return Registry(
        parent.name,
        parent=parent,
        scope=_SCOPE,
        locations=[f"{_SCOPE}.{module}" for module in modules],
    )


MODELS = _child("MODELS", "models")
DATASETS = _child("DATASETS", "datasets")
METRICS = _child("METRICS", "evaluation.caption_metric")
HOOKS = _child(
    "HOOKS",
    "engine.average_hook",
    "engine.checkpoint_hook",
    "engine.early_stopping_hook",
    "engine.seed_hook",
    "engine.vocabulary_hook",
    "visualization.mixup_hook",
)
LOOPS = _child("LOOPS", "engine.resumable_loop")
PARAM_SCHEDULERS = _child("PARAM_SCHEDULERS", "engine.noam")
OPTIM_WRAPPERS = _child("OPTIM_WRAPPERS", "engine.bf16_optim_wrapper")
INFERENCERS = _child("INFERENCERS", "apis.inferencer")

# This package registers nothing in the others. They exist since MMEngine warns of a build in the
# scope `pcm_plugin` if the scope has no child of the registry.
DATA_SAMPLERS = _child("DATA_SAMPLERS")
EVALUATOR = _child("EVALUATOR")
FUNCTIONS = _child("FUNCTIONS")
LOG_PROCESSORS = _child("LOG_PROCESSORS")
MODEL_WRAPPERS = _child("MODEL_WRAPPERS")
OPTIM_WRAPPER_CONSTRUCTORS = _child("OPTIM_WRAPPER_CONSTRUCTORS")
OPTIMIZERS = _child("OPTIMIZERS")
RUNNER_CONSTRUCTORS = _child("RUNNER_CONSTRUCTORS")
RUNNERS = _child("RUNNERS")
STRATEGIES = _child("STRATEGIES")
TASK_UTILS = _child("TASK_UTILS")
TRANSFORMS = _child("TRANSFORMS")
VISBACKENDS = _child("VISBACKENDS")
VISUALIZERS = _child("VISUALIZERS")
WEIGHT_INITIALIZERS = _child("WEIGHT_INITIALIZERS")
