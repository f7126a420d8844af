"""Write one image and its facts into a shard of images."""

import io
import json
import tarfile
from typing import Any


def append_image(
    tar: tarfile.TarFile, key: str, suffix: str, image: bytes, facts: dict[str, Any]
) -> None:
    """Append ``KEY.SUFFIX`` and ``KEY.json`` to an archive.

    Equal arguments append equal bytes: entries have no owner, and time 0.

    Args:
        tar: The archive, in USTAR format.
        key: Base name of both entries, without a dot.
        suffix: File name suffix of the image, without its dot.
        image: The encoded image.
        facts: JSON values that describe it.
    """
    text = json.dumps(facts, ensure_ascii=False, sort_keys=True).encode()
    for name, data in ((f"{key}.{suffix}", image), (f"{key}.json", text)):
        entry = tarfile.TarInfo(name)
        entry.size = len(data)
        tar.addfile(entry, io.BytesIO(data))
