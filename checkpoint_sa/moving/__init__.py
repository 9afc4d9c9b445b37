"""Threads from one database to another, as they are stored.

copying    threads of a database of ours
importing  threads of LangGraph's own savers
sources    the databases of these savers, and their rows
stored     our rows as they are stored, a page at a time, and their digests
msgpack    MessagePack of LangGraph's serializer, checked and taken apart
"""
