"""From a file of captions to a training set: vocabulary, concepts, images, features."""

from pcm_plugin.commands.make_dataset import main

if __name__ == "__main__":
    main()
