"""mmpretrain's data sample, with an answer for the environment in which it cannot be imported."""

try:
    from mmpretrain.structures import DataSample
except ModuleNotFoundError as error:
    if error.name != "mmcv":
        raise
    raise ImportError(
        "pcm_plugin needs mmcv or mmcv-lite, and finds neither. `pip install mmcv-lite` is enough "
        "for it; `mim install mmcv` if another project of yours needs mmcv's operators. Never both:"
        " they overwrite each other."
    ) from None

__all__ = ["DataSample"]
