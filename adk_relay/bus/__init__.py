"""What carries conversations between processes, through Redis. Imports core only.

    conversations  all of them, for this process       relay:p:{P}          inbox of process P (stream)
    attending      those of other processes            relay:p:{P}:alive    lease of process P
    attended       one of those                        relay:p:{P}:stopped  it was stopped by plan
    attendee       a listener in this process          relay:c:{C}:owner    "<token> <process>"
    microphone     its sound, on the way to an owner   relay:c:{C}:log      journal of conversation C (stream)
    pictures       its pictures, for a new owner       relay:claims:V       claims of conversations (stream)
    owning         those of this process               relay:calls:V        questions to any worker (stream)
    owned          one of those                        relay:census         what each process tells (hash)
    answering      calls of other processes            relay:limits:W       what user or address W has (hash)
    hub            this process among the others       relay:once:T         token T was used
    names          what they are called
    server         the clients of Redis; is it there?  V: the checksum of messages in the names of processes
    lines          connections to it that are held
    codec          messages and commands as bytes
    commands       what processes tell each other
    packs          what gathers for a process
    link           from this process to another
    given_up       sound that did not get there
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
