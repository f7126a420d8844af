"""Train the toy world's prior: web, tokenizer, CLIP, autoencoder, diffusion; restartable."""

from pcm_plugin.commands.toyworld.train_prior import main

if __name__ == "__main__":
    main()
