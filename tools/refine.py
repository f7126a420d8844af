"""Refine the pairs of captions and synthetic images, or the features of the images."""

from pcm_plugin.commands.refine import main

if __name__ == "__main__":
    main()
