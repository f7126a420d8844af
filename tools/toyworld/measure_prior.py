"""Measure the toy world's prior against its bars."""

from pcm_plugin.commands.toyworld.measure_prior import main

if __name__ == "__main__":
    main()
