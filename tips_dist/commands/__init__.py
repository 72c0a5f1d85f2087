"""What each command does after parsing: one function per command, put together from the floors below."""
