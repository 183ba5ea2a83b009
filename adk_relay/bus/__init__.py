"""What carries conversations between processes, through Redis. Imports core only.

    server     the clients of Redis; is it there?      relay:p:{P}        inbox of process P (stream)
    codec      messages and commands as bytes          relay:p:{P}:alive  lease of process P
    packs      what gathers for a process              relay:c:{C}:owner  "<token> <process>"
    link       from this process to another            relay:c:{C}:log    journal of conversation C (stream)
    inbox      from all others to this one             relay:claims       claims of conversations (stream)
    lease      which processes live                    relay:calls        questions to any worker (stream)
    ownership  which process owns a conversation
    log        what a new owner needs to go on
    tasks      queues that all workers read

What has a `run` is run as a task by its owner, until that cancels it. No `run` ends because Redis is away.
"""
