"""Import released features (.npz) and annotations (a pickle)."""

from pcm_plugin.commands.import_features import main

if __name__ == "__main__":
    main()
