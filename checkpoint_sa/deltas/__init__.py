"""Values stored as deltas: a new version of a channel costs about its added bytes. No database.

A chain is a base and the deltas that follow it, each a row of `checkpoint_deltas`:

    position 0   the base: a value's bytes, as the serializer made them
    position p   the delta that makes the value at p out of the value at p - 1: splices, each of
                 three numbers (bytes to keep, to drop and to insert) and the bytes to insert

A version's row in `checkpoint_blobs` names the place of its value: `chain` and `position`. Its
`type` is the serializer's tag with VALUE_SUFFIX, which no other reader accepts. Its
`blob` is the value's fingerprint: its size, and a SHA-256 of its bytes. The digest takes
MessagePack's header of a list or dict last, followed by the header's length, so a list that has
grown is hashed from its former end on. Numbers are big-endian: four bytes in a splice, eight in a
fingerprint.

A task's write mostly resembles the value of its channel in the checkpoint from which the task ran.
Such a row of `checkpoint_writes` has WRITE_SUFFIX at the end of its `type`; its `blob` is the
fingerprint of the write and the splices that make it out of that value. A reader of the checkpoint
has read that value too.

A new chain begins when a read of the old chain would take more than twice the value's bytes or more
than MAX_ROWS rows, and when little of a value stays the same. So storage grows with the added
bytes, and the cost of a read stays in proportion to the value.
"""
