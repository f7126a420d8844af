"""Generate images of captions with a diffusion pipeline."""

from pcm_plugin.commands.generate import main

if __name__ == "__main__":
    main()
