"""Score predicted captions against references."""

from pcm_plugin.commands.score import main

if __name__ == "__main__":
    main()
