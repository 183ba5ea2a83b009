"""What carries conversations between processes, through Redis. Imports core only.

    conversations  all of them, for this process       relay:p:{P}          inbox of process P (stream)
    attending      those of other processes            relay:p:{P}:alive    lease of process P
    attended       one of those                        relay:p:{P}:stopped  it was stopped by plan
    microphone     its sound, on the way to an owner   relay:c:{C}:owner    "<token> <process>"
    own_ids        for texts whose clients gave none   relay:c:{C}:log      journal of conversation C (stream)
    owning         those of this process               relay:claims:V       claims of conversations (stream)
    owned          one of those                        relay:calls:V        questions to any worker (stream)
    answering      calls of other processes            relay:census         what each process tells (hash)
    hub            this process among the others       relay:limits:W       what user or address W has (hash)
    names          what they are called                relay:once:T         token T was used
    server         the clients of Redis; is it there?
    lines          connections to it that are held     V: the checksum of messages in the names of processes
    codec          messages and commands as bytes
    commands       what processes tell each other
    packs          what gathers for a process
    link           from this process to another
    inbox          from all others to this one
    lease          which processes live
    patience       how long others are waited for
    ownership      which process owns a conversation
    fence          may a session still be written?
    log, writer    what a new owner needs to go on
    tasks          queues that all workers read
    census         what each process tells of itself
    limits         of a user or address, everywhere
    together       both of these, for this process

What has a `run` is run as a task by its owner, until that cancels it. No `run` ends because Redis is away.
"""
