"""Generate images of captions with a text-to-image pipeline of diffusers."""

from pcm_plugin.commands.generate import main

if __name__ == "__main__":
    main()
