"""Captioner of the web page: uploads, settings of the search, and results as HTML."""

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from pcm_plugin.apis import CaptionInferencer
from pcm_plugin.commands.web_limits import MAX_BEAM_SIZE, UploadLimits, check_texts
from pcm_plugin.engine.vocabulary_hook import HasVocabulary
from pcm_plugin.errors import UserError
from pcm_plugin.formats.images.image_io import read_header, read_image
from pcm_plugin.structures import DataSample
from pcm_plugin.visualization.page import render


class WebCaptioner:
    """Captioner that several requests use in turn.

    Args:
        inferencer: The captioner.
        uploads: Folder of the uploaded files.
        limits: Limits of the uploads.
    """

    def __init__(self, inferencer: CaptionInferencer, uploads: Path, limits: UploadLimits) -> None:
        self.inferencer = inferencer
        self.limits = limits
        self._uploads = uploads.resolve()
        self._lock = threading.Lock()

    def read(self, upload: Any) -> bytes:
        """Return the content of an uploaded file.

        Args:
            upload: File data of gradio.

        Raises:
            OSError: If the file cannot be read.
            UserError: If it is not in the folder of the uploads.
        """
        # A hand-written request may name any file. Gradio 6.17 only checks the folder with
        # preprocess=True.
        name = upload.get("path") if isinstance(upload, dict) else None
        path = Path(str(name)).resolve()
        if not path.is_relative_to(self._uploads) or not path.is_file():
            raise UserError("it was not uploaded to this server, or has been deleted since")
        return path.read_bytes()

    def read_image(self, upload: Any) -> Image.Image:
        """Return an uploaded image.

        Raises:
            OSError: If the file cannot be read.
            UserError: See :meth:`read`; or if it is not an image, or too large.
        """
        # From bytes, so that error messages do not contain paths of the server.
        data = self.read(upload)
        self.limits.check_pixels(read_header(data).num_pixels)
        return read_image(data)

    def caption(
        self, images: Sequence[Image.Image], settings: dict[str, Any]
    ) -> list[tuple[Image.Image, DataSample]]:
        """Caption images, as one batch.

        Args:
            images: RGB images.
            settings: Settings of the search, as of :meth:`settings`.

        Raises:
            UserError: If a setting is out of range, or a text too long.
        """
        check_texts(settings)
        with self._lock:  # per batch, so that a folder does not block other users
            pairs = [*self.inferencer.stream(list(images), len(images), **settings)]
        return [(image, sample) for image, sample in pairs if image is not None]

    @property
    def takes_regions(self) -> bool:
        """Whether the captioner can caption regions of images."""
        return not self.inferencer.model.neck.takes_patches

    def caption_point(
        self, image: Image.Image, point: Sequence[float], settings: dict[str, Any]
    ) -> str:
        """Caption a point of an image.

        Args:
            image: RGB image.
            point: x and y in pixels.
            settings: Settings of the search, as of :meth:`settings`.

        Raises:
            UserError: If the point is not in the part of the image that CLIP sees, or a setting is
                out of range.
        """
        check_texts(settings)
        with self._lock:
            [result] = self.inferencer.regions(image, points=[point], **settings)
        return result["caption"]

    def settings(
        self,
        beam_size: int,
        num_captions: int,
        min_len: int,
        max_len: int,
        length_penalty: float,
        start: str,
        include: str,
        exclude: str,
        prefix: str,
        suffix: str,
    ) -> dict[str, Any]:
        """Return the settings of the search from the values of the page's controls."""
        beam_size = min(int(beam_size), MAX_BEAM_SIZE)
        return {
            "beam_size": beam_size,
            "num_captions": min(int(num_captions), beam_size),
            "min_len": int(min_len),
            "max_len": min(int(max_len), self.inferencer.model.decoding.max_len),
            "length_penalty": float(length_penalty),
            "start": start.strip(),
            "include": split_phrases(include),
            "exclude": split_phrases(exclude),
            "prefix": prefix,
            "suffix": suffix,
        }

    @property
    def unit(self) -> str:
        """What the length of captions is counted in: words, pieces or tokens."""
        model: object = self.inferencer.model
        return model.vocabulary.unit if isinstance(model, HasVocabulary) else "tokens"

    def unknown_words(self, caption: str) -> list[str]:
        """Return the words of a caption that the captioner's vocabulary does not contain."""
        model: object = self.inferencer.model
        if not isinstance(model, HasVocabulary):
            return []
        words = model.vocabulary.split(caption)
        return [*dict.fromkeys(word for word in words if word not in model.vocabulary)]


def upload_name(upload: Any) -> str:
    """Return the name that an uploaded file had on the user's machine."""
    name = (upload.get("orig_name") or upload.get("path")) if isinstance(upload, dict) else None
    return Path(str(name)).name if name else "image"


def split_phrases(text: str) -> list[str]:
    """Return the phrases of a list that is separated by commas."""
    return [phrase.strip() for phrase in text.split(",") if phrase.strip()]


def beam_table(result: dict[str, Any]) -> str:
    """Return the captions of an image as an HTML table, best first."""
    captions = result.get("captions", [result])
    columns = {
        "caption": "caption",
        "log_prob": "log-probability",
        "score": "score",
        "mean_log_prob": "mean log-probability",
        "similarity": "similarity",
        "second_similarity": "similarity of the second CLIP",
    }
    columns = {key: head for key, head in columns.items() if key in captions[0]}
    rows = [[caption[key] for key in columns] for caption in captions]
    return render("webui_beam.html", head=list(columns.values()), rows=rows)
