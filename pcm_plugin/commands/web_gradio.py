"""Gradio, which is optional, for the modules of the web page."""

import os

from markupsafe import escape

# Gradio reads the variable when it is imported.
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
try:
    import gradio as gr
except ModuleNotFoundError:
    gr = None  # type: ignore[assignment]


def page_error(message: str) -> Exception:
    """Return the exception that shows a message on the page, as plain text."""
    return gr.Error(str(escape(message)), print_exception=False)
