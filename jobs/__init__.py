"""The programs one submits: `python -m jobs.<name>` and the `rayxai` command."""
