"""mmpretrain's data sample, with a clear error if it cannot be imported."""

try:
    from mmpretrain.structures import DataSample
except ModuleNotFoundError as error:
    if error.name != "mmcv":
        raise
    raise ImportError(
        "pcm_plugin requires mmcv or mmcv-lite, and neither is installed. `pip install mmcv-lite` "
        "is sufficient; run `mim install mmcv` instead if another project needs mmcv's operators. "
        "Do not install both, since they overwrite each other."
    ) from None

__all__ = ["DataSample"]
