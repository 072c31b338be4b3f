"""Many pictures on many cards and hosts, and a server that others can call. Needs the extra `scale`."""
