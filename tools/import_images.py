"""Import images with captions from Parquet files."""

from pcm_plugin.commands.import_images import main

if __name__ == "__main__":
    main()
