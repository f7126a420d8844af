"""Convert captions to COCO JSON, a COCO results file or JSONL."""

from pcm_plugin.commands.convert_captions import main

if __name__ == "__main__":
    main()
