"""Jobs: what is asked for, how far it is, how it begins and ends. Imports no `producer` and no `worker`."""
