"""Convert a checkpoint of the released PCM-Net."""

from pcm_plugin.commands.convert_pcmnet_checkpoint import main

if __name__ == "__main__":
    main()
