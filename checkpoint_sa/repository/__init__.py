"""The operations on the database: functions over a `Connection` that the caller opened and ends.

They see ids, JSON and serialized bytes, never a state value, and commit nothing. A synchronous
saver calls them directly, an asynchronous saver in a greenlet of SQLAlchemy's.

    reading       checkpoints with their values and writes
    writing       the statements of a put and of its writes; pure
    history       the history of DeltaChannels
    deleting      a plan of the rows to delete, and one function that carries it out
    dependencies  the checkpoints that a kept checkpoint needs
    rewriting     whole values into deltas and back
    copying       copies of threads inside the database
    threads       pages of threads
    statistics    counts and sizes of stored rows, without their values
"""
