"""Conversations of users, in the database of Django."""
