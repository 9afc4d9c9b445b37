"""The statements: constants, or built once out of a small closed set.

A statement that is built once costs 2.3 us to find in SQLAlchemy's cache; a statement that is built
for each call costs 165 us. Only the criteria of `list`, which a caller chooses, make a statement
vary.

A module here has the statements of the module of `repository` with the same name; `tables` has the
parts that all share, `stored` the statements of `moving`.
"""
