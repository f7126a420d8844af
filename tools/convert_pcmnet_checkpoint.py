"""Convert a checkpoint of the released PCM-Net for the configs of this package."""

from pcm_plugin.commands.convert_pcmnet_checkpoint import main

if __name__ == "__main__":
    main()
