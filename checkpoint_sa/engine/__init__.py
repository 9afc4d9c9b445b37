"""How anything runs on an `Engine` or a `Connection`.

engines       URLs, and the engines that we make or are given
transactions  when an operation needs one, and how it begins and ends
queues        the order in which operations wait for a connection
faults        the errors after which an operation is tried again
retry         an operation from its first attempt to its last: counted, logged, traced
limits        the sizes that servers and drivers take
waiting       waiting and working beside an event loop
locks         the right to migrate
clusters      the same on clusters whose nodes all take writes
"""
