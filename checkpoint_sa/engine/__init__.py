"""How anything runs on an `Engine` or a `Connection`.

binds         errors for objects that aren't an engine, with the line to write instead
engines       URLs, and the engines that we make or users pass
transactions  when an operation needs a transaction, and how that begins and ends
statements    statements with their parameters, and how they are executed
cursors       statements on the driver's cursor, without SQLAlchemy's cost for each
queues        the order in which operations wait for a connection
faults        the errors after which an operation is retried
retry         an operation from its first attempt to its last: counted, logged, traced
limits        the sizes that servers and drivers take
waiting       waiting and working beside an event loop
locks         the right to migrate
clusters      the right to migrate a cluster where all nodes take writes
"""
