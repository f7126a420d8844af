"""Make synthetic images of each caption with a diffusers text-to-image pipeline."""

from pcm_plugin.commands.generate import main

if __name__ == "__main__":
    main()
