"""Refine pairs of captions and synthetic images, or image features."""

from pcm_plugin.commands.refine import main

if __name__ == "__main__":
    main()
