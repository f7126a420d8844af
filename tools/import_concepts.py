"""Convert the concept pickle of the released PCM-Net."""

from pcm_plugin.commands.import_concepts import main

if __name__ == "__main__":
    main()
