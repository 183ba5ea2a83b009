"""Six programs, each one file that runs by itself, from a callable to a conversation that survives.

1. l1_asgi: a callable serves files and an echo
2. l2_lifecycle: nothing is left behind when a client leaves or the server stops
3. l3_adk_live: a live agent, as every sample serves one
4. l4_bounded_queue: a client that does not read costs little, and nobody else anything
5. l5_heartbeat: dead and idle sockets are found out
6. l6_resume: a dropped socket loses nothing
"""
