"""What the MCP server is made of; `server.build_server` puts it together.

tools, guide      what agents call and read        wire     what an answer holds, in both channels
state             the Linker while it loads        strict   what the SDK lacks: arguments checked, errors told
http, guard       serving over HTTP, its limits    observe, logs, metrics     what a request leaves behind
"""
