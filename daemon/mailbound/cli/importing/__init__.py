"""Importing from a file: its lines become records, records become people, and people come to the database.

    source      the file, opened so that it can be read twice
    records     bytes → records, each with its line or its fault
    people      a record → a person
    repeats     which external_ids come more than once
    faults      what could not be used, written beside the file
    loop        all of it, a batch in a transaction

A file is read twice. The first time finds which external_ids come more than once; the second imports, and keeps those
back until the end. So the last row about a person wins, and importing the same file again changes nothing.
"""

from mailbound.cli.importing.loop import Summary, import_file, import_list
from mailbound.cli.importing.source import File, opened

__all__ = ["File", "Summary", "import_file", "import_list", "opened"]
