"""Endpoint ``/caption`` of the HTTP API of ``pcm webui``."""

from collections.abc import Callable
from typing import Any

from pcm_plugin.commands.web_captioner import WebCaptioner, upload_name
from pcm_plugin.commands.web_gradio import gr
from pcm_plugin.commands.web_limits import MAX_BEAM_SIZE
from pcm_plugin.errors import UserError

_NUMBERS = ("beam_size", "num_captions", "min_len", "max_len", "length_penalty")
_TEXTS = ("start", "include", "exclude", "prefix", "suffix")


def make_endpoint(captioner: WebCaptioner) -> Callable[..., dict[str, Any]]:
    """Return the function of the endpoint, whose defaults are the settings of the model.

    It takes file data of gradio and settings of the search, and returns the dict of
    :meth:`.CaptionInferencer.to_dict`. An invalid image or setting is an error for the client.
    """
    default = captioner.inferencer.model.decoding

    # Gradio reads the signature for the documentation of the endpoint.
    def caption(
        image: dict,
        beam_size: int = default.beam_size,
        num_captions: int = default.num_captions,
        min_len: int = default.min_len,
        max_len: int = default.max_len,
        length_penalty: float = default.length_penalty,
        start: str = default.start,
        include: list[str] = [*default.include],  # noqa: B006
        exclude: list[str] = [*default.exclude],  # noqa: B006
        prefix: str = default.prefix,
        suffix: str = default.suffix,
    ) -> dict:
        """Caption an image."""
        settings = {
            "beam_size": beam_size,
            "num_captions": num_captions,
            "min_len": min_len,
            "max_len": max_len,
            "length_penalty": length_penalty,
            "start": start,
            "include": include,
            "exclude": exclude,
            "prefix": prefix,
            "suffix": suffix,
        }
        name = upload_name(image)
        try:
            _check(settings, default.max_len)
            [(_, sample)] = captioner.caption([captioner.read_image(image)], settings)
        except (OSError, UserError) as error:
            # Not HTML: the client gets the message as JSON.
            message = f"{name} cannot be captioned: {error}"
            raise gr.Error(message, print_exception=False) from error
        return captioner.inferencer.to_dict(sample) | {"image": name}

    return caption


def report_arguments(request: Any, error: Exception) -> Any:
    """Return the answer to a request that misspells or lacks an argument.

    Gradio only raises an exception, which would be an internal error of the server.

    Args:
        request: Request of starlette.
        error: The exception.
    """
    from starlette.responses import JSONResponse

    if "/call/v2/" not in request.url.path:
        raise error
    reason = str(error).split(". ")[0]  # what follows names a part of the page that is hidden
    names = ", ".join(f"`{name}`" for name in ("image", *_NUMBERS, *_TEXTS))
    message = f"{reason}. The arguments of /caption are {names}."
    return JSONResponse({"error": message}, status_code=422)


def _check(settings: dict[str, Any], max_len: int) -> None:
    """Check types, and the limits of the page, which bound the time of a request."""
    for name in _NUMBERS:
        kinds = (int, float) if name == "length_penalty" else (int,)
        value = settings[name]
        if not isinstance(value, kinds) or isinstance(value, bool):
            raise UserError(f"`{name}` must be a number, got `{value!r}`")
    for name, most in (("beam_size", MAX_BEAM_SIZE), ("max_len", max_len)):
        if settings[name] > most:
            raise UserError(f"`{name}` must be at most {most}, got `{settings[name]}`")
