"""`python -m bioelx_mcp`: the command line."""

from bioelx_mcp.cli import main

main()
