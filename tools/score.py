"""Score a file of captions, without a model."""

from pcm_plugin.commands.score import main

if __name__ == "__main__":
    main()
