"""The terminal client: a person at a terminal, or a program through a pipe, talks with the agent.

    relay-client [--url http://localhost:8000] [--session ID]
    echo "What time is it?" | relay-client

`link.Link` is the connection to the server and knows no terminal. It reports what happens to a `view.View`,
of which there are two: `terminal.Terminal` needs rich and prompt_toolkit (`pip install 'adk-relay[client]'`),
`pipe.Pipe` needs neither. The package imports nothing of the server.
"""
