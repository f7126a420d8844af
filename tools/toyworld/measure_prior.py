"""Measure the toy world's CLIP and diffusion models."""

from pcm_plugin.commands.toyworld.measure_prior import main

if __name__ == "__main__":
    main()
