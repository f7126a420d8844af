"""Build the folder of a small language model, without weights."""

from pcm_plugin.commands.build_language_model import main

if __name__ == "__main__":
    main()
