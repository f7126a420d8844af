"""Train the toy world's models: web, tokenizer, CLIP, autoencoder and diffusion model."""

from pcm_plugin.commands.toyworld.train_prior import main

if __name__ == "__main__":
    main()
