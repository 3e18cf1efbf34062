"""`python -m llmling_cli` is `llmling`."""

from llmling_cli.app import main

if __name__ == "__main__":
    main()
