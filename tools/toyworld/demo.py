"""The whole road in the toy world: sentences, images, features, PCM-Net, captions, scores."""

from pcm_plugin.commands.toyworld.demo import main

if __name__ == "__main__":
    main()
