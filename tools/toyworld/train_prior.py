"""Train the toy world's CLIP and diffusion models."""

from pcm_plugin.commands.toyworld.train_prior import main

if __name__ == "__main__":
    main()
