"""What carries conversations between processes, through Redis. Imports core only.

    conversations  all of them, for this process       relay:p:{P}        inbox of process P (stream)
    attending      those of other processes            relay:p:{P}:alive  lease of process P
    attended       one of those                        relay:c:{C}:owner  "<token> <process>"
    owning         those of this process               relay:c:{C}:log    journal of conversation C (stream)
    owned          one of those                        relay:claims       claims of conversations (stream)
    hub            this process among the others       relay:calls        questions to any worker (stream)
    server         the clients of Redis; is it there?  relay:about        what the agent is
    codec          messages and commands as bytes      relay:census       what each process tells (hash)
    commands       what processes tell each other      relay:limits:W     what user or address W has (hash)
    packs          what gathers for a process          relay:once:T       token T was used
    link           from this process to another
    inbox          from all others to this one
    lease          which processes live
    patience       how long others are waited for
    ownership      which process owns a conversation
    fence          may a session still be written?
    log, writer    what a new owner needs to go on
    tasks          queues that all workers read
    census         what each process tells of itself
    limits         of a user and an address, in all processes
    together       both of these, for this process

What has a `run` is run as a task by its owner, until that cancels it. No `run` ends because Redis is away.
"""
