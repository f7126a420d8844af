"""Rephrase captions with a language model, as prompts for images."""

from pcm_plugin.commands.rephrase import main

if __name__ == "__main__":
    main()
