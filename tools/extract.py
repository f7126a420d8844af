"""Extract CLIP features of images and captions to a feature store."""

from pcm_plugin.commands.extract import main

if __name__ == "__main__":
    main()
