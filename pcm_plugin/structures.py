"""Data sample of mmpretrain, with an explanation if mmcv is missing."""

try:
    from mmpretrain.structures import DataSample
except ModuleNotFoundError as error:
    if error.name != "mmcv":
        raise
    raise ImportError(
        "pcm_plugin needs mmcv or mmcv-lite, but neither is installed: run `pip install mmcv-lite`, "
        "or `mim install mmcv` if another project needs mmcv's operators. Do not install both, "
        "since they overwrite each other's files"
    ) from None

__all__ = ["DataSample"]
