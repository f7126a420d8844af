"""Convert pixel values of more than 8 bits to 8 bits."""

import numpy as np

from pcm_plugin.errors import UserError

_DEPTHS = (8, 10, 12, 16)
_SIGNED_DEPTHS = (8, 10, 12, 15)


def to_8_bits(values: np.ndarray, depth: int | None = None, signed: bool = False) -> np.ndarray:
    """Scale values of any type to 0..255.

    - Integers up to 65,535: the highest 8 bits of 8, 10, 12 or 16 (15 in files of signed values),
      whichever is the smallest depth that holds the largest value. Cameras and microscopes store
      10 or 12 bits in 16-bit files without saying so.
    - Floats with a maximum of at most 2: 0..1 becomes 0..255. The margin above 1 is for values
      that resampling has moved beyond 1. Floats with a maximum of at most 255 are taken as they
      are, larger ones like integers.
    - Beyond 65,535 the maximum becomes 255.

    Negative values and NaN become 0, infinity becomes 255.

    Args:
        values: Array of any shape, integers or floats.
        depth: Bits of the full scale of integers. Defaults to None: found from the maximum.
        signed: Whether the file stores signed 16-bit integers. Defaults to False.

    Returns:
        uint8 array of the same shape.

    Raises:
        UserError: If floats contain no finite value.
    """
    if values.dtype.kind == "f":
        return _float_to_8_bits(values)
    peak = int(values.max())
    if depth is None:
        depth = _depth_of(peak, _SIGNED_DEPTHS if signed else _DEPTHS)
    if depth is None:
        return np.floor(values.clip(0) * (255 / peak)).astype(np.uint8)
    return (values.astype(np.int64).clip(0) >> (depth - 8)).clip(0, 255).astype(np.uint8)


def _float_to_8_bits(values: np.ndarray) -> np.ndarray:
    finite = values[np.isfinite(values)]
    if not finite.size:
        raise UserError("it contains no finite value")
    peak = float(finite.max())
    if peak <= 2:
        scale = 255.0
    elif peak <= 255:
        scale = 1.0
    else:
        depth = _depth_of(int(peak), _DEPTHS)
        scale = 255 / peak if depth is None else 2.0 ** (8 - depth)
    values = np.nan_to_num(values.astype(np.float64), nan=0.0, posinf=np.inf, neginf=0.0)
    return np.rint((values * scale).clip(0, 255)).astype(np.uint8)


def _depth_of(peak: int, depths: tuple[int, ...]) -> int | None:
    return next((depth for depth in depths if peak < 1 << depth), None)


def channels_to_8_bits(
    high: np.ndarray, low: np.ndarray, transparent: tuple[int, ...] | None = None
) -> np.ndarray:
    """Scale 16-bit channels to 8 bits: the colors by one rule, alpha by its own maximum.

    Args:
        high: (H, W, C) uint8, the high bytes of gray with alpha, RGB or RGBA.
        low: The low bytes.
        transparent: A 16-bit RGB color that is transparent. Defaults to None.

    Returns:
        (H, W, C) uint8; with ``transparent`` (H, W, 4).
    """
    values = high.astype(np.uint16) << 8 | low
    colors = values[..., : 3 if values.shape[-1] >= 3 else 1]
    parts = [to_8_bits(colors)]
    if transparent is not None:
        opaque = (colors != np.array(transparent, np.uint16)).any(-1, keepdims=True)
        parts.append(opaque.astype(np.uint8) * 255)
    elif values.shape[-1] in (2, 4):
        parts.append(to_8_bits(values[..., -1:]))
    return np.concatenate(parts, axis=-1)
