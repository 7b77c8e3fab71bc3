"""Alembic migrations, run by `schema.upgrade`."""
