"""Turn a checkpoint of the released PCM-Net into one that our configs load."""

from pcm_plugin.commands.convert_pcmnet_checkpoint import main

if __name__ == "__main__":
    main()
