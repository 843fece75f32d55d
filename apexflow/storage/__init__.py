"""The store: its format, writing, checking, reading, exporting."""
