"""Import released features (one .npz per image) and annotations (a pickle) to a feature store."""

from pcm_plugin.commands.import_features import main

if __name__ == "__main__":
    main()
