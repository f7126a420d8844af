"""Write one split of a caption file as COCO captions JSON, or any captions as JSONL."""

from pcm_plugin.commands.convert_captions import main

if __name__ == "__main__":
    main()
