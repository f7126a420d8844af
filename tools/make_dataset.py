"""Make a training set from captions: images, features and a config."""

from pcm_plugin.commands.make_dataset import main

if __name__ == "__main__":
    main()
