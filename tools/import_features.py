"""Gather released features (an .npz an image) and annotations (a pickle) into a feature store."""

from pcm_plugin.commands.import_features import main

if __name__ == "__main__":
    main()
