"""Make a small language model's folder from a caption file: a tokenizer and sizes, no weights."""

from pcm_plugin.commands.build_language_model import main

if __name__ == "__main__":
    main()
