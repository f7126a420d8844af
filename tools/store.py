"""Look at feature stores, check them, join them, write them in the released code's form."""

from pcm_plugin.commands.store import main

if __name__ == "__main__":
    main()
